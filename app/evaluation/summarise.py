"""From records to the evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.evaluation import scoring
from app.evaluation.breakage import Broken, broken
from app.evaluation.comparing import Comparison, Resampler, compare
from app.evaluation.evaluation import (
    BackendSummary,
    DatasetSummary,
    DifferingUtterance,
    Evaluation,
    Failure,
    ScoredHypothesis,
    Statistics,
)
from app.evaluation.kernels import KernelValidation
from app.evaluation.records import (
    DECIDES_COMPARISON,
    BackendRecords,
    RunDescription,
    UtteranceRecord,
    same_run,
)
from app.evaluation.rules import Candidate, Limits, unheard_words
from app.evaluation.scoring import ScoredBackend
from app.evaluation.stored import EvidenceError
from app.evaluation.verdict import judge
from kernels.backends import REFERENCE, RIVAL


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
    name_of_normaliser, normalise = scoring.normaliser(first.dataset.language)
    scored = scoring.score(records_by_backend, normalise)
    resampler = Resampler(scored, replications=replications, seed=seed)
    candidates = [name for name in scored if name != REFERENCE]
    comparisons: dict[tuple[str, str], Comparison | None] = {
        (name, baseline): compare(scored, name, baseline, resampler)
        for baseline in (REFERENCE, RIVAL)
        for name in candidates
        if name != baseline
    }
    cpu = scored.get(REFERENCE)
    broke = {name: broken(scored[name], cpu) for name in candidates} if cpu else {}
    mended = {name: broken(cpu, scored[name]) for name in candidates} if cpu else {}

    def candidate(name: str) -> Candidate:
        one = scored[name]
        return Candidate(
            run=one.run,
            validation=validation.get(name),
            against_cpu=comparisons[name, REFERENCE],
            against_rival=comparisons.get((name, RIVAL)),
            broken=len(broke[name]) if cpu else None,
            unheard=tuple(one.unheard),
            utterances=sum(cpu is None or key in cpu.records for key in one.records),
            failed=len({*one.failed, *(cpu.failed if cpu else ())}),
            timed=scoring.speed(one.records.values()) is not None,
        )

    def summary(name: str) -> BackendSummary:
        one, ids = scored[name], list(scored[name].alignments)
        by_utterance, by_speaker = resampler.draw(ids), resampler.draw(ids, speakers=True)
        return BackendSummary(
            backend=name,
            run=one.run,
            rates=scoring.rates(one.alignments.values()),
            utterance_interval=by_utterance.interval(name),
            speaker_interval=by_speaker.interval(name),
            speed=scoring.speed(one.records.values()),
            by_speaker=scoring.by_speaker(one),
            by_length=scoring.by_length(one),
            confusions=scoring.confusions(one.alignments.values()),
            failures=tuple(Failure(id=key, error=record.error or "") for key, record in one.failed.items()),
            broken=broke.get(name),
            mended=mended.get(name),
            validation=validation.get(name),
        )

    return Evaluation(
        dataset=_dataset(first, scored),
        statistics=Statistics(normaliser=name_of_normaliser, replications=replications, seed=seed),
        limits=limits,
        verdicts=tuple(judge(candidate(name), limits) for name in candidates),
        backends=tuple(map(summary, scored)),
        comparisons=tuple(comparison for comparison in comparisons.values() if comparison),
        differing=_differing(scored, broke),
        notes=_notes(records_by_backend, scored),
    )


def _check(backends: Mapping[str, BackendRecords]) -> RunDescription:
    if not backends:
        raise EvidenceError("no records")
    first_name, first = next(iter(backends.items()))
    seen: dict[str, UtteranceRecord] = {}
    for name, backend in backends.items():
        if backend.run.backend != name:
            raise EvidenceError(f"records given for {name} are of {backend.run.backend}")
        same_run(first.run, backend.run, first_name, name, DECIDES_COMPARISON)
        expected = backend.run.dataset.expected
        if expected is not None and len(backend.utterances) > expected:
            raise EvidenceError(f"{name}: {len(backend.utterances)} utterances of a data set of {expected}")
        for record in backend.utterances:
            other = seen.setdefault(record.id, record)
            for field in ("reference", "speaker"):
                if getattr(record, field) != getattr(other, field):
                    raise EvidenceError(f"utterance {record.id}: {field} of {name} is not that of the others")
    return first.run


def _dataset(run: RunDescription, scored: Mapping[str, ScoredBackend]) -> DatasetSummary:
    every = list(scored.values())
    ids = [key for key in every[0].records if all(key in backend.records for backend in every)]
    failed = {key for backend in every for key in backend.failed}
    dataset, speakers = run.dataset, every[0].speakers(ids)
    complete = dataset.complete and dataset.expected == len(ids)
    return DatasetSummary(
        name=dataset.name,
        title=dataset.name if complete else _part(run, len(ids)),
        sha256=dataset.sha256,
        language=dataset.language,
        expected=dataset.expected,
        utterances=len(ids),
        failed=len(failed),
        complete=complete,
        speakers=None if speakers is None else len(set(speakers)),
        audio_seconds=scoring.total([every[0].records[key].audio_seconds for key in ids]),
    )


def _part(run: RunDescription, utterances: int) -> str:
    dataset = run.dataset
    if dataset.expected is None:
        return f"{utterances:,} utterances of {dataset.name}, whose size is not known"
    if dataset.expected == utterances:
        return f"{utterances:,} utterances of {dataset.name}, which was not whole"
    return f"a subset of {dataset.name}: {utterances:,} of {dataset.expected:,} utterances"


def _differing(
    scored: Mapping[str, ScoredBackend], broke: Mapping[str, Sequence[Broken]]
) -> tuple[DifferingUtterance, ...]:
    cpu = scored.get(REFERENCE)
    if cpu is None:
        return ()
    kinds = {(name, one.id): one.kinds for name, found in broke.items() for one in found}
    order = [REFERENCE, *(name for name in scored if name != REFERENCE)]
    found = []
    for key, aligned in cpu.alignments.items():
        having = {name: scored[name].alignments[key] for name in order if key in scored[name].alignments}
        same = {name: one.hypothesis == aligned.hypothesis for name, one in having.items()}
        if all(same.values()):
            continue
        record = cpu.records[key]
        transcripts = tuple(
            ScoredHypothesis(
                backend=name,
                hypothesis=scored[name].records[key].hypothesis or "",
                errors=one.errors,
                same_as_cpu=same[name],
                broken=kinds.get((name, key), ()),
                operations=one.operations if name == REFERENCE or not same[name] else (),
            )
            for name, one in having.items()
        )
        found.append(
            DifferingUtterance(
                id=key,
                speaker=record.speaker,
                reference=record.reference,
                audio_seconds=record.audio_seconds,
                words=aligned.words,
                transcripts=transcripts,
            )
        )
    return tuple(found)


def _notes(backends: Mapping[str, BackendRecords], scored: Mapping[str, ScoredBackend]) -> tuple[str, ...]:
    notes = []
    if len({frozenset(backend.records) for backend in scored.values()}) > 1:
        counts = ", ".join(f"{name} {len(backend.records):,}" for name, backend in scored.items())
        notes.append(
            f"not every backend transcribed the same utterances ({counts}); each pair is compared on its own"
        )
    for field in ("processor", "threads"):
        values = {name: getattr(backend.run, field) for name, backend in backends.items()}
        if len(set(values.values())) > 1:
            told = ", ".join(f"{name}: {value}" for name, value in values.items())
            notes.append(f"{field} differs ({told}): times cannot be compared")
    versions = [backend.run.versions for backend in backends.values()]
    differing = {key for v in versions for key in {*v, *versions[0]} if v.get(key) != versions[0].get(key)}
    if differing:
        notes.append(f"versions differ between backends: {', '.join(sorted(differing))}")
    empty = sum(alignment.words == 0 for alignment in next(iter(scored.values())).alignments.values())
    if empty:
        notes.append(f"{empty:,} references have no words once normalised; all words there count as inserted")
    unheard = sorted({key for backend in scored.values() for key in backend.unheard})
    if unheard:
        notes.append(unheard_words(unheard))
    return tuple(notes)
