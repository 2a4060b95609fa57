"""The record of a run: what one backend made of each utterance, one JSON object a line, the run's description first.

Raw hypotheses are the record. Every figure is computed from them afterwards and can be computed again. A run appends
to its file, so that what it had done when it was killed is kept.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

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


SYNC_EVERY = 64
"""Utterances after which a writer waits until they are on the disk."""

_LINE = msgspec.json.Decoder(RunLine | UtteranceRecord)


def read(path: Path) -> BackendRecords:
    """A record file as it is, each line an utterance; a last line that was cut is left out.

    Raises:
        EvidenceError: the file cannot be read, is empty, has a damaged line, or does not hold one run that this version
            knows; the text has file and line.
    """
    run: RunDescription | None = None
    utterances = []
    for number, (_, line) in enumerate(_lines(path), start=1):
        if isinstance(line, UtteranceRecord):
            utterances.append(line)
        elif run is not None:
            raise EvidenceError(f"{path}:{number}: a second run's description; one file holds one run")
        else:
            run = line.run
        if run is None:
            raise EvidenceError(
                f"{path}:1: not a run's description: the first line of a record file must be one"
            )
    if run is None:
        raise EvidenceError(f"{path}: empty, or cut in its first line: a run that had not begun; remove it")
    return BackendRecords(run, tuple(utterances))


def _lines(path: Path) -> Iterator[tuple[int, RunLine | UtteranceRecord]]:
    """End in bytes and content of each line; stops before a last line that was cut."""
    end = 0
    with reading(path), open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            end += len(line)
            try:
                with reading(f"{path}:{number}"):
                    found = _LINE.decode(line)
            except EvidenceError as error:
                # What was cut is no JSON; what is JSON is wrong wherever it ends.
                if line.endswith(b"\n") or error.__cause__:
                    raise
                return
            yield end, found


class RecordWriter(AbstractContextManager["RecordWriter"]):
    """Appends utterances to a record file, each line whole and handed to the system at once.

    Attributes:
        done: ids of the utterances that were there already, without those that had failed: what a run that is
            resumed need not do again.
    """

    def __init__(self, path: Path, run: RunDescription, *, resume: bool = False) -> None:
        """Begin a file in a folder that is there, or go on with one.

        Args:
            path: where it is.
            run: must be that of the file when it is resumed.
            resume: go on with the file where there is one; else a file that is there is an error.

        Raises:
            EvidenceError: the file is there and `resume` is not set; it is damaged, or another run's; or another
                run is writing to it.
            OSError: the file cannot be written.
        """
        self.done: frozenset[str] = frozenset()
        self._unsynced = 0
        self._file: BinaryIO = open(path, "a+b")  # noqa: SIM115 - open as long as the writer
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_size and not resume:
                raise EvidenceError(f"{path}: there already; resume it, or choose another folder")
            # After a kill the last line may be cut; what is left of it goes, its utterance is done again.
            end = max((end for end, _ in _lines(path)), default=0)
            if end:
                earlier = read(path)
                same_run(earlier.run, run, path, "this run")
                self.done = frozenset(u.id for u in earlier.utterances if u.error is None)
            self._file.truncate(end)
            self._file.seek(max(end - 1, 0))
            if self._file.read(1) not in (b"\n", b""):
                self._file.write(b"\n")
            if not end:
                self._append(RunLine(schema_version=1, **msgspec.structs.asdict(run)))
                self._sync()
        except BlockingIOError:
            self._file.close()
            raise EvidenceError(f"{path}: another run is writing to it") from None
        except BaseException:
            self._file.close()
            raise

    def write(self, record: UtteranceRecord) -> None:
        """Append one utterance. Raises OSError."""
        self._append(record)
        self._unsynced += 1
        if self._unsynced >= SYNC_EVERY:
            self._sync()

    def _append(self, line: RunLine | UtteranceRecord) -> None:
        try:
            data = msgspec.json.encode(line)
        except UnicodeEncodeError:
            # Surrogates that a tokeniser left behind cannot be UTF-8; the replacement is a visible question mark.
            data = json.dumps(msgspec.to_builtins(line), ensure_ascii=False).encode("utf-8", "replace")
        self._file.write(data + b"\n")
        self._file.flush()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def __exit__(self, *_: object) -> None:
        """Wait until all is on the disk, and close."""
        self._sync()
        self._file.close()


def load(paths: Iterable[Path]) -> BackendRecords:
    """Read the files of one backend: a run in parts, taken as one.

    An utterance that failed and later succeeded counts as done; one that is there twice with the same text counts
    once, with the times of the first.

    Raises:
        EvidenceError: there are no files, one is damaged, they are of different runs, or they give different texts for
            an utterance.
    """
    files = [(path, read(path)) for path in paths]
    if not files:
        raise EvidenceError("no record files")
    first, its = files[0]
    records: dict[str, tuple[UtteranceRecord, Path]] = {}
    for path, file in files:
        same_run(its.run, file.run, first, path)
        for record in file.utterances:
            earlier, home = records.setdefault(record.id, (record, path))
            same_utterance(earlier, record, home, path)
            if earlier.error is not None and record.error is None:
                records[record.id] = record, path
            elif record.error is None and record.hypothesis != earlier.hypothesis:
                raise EvidenceError(f"utterance {record.id}: two hypotheses, in {home} and {path}")
    return BackendRecords(_joined([file.run for _, file in files]), tuple(r for r, _ in records.values()))


def _joined(runs: Sequence[RunDescription]) -> RunDescription:
    """One description; what says where and when is joined, and threads that differ are no one number."""

    def join(values: Iterable[str | None]) -> str | None:
        return "; ".join(sorted({v for v in values if v})) or None

    threads = {run.threads for run in runs}
    return msgspec.structs.replace(
        runs[0],
        device_reason=join(run.device_reason for run in runs) or "",
        processor=join(run.processor for run in runs),
        threads=threads.pop() if len(threads) == 1 else None,
        started=min((run.started for run in runs if run.started), default=None),
    )
