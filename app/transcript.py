"""A recording's text: its segments as they are decoded, the whole, and what made it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import chain
from typing import Any

from app.audio.findings import Findings
from models.compute import Context, ResolvedType
from models.decoding.coverage import Coverage
from models.decoding.longform import transcribe_batched, window_by_window
from models.decoding.options import DecodeOptions
from models.decoding.recogniser import Recogniser
from models.decoding.segments import Segment
from models.features import LogMelFeatures

SCHEMA_VERSION = 1

Progress = Callable[[float, float], None]


@dataclass(frozen=True)
class Run:
    """What made a transcript: recorded with each one.

    Attributes:
        model: its name, or the path that it was loaded from.
        model_sha256: of the weights' file.
        device: what computed the encoder's attention: `cpu`, `emulator` or `npu`.
        tile_size: keys per tile; None for `cpu` and the legacy kernels.
        compute_type: of what is not integer attention.
        audio_context: what the encoder is given of a window: 30 s (`full`), or no more than it needs (`auto`).
        batch_size: windows decoded at once.
    """

    model: str
    model_sha256: str
    backend: str
    device: str
    device_reason: str
    tile_size: int | None
    compute_type: ResolvedType
    compute_reason: str
    audio_context: Context
    options: DecodeOptions
    batch_size: int
    version: str = field(default_factory=lambda: version("tilescribe"))


@dataclass(frozen=True)
class Transcript:
    """The text of a recording: its segments', joined.

    Attributes:
        language: its code.
        language_probability: where it was detected, else None.
        duration: seconds of audio.
        notes: what is odd about the audio, a line each.
        undecoded: seconds of it that could not be decoded, and are silence here.
        coverage: what became of its speech; None where voice activity detection was off.
    """

    text: str
    segments: tuple[Segment, ...]
    language: str
    language_probability: float | None
    duration: float
    run: Run
    notes: tuple[str, ...] = ()
    undecoded: float = 0.0
    coverage: Coverage | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON that is written: openai-whisper's fields, and the run under `tilescribe`."""
        return {
            "text": self.text,
            "segments": [segment.to_dict() for segment in self.segments],
            "language": self.language,
            "tilescribe": {
                "schema_version": SCHEMA_VERSION,
                "duration": self.duration,
                "language_probability": self.language_probability,
                "notes": list(self.notes),
                "undecoded_seconds": self.undecoded,
                "coverage": None if self.coverage is None else self.coverage.to_dict(),
                **asdict(self.run),
            },
        }


class SegmentStream(Iterator[Segment]):
    """Segments of one recording as they are decoded; `transcript()` takes the rest and gives the whole.

    Attributes:
        duration: seconds of audio.
        language: its code; None until the first segment where it has to be detected.
        language_probability: where it was detected.
        findings: what is odd about the audio.
        coverage: what became of its speech, when all segments were taken; None where voice activity detection is off.
        complete: whether all is decoded.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        features: LogMelFeatures,
        findings: Findings,
        run: Run,
        on_progress: Progress | None,
    ) -> None:
        self.duration = features.duration
        self.findings = findings
        self.language = run.options.language
        self.language_probability: float | None = None
        self.coverage: Coverage | None = None
        self.complete = False
        self._run = run
        self._features = features
        self._segments: list[Segment] = []
        told: Any = {"on_progress": on_progress, "on_language": self._found, "on_coverage": self._covered}
        how: Any = (recogniser, features, run.options)
        if run.batch_size == 1:
            self._windows = self._kept(window_by_window(*how, **told))
        else:
            batched = transcribe_batched(*how, batch_size=run.batch_size, **told)
            self._windows = self._kept(([segment], False) for segment in batched)
        self._each = chain.from_iterable(self._windows)

    def __next__(self) -> Segment:
        return next(self._each)

    def next_window(self) -> list[Segment] | None:
        """The segments of one more window, so that several recordings can be decoded in turn; None after the last.

        In batches it is one segment that comes.
        """
        return next(self._windows, None)

    def close(self) -> None:
        """Leave the rest undecoded, and free the features."""
        self._windows.close()
        self._features.close()

    def _kept(self, windows: Iterable[tuple[list[Segment], bool]]) -> Generator[list[Segment], None, None]:
        with self._features:
            for segments, self.complete in windows:
                self._segments += segments
                yield segments
        self.complete = True

    def transcript(self) -> Transcript:
        """Decode what is left, and return everything."""
        for _ in self:
            pass
        return Transcript(
            text="".join(segment.text for segment in self._segments).strip(),
            segments=tuple(self._segments),
            language=self.language or "en",
            language_probability=self.language_probability,
            duration=self.duration,
            run=self._run,
            notes=tuple(self.findings.notes),
            undecoded=round(self.findings.undecoded, 3),
            coverage=self.coverage,
        )

    def _found(self, language: str, probability: float) -> None:
        self.language, self.language_probability = language, probability

    def _covered(self, coverage: Coverage) -> None:
        self.coverage = coverage
