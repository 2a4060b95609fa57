"""The record of a run: what one backend made of each utterance, one JSON object a line, the run's description first.

Raw hypotheses are the record. Every figure is computed from them afterwards and can be computed again. A run appends
to its file, so that what it had done when it was killed is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import msgspec

from datasets.strict import DAMAGE, what_is_wrong

Seconds = Annotated[float, msgspec.Meta(ge=0)]


class EvidenceError(ValueError):
    """Records, figures or limits that cannot be used; the text is one line that names the file, line or field."""


@contextmanager
def reading(where: object) -> Iterator[None]:
    """Turn what is wrong with a file of ours into an `EvidenceError` that names the place, and the field in it."""
    try:
        yield
    except msgspec.ValidationError as error:
        raise EvidenceError(f"{where}: {what_is_wrong(error)}") from error
    except DAMAGE as error:
        raise EvidenceError(f"{where}: {what_is_wrong(error)}") from None


class DatasetDescription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The data set that a run set out to transcribe.

    Attributes:
        name: as the command takes it, such as `librispeech-test-clean`.
        sha256: identifies the set's utterances and references; None where nothing was hashed.
        expected: number of utterances in the whole set; for a list of one's own, its length. None where nobody knows:
            no candidate is then deployed.
        complete: whether the whole set was at hand, whatever part of it this run did; the evaluation counts
            the utterances itself.
        language: code such as `en`, which chooses the text normaliser; None is any other language.
    """

    name: str
    sha256: str | None = None
    expected: int | None = None
    complete: bool = False
    language: str | None = "en"


class RunDescription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ran, and where.

    Attributes:
        model: name or path.
        model_sha256: of its weights.
        backend: one of `kernels.backends`.
        device: `cpu`, `emulator` or `npu`.
        device_reason: why it was that one.
        kernel: parameters such as `tile_size`; empty for `cpu`.
        compute: arithmetic of what is not attention, such as `{"encoder": "float32"}`.
        versions: of Python and of packages.
        started: date and time, ISO 8601.
    """

    model: str
    model_sha256: str | None
    backend: str
    device: str
    device_reason: str
    dataset: DatasetDescription
    kernel: dict[str, Any] = {}
    decoding: dict[str, Any] = {}
    compute: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    processor: str | None = None
    threads: int | None = None
    started: str | None = None


class RunLine(RunDescription, frozen=True, kw_only=True, tag_field="kind", tag="run"):
    """The first line of a record file: the run's description, with the version of the lines, of which there is one."""

    schema_version: Literal[1]

    @property
    def run(self) -> RunDescription:
        """What the line describes."""
        return RunDescription(**{name: getattr(self, name) for name in RunDescription.__struct_fields__})


class SpeechCoverage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of the speech that voice activity detection heard; see `models.decoding.coverage.Coverage`.

    Attributes:
        findings: how many of each kind.
    """

    speech_seconds: Seconds
    covered_seconds: Seconds
    recovered_seconds: Seconds
    findings: dict[str, int] = {}


class SegmentRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A segment with text, as the backend left it; its mean log-probability is that of its window's tokens."""

    start: Seconds
    end: Seconds
    text: str
    avg_logprob: float


class FindingRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See `models.decoding.coverage.Finding`."""

    kind: str
    start: Seconds
    end: Seconds
    text: str = ""


class StreamedText(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the same backend made of an utterance that came as a stream; see `app.evaluation.streaming`.

    Attributes:
        hypothesis: all final words.
        lags: of each word, seconds from its end in the recording until it was final.
        retracted: words that were shown before they were final, and then changed.
    """

    hypothesis: str
    lags: tuple[float, ...] = ()
    retracted: Annotated[int, msgspec.Meta(ge=0)] = 0
    cpu_seconds: Seconds | None = None


class UtteranceRecord(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="utterance",
):
    """What a backend made of one utterance: every further line. Figures that are absent or not finite are None.

    Attributes:
        id: unique in the data set.
        reference: the words that were said, as the data set has them.
        hypothesis: the raw transcript; None where the utterance failed.
        seconds: time from audio samples to text, of which `encode_seconds` in the encoder.
        tokens: number of text tokens decoded.
        compression_ratio: of the hypothesis, as openai-whisper computes it.
        error: why the utterance failed; None where it did not.
        silent: whether the recording has no signal.
        cpu_seconds: that all of the process' threads computed in `seconds`.
        coverage: of its speech; None where voice activity detection was off.
        segments: whose texts joined are the hypothesis; None in records from before they were kept.
        findings: those that `coverage` counts, in the order of the recording.
        streamed: what streaming made of it; None where that was not asked for.
    """

    id: Annotated[str, msgspec.Meta(min_length=1)]
    reference: str
    hypothesis: str | None = None
    speaker: str | None = None
    audio_seconds: Seconds | None = None
    seconds: Seconds | None = None
    encode_seconds: Seconds | None = None
    decode_seconds: Seconds | None = None
    tokens: int | None = None
    avg_logprob: float | None = None
    compression_ratio: float | None = None
    error: str | None = None
    silent: bool = False
    cpu_seconds: Seconds | None = None
    coverage: SpeechCoverage | None = None
    segments: tuple[SegmentRecord, ...] | None = None
    findings: tuple[FindingRecord, ...] = ()
    streamed: StreamedText | None = None

    def __post_init__(self) -> None:
        if (self.hypothesis is None) == (self.error is None):
            raise EvidenceError(f"utterance {self.id}: give a hypothesis, or else an error")


class BackendRecords(msgspec.Struct, frozen=True):
    """A run's description with its utterances in the order of the file or files, each id once."""

    run: RunDescription
    utterances: tuple[UtteranceRecord, ...]


DECIDES_TRANSCRIPTS = (
    "model", "model_sha256", "backend", "device", "kernel", "decoding", "compute", "versions", "dataset",
)  # fmt: skip
"""Fields that must be equal in the parts of one run; the others (processor, threads, ...) say where and when."""

DECIDES_COMPARISON = ("model", "model_sha256", "decoding", "compute", "dataset")
"""Fields that must be equal in runs that are compared: all but attention and its device."""


def same_run(
    first: msgspec.Struct,
    second: RunDescription,
    first_name: object,
    second_name: object,
    fields: Sequence[str] = DECIDES_TRANSCRIPTS,
) -> None:
    """Check that two descriptions agree, or one with what has fields of the same names.

    Raises:
        EvidenceError: they differ; the text names the first field that does, down to the key inside it.
    """
    for name in fields:
        a, b = (msgspec.to_builtins(getattr(run, name)) for run in (first, second))
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            key = next(k for k in sorted({*a, *b}, key=str) if a.get(k) != b.get(k) or (k in a) != (k in b))
            name, a, b = f"{name}.{key}", a.get(key), b.get(key)
        raise EvidenceError(f"not the same run: {name} is {a!r} in {first_name} and {b!r} in {second_name}")


def same_utterance(
    first: UtteranceRecord, second: UtteranceRecord, first_name: object, second_name: object
) -> None:
    """Check that two records of an utterance have the same reference and speaker. Raises `EvidenceError`."""
    for name in ("reference", "speaker"):
        if getattr(first, name) != getattr(second, name):
            text = f"{name} differs between {first_name} and {second_name}"
            raise EvidenceError(f"utterance {first.id}: {text}")
