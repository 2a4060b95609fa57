"""Transcript files: openai-whisper's formats, and a page to look at; written whole or not at all."""

from __future__ import annotations

import errno
import html
import io
import json
import os
import stat
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from app.output.page import audio_url, embedded, render_page

if TYPE_CHECKING:
    from app.audio.inputs import Recording
    from app.transcript import Transcript
    from models.decoding.segments import Segment

Format = Literal["txt", "srt", "vtt", "tsv", "json", "html"]
FORMATS: tuple[Format, ...] = get_args(Format)
ALL: tuple[Format, ...] = FORMATS[:-1]
"""What openai-whisper's `all` stands for."""


@dataclass(frozen=True)
class Layout:
    """How subtitles are broken into lines: openai-whisper's options, which need word timestamps."""

    highlight_words: bool = False
    max_line_width: int | None = None
    max_line_count: int | None = None
    max_words_per_line: int | None = None


def formats(choice: str) -> tuple[Format, ...]:
    """The formats that a choice stands for: one, or `all` of openai-whisper's.

    Raises:
        ValueError: no such format.
    """
    chosen = ALL if choice == "all" else tuple(form for form in FORMATS if form == choice)
    if chosen:
        return chosen
    raise ValueError(f"unknown format {choice!r}: choose from {', '.join(FORMATS)}, all")


@dataclass(frozen=True)
class Output:
    """Where transcripts go, and in which formats.

    Attributes:
        folder: of the files, which is made with what is above it; `-` is standard output, None is nowhere.
        formats: standard output takes one.
        embed_audio: put the recordings into their pages, which else link to them.

    Raises:
        ValueError: several formats for standard output, or audio to embed in what is no page.
    """

    folder: str | None
    formats: tuple[Format, ...]
    layout: Layout = Layout()
    embed_audio: bool = False

    def __post_init__(self) -> None:
        if self.embed_audio and not self.has_pages:
            raise ValueError("--embed-audio needs -f html")
        if self.to_standard_output and len(self.formats) > 1:
            one = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
            raise ValueError(f"standard output takes one format: -f {one}")

    @property
    def to_standard_output(self) -> bool:
        """Whether the transcripts are printed."""
        return self.folder == "-"

    @property
    def printed(self) -> Format | None:
        """What is printed while it is decoded; None where that can be only in the end."""
        form = self.formats[0] if self.to_standard_output else "txt"
        return None if form in ("json", "html") else form

    @property
    def has_pages(self) -> bool:
        """Whether pages are written, which show what is heard."""
        return "html" in self.formats

    def paths(self, stem: Path) -> list[Path]:
        """The files of a recording: `stem`.txt and so on under the folder."""
        if self.folder is None or self.to_standard_output:
            return []
        return [Path(self.folder) / stem.with_name(f"{stem.name}.{form}") for form in self.formats]

    def check(self, recordings: Iterable[Recording]) -> None:
        """Find before the work what will stop it from being written; goes through the recordings more than once.

        Raises:
            ValueError: two recordings would be written to the same file, or one be written over.
            OSError: a folder can't be written, or is in a file's place.
        """
        import numpy as np

        from app.audio.inputs import repeated

        stems, read, written = array("q"), array("q"), array("q")
        folder = None
        for recording in recordings:
            stems.append(hash(recording.stem))
            read.append(hash(os.path.abspath(recording.name)))
            for path in self.paths(recording.stem):
                written.append(hash(os.path.abspath(path)))
                if path.parent != folder:
                    check_folder(folder := path.parent)
                if path.is_dir():
                    raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        over = frozenset(np.intersect1d(read, written).tolist())
        twice = repeated(stems) if written else frozenset()
        names: dict[Path, str] = {}
        for recording in recordings if over or twice else ():
            if hash(recording.stem) in twice:
                other = names.setdefault(recording.stem, recording.name)
                if other != recording.name:
                    raise ValueError(
                        f"{other} and {recording.name} would be written to the same file: give them separately"
                    )
            for path in self.paths(recording.stem):
                if hash(os.path.abspath(path)) in over:
                    raise ValueError(f"{path} is a recording, and would be written over: give another -o")

    def has(self, stem: Path) -> bool:
        """Whether all of a recording's files are there."""
        paths = self.paths(stem)
        return bool(paths) and all(path.exists() for path in paths)

    def write(
        self,
        transcript: Transcript,
        recording: Recording,
        pictures: Sequence[bytes] = (),
        webm: bytes | None = None,
    ) -> list[Path]:
        """Write the files of `paths(recording.stem)`, which it returns, or print what is to be printed in the end.

        Args:
            transcript: of the recording.
            recording: where a page finds its audio.
            pictures: PNGs of its spectrogram, one for each 30 s, for a page.
            webm: its audio, to be embedded in place of the file.

        Raises:
            OSError: a folder or file cannot be written, or the recording not be read again.
        """
        if self.folder is None or (self.to_standard_output and self.printed):
            return []
        paths = self.paths(recording.stem)
        texts = [
            self._page(transcript, recording, pictures, webm)
            if form == "html"
            else render(transcript, form, self.layout)
            for form in self.formats
        ]
        if self.to_standard_output:
            sys.stdout.write(texts[0])
            sys.stdout.flush()
            return []
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        return [write_whole(path, text) for path, text in zip(paths, texts, strict=True)]

    def _page(
        self, transcript: Transcript, recording: Recording, pictures: Sequence[bytes], webm: bytes | None
    ) -> str:
        if self.embed_audio:
            audio: str | None = embedded(recording.name, webm)
        else:
            paths = self.paths(recording.stem)
            audio = audio_url(recording.name, paths[0].parent if paths else None)
        return render_page(transcript, recording.name, pictures, audio)


def render(transcript: Transcript, form: Format, layout: Layout = Layout()) -> str:
    """The text of a file in one of openai-whisper's formats."""
    if form == "json":
        return json.dumps(transcript.to_dict(), ensure_ascii=False, indent=1) + "\n"
    text = io.StringIO()
    write_segments(transcript.segments, form, layout, text.write)
    return text.getvalue()


def write_segments(
    segments: Iterable[Segment], form: Format, layout: Layout, show: Callable[[str], object]
) -> None:
    """Show segments as they come, cue by cue and each whole, by openai-whisper's own writers of text and subtitles."""
    from models.openai import submodule

    file: Any = _Cues(show)
    options: dict[str, Any] = asdict(layout)
    submodule("utils").get_writer(form, "").write_result(
        {"segments": _Arriving(segments, form)}, file, options
    )
    file.flush()


class _Cues:
    """A file of which what is written between two flushes is shown at once."""

    def __init__(self, show: Callable[[str], object]) -> None:
        self._show = show
        self._text = ""

    def write(self, text: str) -> None:
        self._text += text

    def flush(self) -> None:
        text, self._text = self._text, ""
        if text:
            self._show(text)


class _Arriving(Sequence[dict[str, Any]]):
    """Segments with a text, taken from where they come from when they are asked for."""

    def __init__(self, segments: Iterable[Segment], form: Format) -> None:
        self._coming = (segment.to_dict() for segment in segments)
        self._form = form
        self._there: list[dict[str, Any]] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from self._there
        for segment in self._coming:
            # Segments without text keep their place in the JSON; as subtitles they would be empty lines.
            segment["text"] = _plain(segment["text"].strip(), self._form)
            for word in segment.get("words", ()):
                word["word"] = _plain(word["word"], self._form)
            if segment["text"]:
                self._there.append(segment)
                yield segment

    def __len__(self) -> int:
        """How many are there; the writers ask whether any is."""
        next(iter(self), None)
        return len(self._there)

    def __getitem__(self, index: Any) -> Any:
        len(self)
        return self._there[index]


def stamped(segment: Segment) -> str:
    """A segment as openai-whisper prints it while it works."""
    start, end = (_clock(segment.start), _clock(segment.end))
    return f"[{start} --> {end}] {segment.text}"


def _clock(seconds: float) -> str:
    minutes, milliseconds = divmod(round(1000 * seconds), 60_000)
    hours = f"{minutes // 60:02d}:" if minutes >= 60 else ""
    return f"{hours}{minutes % 60:02d}:{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"


def _plain(text: str, form: Format) -> str:
    """Text that is no more than text in a format: a line break would end a line or a cue, WebVTT reads `&` and `<`."""
    text = " ".join(text.splitlines())
    return html.escape(text, quote=False) if form == "vtt" else text


def check_folder(folder: Path) -> None:
    """Find whether files can be put into a folder, which may be one that is still to be made.

    Raises:
        OSError: they can't.
    """
    there = folder.absolute()
    while not os.path.lexists(there):
        if len(os.fsencode(there.name)) > 255:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(folder))
        there = there.parent
    if not stat.S_ISDIR(os.stat(there).st_mode):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        cause = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(cause, os.strerror(cause), str(there))


def write_whole(path: Path, text: str) -> Path:
    """Write a text file in UTF-8, in place of an older one, once it is complete; returns its path.

    Raises:
        OSError: it can't be written.
    """
    handle, temporary = tempfile.mkstemp(prefix=".tilescribe-", dir=path.absolute().parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path
