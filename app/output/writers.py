"""Transcript files: openai-whisper's formats, written whole or not at all."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from app.output.files import write_whole

if TYPE_CHECKING:
    from app.api import Transcript

Format = Literal["txt", "srt", "vtt", "tsv", "json"]
FORMATS: tuple[Format, ...] = ("txt", "srt", "vtt", "tsv", "json")


@dataclass(frozen=True)
class Layout:
    """How subtitles are broken into lines: openai-whisper's options, which need word timestamps."""

    highlight_words: bool = False
    max_line_width: int | None = None
    max_line_count: int | None = None
    max_words_per_line: int | None = None


def formats(choice: str) -> tuple[Format, ...]:
    """The formats that a choice stands for: one, or all of them.

    Raises:
        ValueError: no such format.
    """
    if choice == "all":
        return FORMATS
    for known in FORMATS:
        if choice == known:
            return (known,)
    raise ValueError(f"unknown format {choice!r}: choose from {', '.join(FORMATS)}, all")


def render(transcript: Transcript, form: Format, layout: Layout | None = None) -> str:
    """The text of a file in one format, by openai-whisper's own writers."""
    result = transcript.to_dict()
    if form == "json":
        return json.dumps(result, ensure_ascii=False, indent=1) + "\n"
    from whisper.utils import get_writer

    for segment in result["segments"]:
        # Segments without text keep their place in the JSON; as subtitles they would be empty lines.
        segment["text"] = segment["text"].strip()
    result["segments"] = [segment for segment in result["segments"] if segment["text"]]
    text = io.StringIO()
    options: dict[str, Any] = asdict(layout or Layout())
    get_writer(form, "").write_result(result, text, options)
    return text.getvalue()


def write(
    transcript: Transcript, stem: Path, choice: tuple[Format, ...], layout: Layout | None = None
) -> list[Path]:
    """Write `stem`.txt and so on; a file appears when it is complete, in place of an older one.

    Args:
        transcript: what to write.
        stem: path without the format's suffix; missing folders are made.
        choice: the formats.
        layout: of the subtitles.

    Returns:
        The files, in the order of `choice`.

    Raises:
        OSError: a folder or file cannot be written.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    texts = {form: render(transcript, form, layout) for form in choice}
    return [write_whole(output_path(stem, form), text) for form, text in texts.items()]


def output_path(stem: Path, form: Format) -> Path:
    """The file of a format."""
    return stem.with_name(f"{stem.name}.{form}")
