"""The evaluation: everything that the reports say, as data, computed from the records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from app.evaluation import scoring
from app.evaluation.alignment import Operation, normaliser
from app.evaluation.bootstrap import CONFIDENCE
from app.evaluation.kernels import KernelValidation
from app.evaluation.records import (
    DECIDES_COMPARISON,
    BackendRecords,
    EvidenceError,
    RunDescription,
    UtteranceRecord,
    same_run,
    same_utterance,
)
from app.evaluation.rules import Candidate, Limits, unheard_words
from app.evaluation.scoring import ScoredBackend
from app.evaluation.summaries import BackendSummary, Comparison, compare, resampler, summarise_backend
from app.evaluation.verdict import Verdict, judge
from kernels.backends import REFERENCE, RIVAL


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
    """All of it, as report.json has it; a pure function of the records, the limits, the validation and the seed.

    Attributes:
        verdicts: one for each backend but cpu, in the order of the records.
        backends: in the order of the records.
        comparisons: each backend with cpu, then with int8.
        streams: each backend's stream with its whole recordings, where they were streamed.
        differing: by id.
        notes: what a reader should know about the records.
    """

    schema_version: int = 1
    dataset: DatasetSummary
    statistics: Statistics
    limits: Limits
    verdicts: tuple[Verdict, ...]
    backends: tuple[BackendSummary, ...]
    comparisons: tuple[Comparison, ...]
    streams: tuple[Comparison, ...]
    differing: tuple[DifferingUtterance, ...]
    notes: tuple[str, ...]

    def backend(self, name: str) -> BackendSummary:
        """A backend by name. Raises KeyError."""
        return {summary.backend: summary for summary in self.backends}[name]

    def verdict(self, name: str) -> Verdict:
        """A candidate's verdict by name. Raises KeyError."""
        return {verdict.backend: verdict for verdict in self.verdicts}[name]

    def comparison(self, backend: str, baseline: str = REFERENCE) -> Comparison | None:
        """A comparison by names; None where there is none."""
        pairs = {(c.backend, c.baseline): c for c in self.comparisons}
        return pairs.get((backend, baseline))

    def to_dict(self) -> dict[str, Any]:
        """The object of report.json: plain types, the same for the same evidence."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data


def summarise(
    records_by_backend: Mapping[str, BackendRecords],
    *,
    limits: Limits | None = None,
    validation: Mapping[str, KernelValidation] | None = None,
    seed: int = 0,
    replications: int = 10_000,
) -> Evaluation:
    """Score the records, compare the backends, and judge each but `cpu`.

    Each backend is scored on all that it transcribed, and compared on what both transcribed.

    Args:
        records_by_backend: at least one, with the same model, options and data set.
        limits: the defaults where it is None.
        validation: of the candidates' kernels, by backend.
        seed: of the bootstrap's draws.
        replications: of the bootstrap.

    Raises:
        EvidenceError: there are no records; the runs do not belong together; references or speakers of an utterance
            differ; there are more utterances than the data set has.
        kernels.backends.UnknownBackendError: there is no such backend.
    """
    limits, validation = limits or Limits(), validation or {}
    first = _check(records_by_backend)
    name_of_normaliser, normalise = normaliser(first.dataset.language)
    scored = scoring.score(records_by_backend, normalise)
    everything = scored | scoring.streams(scored, normalise)
    draw = resampler(everything, replications=replications, seed=seed)
    candidates = [name for name in scored if name != REFERENCE]
    comparisons = {
        (name, baseline): compare(scored, name, baseline, draw)
        for baseline in (REFERENCE, RIVAL)
        for name in candidates
        if name != baseline
    }
    streams = {name: compare(everything, scoring.streamed(name), name, draw) for name in scored}
    cpu = scored.get(REFERENCE)
    summaries = {
        name: summarise_backend(one, cpu, draw, validation.get(name)) for name, one in scored.items()
    }

    def candidate(name: str) -> Candidate:
        one = scored[name]
        return Candidate(
            summary=summaries[name],
            against_cpu=comparisons[name, REFERENCE],
            against_rival=comparisons.get((name, RIVAL)),
            against_batch=streams[name],
            unheard=one.unheard,
            utterances=sum(cpu is None or key in cpu.records for key in one.records),
            failed=len({*one.failed, *(cpu.failed if cpu else ())}),
        )

    return Evaluation(
        dataset=_dataset(first, scored),
        statistics=Statistics(normaliser=name_of_normaliser, replications=replications, seed=seed),
        limits=limits,
        verdicts=tuple(judge(candidate(name), limits) for name in candidates),
        backends=tuple(summaries.values()),
        comparisons=tuple(comparison for comparison in comparisons.values() if comparison),
        streams=tuple(comparison for comparison in streams.values() if comparison),
        differing=_differing(scored, summaries),
        notes=_notes(scored),
    )


def _check(backends: Mapping[str, BackendRecords]) -> RunDescription:
    if not backends:
        raise EvidenceError("no records")
    first_name, first = next(iter(backends.items()))
    seen: dict[str, tuple[UtteranceRecord, str]] = {}
    for name, backend in backends.items():
        if backend.run.backend != name:
            raise EvidenceError(f"records given for {name} are of {backend.run.backend}")
        same_run(first.run, backend.run, first_name, name, DECIDES_COMPARISON)
        expected = backend.run.dataset.expected
        if expected is not None and len(backend.utterances) > expected:
            raise EvidenceError(f"{name}: {len(backend.utterances)} utterances of a data set of {expected}")
        for record in backend.utterances:
            other, home = seen.setdefault(record.id, (record, name))
            same_utterance(other, record, home, name)
    return first.run


def _dataset(run: RunDescription, scored: Mapping[str, ScoredBackend]) -> DatasetSummary:
    first, *others = scored.values()
    ids = [key for key in first.records if all(key in other.records for other in others)]
    dataset, speakers, count = run.dataset, first.speakers(ids), len(ids)
    complete = dataset.complete and dataset.expected == count
    if complete:
        title = dataset.name
    elif dataset.expected is None:
        title = f"{count:,} utterances of {dataset.name}, whose size is not known"
    elif dataset.expected == count:
        title = f"{count:,} utterances of {dataset.name}, which was not whole"
    else:
        title = f"a subset of {dataset.name}: {count:,} of {dataset.expected:,} utterances"
    return DatasetSummary(
        name=dataset.name,
        title=title,
        sha256=dataset.sha256,
        language=dataset.language,
        expected=dataset.expected,
        utterances=count,
        failed=len({key for one in scored.values() for key in one.failed}),
        complete=complete,
        speakers=None if speakers is None else len(set(speakers)),
        audio_seconds=scoring.total(first.records[key].audio_seconds for key in ids),
    )


def _differing(
    scored: Mapping[str, ScoredBackend], summaries: Mapping[str, BackendSummary]
) -> tuple[DifferingUtterance, ...]:
    cpu = scored.get(REFERENCE)
    if cpu is None:
        return ()
    kinds = {(name, one.id): one.kinds for name, its in summaries.items() for one in its.broken or ()}
    found = []
    for key, exact in cpu.alignments.items():
        transcripts = []
        for name, backend in {REFERENCE: cpu, **scored}.items():
            if key in backend.alignments:
                one = backend.alignments[key]
                same = one.hypothesis == exact.hypothesis
                transcripts.append(
                    ScoredHypothesis(
                        backend=name,
                        hypothesis=backend.records[key].hypothesis or "",
                        errors=one.errors,
                        same_as_cpu=same,
                        broken=kinds.get((name, key), ()),
                        operations=one.operations if name == REFERENCE or not same else (),
                    )
                )
        if not all(transcript.same_as_cpu for transcript in transcripts):
            record = cpu.records[key]
            found.append(
                DifferingUtterance(
                    id=key,
                    speaker=record.speaker,
                    reference=record.reference,
                    audio_seconds=record.audio_seconds,
                    words=len(exact.reference),
                    transcripts=tuple(transcripts),
                )
            )
    return tuple(found)


def _notes(scored: Mapping[str, ScoredBackend]) -> tuple[str, ...]:
    notes, backends = [], list(scored.values())
    if len({frozenset(one.records) for one in backends}) > 1:
        counts = ", ".join(f"{name} {len(one.records):,}" for name, one in scored.items())
        notes.append(
            f"not every backend transcribed the same utterances ({counts}); each pair is compared on its own"
        )
    for field in ("processor", "threads"):
        values = {name: getattr(one.run, field) for name, one in scored.items()}
        if len(set(values.values())) > 1:
            told = ", ".join(f"{name}: {value}" for name, value in values.items())
            notes.append(f"{field} differs ({told}): times cannot be compared")
    first = backends[0].run.versions
    versions = [one.run.versions for one in backends]
    if differing := {key for v in versions for key in {*v, *first} if v.get(key) != first.get(key)}:
        notes.append(f"versions differ between backends: {', '.join(sorted(differing))}")
    if empty := sum(not alignment.reference for alignment in backends[0].alignments.values()):
        notes.append(f"{empty:,} references have no words once normalised; all words there count as inserted")
    if unheard := sorted({key for one in backends for key in one.unheard}):
        notes.append(unheard_words(unheard))
    return tuple(notes)
