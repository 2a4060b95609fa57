"""A recording as one HTML page: what is heard and what is written, over the same seconds."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from app.audio.inputs import STANDARD_INPUT
from app.output import tables as t
from app.output.spectrogram import ROW_SECONDS

if TYPE_CHECKING:
    from jinja2 import Environment

    from app.transcript import Transcript
    from models.decoding.coverage import Finding
    from models.decoding.segments import Segment

UNSURE = 0.5
"""Words whose probability is under it are marked."""

_TYPES = {
    ".aac": "audio/aac",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".m4b": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
    ".wave": "audio/wav",
    ".weba": "audio/webm",
}
"""What browsers play as it is, and is sound alone."""


class Box(NamedTuple):
    """A stretch of time on a row, in percent of its width."""

    left: float
    width: float

    def css(self) -> str:
        """Its place."""
        return f"left:{self.left:.2f}%;width:{self.width:.2f}%"


class Said(NamedTuple):
    """A word, or a segment without word times; `probability` is the mean of its window's tokens there."""

    space: str
    text: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class Row:
    """So many seconds of a recording, and the segments that begin in them.

    Attributes:
        width: percent of a whole row's.
        picture: of its spectrogram, as a data URI.
        said: where there is text: words, or segments.
        ticks: times and their places, in percent.
    """

    start: float
    end: float
    width: float
    picture: str | None
    speech: list[Box]
    said: list[Box]
    findings: list[tuple[Finding, Box]]
    segments: list[tuple[Segment, list[Said]]]
    ticks: list[tuple[float, float]]


def render_page(
    transcript: Transcript, name: str, pictures: Sequence[bytes] = (), audio: str | None = None
) -> str:
    """A transcript as a page that needs nothing else: no network, and no other file but the audio.

    Args:
        transcript: what is shown.
        name: of the recording.
        pictures: PNGs of its spectrogram, one for each 30 s.
        audio: its URL, which may hold it; without one nothing can be played.
    """
    script = transcript_script()
    coverage = transcript.coverage
    context = {
        "transcript": transcript,
        "run": transcript.run,
        "device": t.DEVICES.get(transcript.run.device, transcript.run.device),
        "coverage": coverage,
        "vad": transcript.run.options.vad,
        "title": "standard input" if name == STANDARD_INPUT else os.path.basename(name),
        "audio": audio,
        "inside": (audio or "").startswith("data:"),
        "rows": list(_rows(transcript, pictures)),
        "words": any(segment.words for segment in transcript.segments),
        "unsure": UNSURE,
        "styles": transcript_style(),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    page = _environment().get_template("page.html.j2").render(context)
    # Half of a surrogate pair, as in a file's name that is not UTF-8, is no text that a file could hold.
    return page.encode("utf-8", "replace").decode("utf-8")


def audio_url(recording: str, folder: Path | None) -> str | None:
    """Where a page in a folder, or on standard output where that is None, finds its recording; None without a file."""
    if recording == STANDARD_INPUT or not os.path.isfile(recording):
        return None
    path = Path(os.path.abspath(recording))
    if folder is None:
        return path.as_uri()
    # The link holds where both are moved; `..` goes up the real folders.
    near, page = path, Path(os.path.abspath(folder))
    if not near.is_relative_to(page):
        near, page = path.resolve(), page.resolve()
    return quote(os.fsencode(os.path.relpath(near, page)), safe="/")


def embedded(recording: str, webm: bytes | None) -> str:
    """A URL that holds a recording: as WebM where it is given so, else the file as it is.

    Raises:
        OSError: the file can't be read.
    """
    if webm is not None:
        return f"data:audio/webm;base64,{base64.b64encode(webm).decode()}"
    kind = _TYPES[os.path.splitext(recording)[1].lower()]
    return f"data:{kind};base64,{base64.b64encode(Path(recording).read_bytes()).decode()}"


def plays_as_it_is(recording: str) -> bool:
    """Whether browsers play such a file, and it is nothing but sound."""
    return os.path.splitext(recording)[1].lower() in _TYPES and os.path.isfile(recording)


def _rows(transcript: Transcript, pictures: Sequence[bytes]) -> Iterator[Row]:
    duration = max(transcript.duration, 0.01)
    scale = min(duration, ROW_SECONDS)
    count = max(1, math.ceil(duration / scale - 1e-9))
    lengths = [min(scale, duration - number * scale) for number in range(count)]
    step = next(s for s in (0.5, 1, 2, 5) if scale / s <= 6 or s == 5)

    def spread(spans: Iterable[tuple[float, float]]) -> list[list[tuple[int, Box]]]:
        """For each row what lies on it, with its number."""
        on: list[list[tuple[int, Box]]] = [[] for _ in range(count)]
        for number, (start, end) in enumerate(spans):
            for row in range(int(start / scale), min(math.ceil(end / scale), count)):
                first = max(start - row * scale, 0.0)
                last = min(end - row * scale, lengths[row])
                if first < last:
                    on[row].append(
                        (number, Box(100 * first / lengths[row], 100 * (last - first) / lengths[row]))
                    )
        return on

    begun: list[list[tuple[Segment, list[Said]]]] = [[] for _ in range(count)]
    for segment in transcript.segments:
        if segment.text.strip():
            begun[min(int(segment.start / scale), count - 1)].append((segment, _said(segment)))
    coverage = transcript.coverage
    findings = coverage.findings if coverage is not None else ()
    heard = spread(coverage.heard if coverage is not None else ())
    written = spread((one.start, one.end) for row in begun for _, said in row for one in said)
    found = spread((finding.start, finding.end) for finding in findings)
    for number, length in enumerate(lengths):
        start = number * scale
        picture = base64.b64encode(pictures[number]).decode() if number < len(pictures) else None
        yield Row(
            start,
            start + length,
            100 * length / scale,
            None if picture is None else f"data:image/png;base64,{picture}",
            [box for _, box in heard[number]],
            [box for _, box in written[number]],
            [(findings[which], box) for which, box in found[number]],
            begun[number],
            [(start + i * step, 100 * i * step / length) for i in range(math.ceil(length / step - 1e-9))],
        )


def _said(segment: Segment) -> list[Said]:
    """The words of a segment, or all of it."""
    words = segment.words
    if not words:
        mean = math.exp(min(segment.avg_logprob, 0.0))
        return [Said("", segment.text.strip(), segment.start, segment.end, mean)]
    return [
        Said(
            " " if word.word[:1].isspace() else "", word.word.strip(), word.start, word.end, word.probability
        )
        for word in words
    ]


def clock(seconds: float, digits: int = 1) -> str:
    """A time in a recording: 0:04.2, or 1:00:04.2."""
    whole = round(seconds, digits)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(int(minutes), 60)
    width = digits + 3 if digits else 2
    return (f"{hours}:{minutes:02d}" if hours else f"{minutes}") + f":{rest:0{width}.{digits}f}"


def house_style() -> str:
    """The style sheet that pages begin with: colours in light and dark, faces."""
    return _text("house.css")


def transcript_style() -> str:
    """The style sheet of a page with a transcript on it."""
    return house_style() + _text("page.css")


def transcript_script() -> str:
    """The script of such a page: it plays, follows and moves, by pointer and keyboard."""
    return _text("page.js")


def _text(name: str) -> str:
    return files("app.output").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("app.output"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["clock"] = clock
    environment.globals |= {"duration": t.duration, "percent": t.percent}
    return environment
