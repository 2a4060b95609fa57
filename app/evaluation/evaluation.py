"""The evaluation: everything that the reports say, as data."""

from __future__ import annotations

from typing import Any

import msgspec

from app.evaluation.alignment import Operation
from app.evaluation.breakage import Broken
from app.evaluation.comparing import Comparison
from app.evaluation.kernels import KernelValidation
from app.evaluation.records import RunDescription
from app.evaluation.rules import Limits
from app.evaluation.scoring import Confusions, Rates, Speed
from app.evaluation.statistics.bootstrap import CONFIDENCE, Interval
from app.evaluation.verdict import Verdict

SCHEMA_VERSION = 1
"""Of report.json."""


class DatasetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What was transcribed.

    Attributes:
        title: the name if all of it was transcribed by every backend; else a phrase that says what part was.
        sha256: of the whole set, as is `expected`.
        utterances: that every backend transcribed.
        failed: that failed on at least one backend.
        complete: whether every backend transcribed the whole set.
        speakers: among `utterances`; None where one has no speaker.
        audio_seconds: of `utterances`; None where a length is not known.
    """

    name: str
    title: str
    sha256: str | None
    language: str | None
    expected: int | None
    utterances: int
    failed: int
    complete: bool
    speakers: int | None
    audio_seconds: float | None


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """How the intervals and the test were made; `normaliser` is openai-whisper's class that texts went through."""

    normaliser: str
    replications: int
    seed: int
    confidence: float = CONFIDENCE
    interval_method: str = "paired percentile bootstrap (Bisani and Ney, ICASSP 2004)"
    test_method: str = "MAPSSWE, two-tailed (Gillick and Cox, ICASSP 1989; NIST SCTK sc_stats)"


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance that a backend could not transcribe, and why."""

    id: str
    error: str


class BackendSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One backend over all utterances that it transcribed.

    Attributes:
        utterance_interval: 95 % interval of its WER, utterances drawn.
        speaker_interval: the same, speakers drawn; None where speakers are not known, or there is one.
        speed: None where nothing was timed.
        broken: utterances that it broke and the cpu did not; None where the cpu did not run.
        mended: utterances that the cpu broke and it did not; None where the cpu did not run.
    """

    backend: str
    run: RunDescription
    rates: Rates
    utterance_interval: Interval | None
    speaker_interval: Interval | None
    speed: Speed | None
    by_speaker: dict[str, Rates]
    by_length: dict[str, Rates]
    confusions: Confusions
    failures: tuple[Failure, ...]
    broken: tuple[Broken, ...] | None
    mended: tuple[Broken, ...] | None
    validation: KernelValidation | None


class ScoredHypothesis(msgspec.Struct, frozen=True, kw_only=True):
    """What one backend made of an utterance.

    Attributes:
        hypothesis: raw.
        errors: in words.
        same_as_cpu: once normalised.
        broken: the kinds of breakage.
    """

    backend: str
    hypothesis: str
    errors: int
    same_as_cpu: bool
    broken: tuple[str, ...]
    operations: tuple[Operation, ...]


class DifferingUtterance(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance for which some backend's normalised transcript is not the cpu's.

    Attributes:
        reference: as the data set has it.
        words: in it once normalised.
        transcripts: the cpu's first, then every backend's that transcribed it; those that are the same as the cpu's
            have no operations.
    """

    id: str
    speaker: str | None
    reference: str
    audio_seconds: float | None
    words: int
    transcripts: tuple[ScoredHypothesis, ...]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; a pure function of the records, the limits, the validation and the seed.

    Attributes:
        verdicts: one for each backend but cpu, in the order of the records.
        backends: in the order of the records.
        comparisons: each backend with cpu, then with int8.
        differing: by id.
        notes: what a reader should know about the records.
    """

    dataset: DatasetSummary
    statistics: Statistics
    limits: Limits
    verdicts: tuple[Verdict, ...]
    backends: tuple[BackendSummary, ...]
    comparisons: tuple[Comparison, ...]
    differing: tuple[DifferingUtterance, ...]
    notes: tuple[str, ...]

    def backend(self, name: str) -> BackendSummary:
        """A backend by name. Raises KeyError."""
        return {summary.backend: summary for summary in self.backends}[name]

    def verdict(self, name: str) -> Verdict:
        """A candidate's verdict by name. Raises KeyError."""
        return {verdict.backend: verdict for verdict in self.verdicts}[name]

    def comparison(self, backend: str, baseline: str = "cpu") -> Comparison | None:
        """A comparison by names; None where there is none."""
        pairs = {(c.backend, c.baseline): c for c in self.comparisons}
        return pairs.get((backend, baseline))

    def to_dict(self) -> dict[str, Any]:
        """The object of report.json: plain types, the same for the same evidence."""
        data = msgspec.to_builtins(self)
        for plain, verdict in zip(data["verdicts"], self.verdicts, strict=True):
            plain["exit_code"] = verdict.exit_code
        return {"schema_version": SCHEMA_VERSION, **data}
