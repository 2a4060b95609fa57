"""From records to the evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from app.evaluation import comparing, scoring
from app.evaluation.breakage import Broken
from app.evaluation.comparing import Comparison, Resampler, compare
from app.evaluation.errors import EvidenceError
from app.evaluation.evaluation import (
    BackendSummary,
    DatasetSummary,
    DifferingUtterance,
    Evaluation,
    Failure,
    Statistics,
    Transcript,
)
from app.evaluation.limits import Limits
from app.evaluation.normalising import normaliser
from app.evaluation.records import BackendRecords, RunDescription, UtteranceRecord
from app.evaluation.same_run import DECIDES_COMPARISON, same_run
from app.evaluation.scoring import ScoredBackend
from app.evaluation.validation import KernelValidation
from app.evaluation.verdict import Verdict, judge

REFERENCE, RIVAL = "cpu", "int8"
"""What every backend is compared with: FP32 attention, and the fair INT8 kernel."""


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
        records_by_backend: at least one, by name, with the same model, options and data set.
        limits: of the verdicts; the defaults where it is None.
        validation: of the candidates' kernels, by backend.
        seed: of the bootstrap's draws.
        replications: of the bootstrap.

    Raises:
        EvidenceError: there are no records; the runs do not belong together; references or speakers of an utterance
            differ; there are more utterances than the data set has; an id comes twice.
    """
    limits, validation = limits or Limits(), validation or {}
    first = _check(records_by_backend)
    normalise = normaliser(first.dataset.language)
    scored = scoring.score(records_by_backend, normalise)
    resampler = Resampler(scored, replications=replications, seed=seed)
    candidates = [name for name in scored if name != REFERENCE]
    comparisons = {(name, REFERENCE): compare(scored, name, REFERENCE, resampler) for name in candidates}
    comparisons |= {
        (name, RIVAL): compare(scored, name, RIVAL, resampler) for name in candidates if name != RIVAL
    }
    cpu = scored.get(REFERENCE)
    broken = {name: comparing.broken(scored[name], cpu) for name in candidates} if cpu else {}
    mended = {name: comparing.broken(cpu, scored[name]) for name in candidates} if cpu else {}
    return Evaluation(
        _dataset(first, scored),
        Statistics(normalise.name, replications, seed),
        limits,
        tuple(
            _verdict(scored, name, comparisons, broken.get(name), limits, validation.get(name))
            for name in candidates
        ),
        tuple(
            _backend(scored[name], resampler, broken.get(name), mended.get(name), validation.get(name))
            for name in scored
        ),
        tuple(comparison for comparison in comparisons.values() if comparison),
        _differing(scored, broken),
        _notes(records_by_backend, scored),
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
        own: set[str] = set()
        for record in backend.utterances:
            if record.id in own:
                raise EvidenceError(f"{name}: utterance {record.id} comes twice")
            own.add(record.id)
            other = seen.setdefault(record.id, record)
            for field in ("reference", "speaker"):
                if getattr(record, field) != getattr(other, field):
                    raise EvidenceError(f"utterance {record.id}: {field} of {name} is not that of the others")
    return first.run


def _dataset(run: RunDescription, scored: Mapping[str, ScoredBackend]) -> DatasetSummary:
    every = list(scored.values())
    ids = [key for key in every[0].records if all(key in backend.records for backend in every)]
    failed = {key for backend in every for key in backend.failed}
    dataset, speakers = run.dataset, comparing.speakers_of(every[0], ids)
    lengths = [every[0].records[key].audio_seconds for key in ids]
    known = [length for length in lengths if length is not None]
    complete = dataset.complete and dataset.expected == len(ids)
    return DatasetSummary(
        dataset.name,
        dataset.name if complete else _part(run, len(ids)),
        dataset.sha256,
        dataset.language,
        dataset.expected,
        len(ids),
        len(failed),
        complete,
        None if speakers is None else len(set(speakers)),
        math.fsum(known) if len(known) == len(lengths) else None,
    )


def _part(run: RunDescription, utterances: int) -> str:
    dataset = run.dataset
    if dataset.expected is None:
        return f"{utterances:,} utterances of {dataset.name}, whose size is not known"
    if dataset.expected == utterances:
        return f"{utterances:,} utterances of {dataset.name}, which was not whole"
    return f"a subset of {dataset.name}: {utterances:,} of {dataset.expected:,} utterances"


def _backend(
    backend: ScoredBackend,
    resampler: Resampler,
    broken: tuple[Broken, ...] | None,
    mended: tuple[Broken, ...] | None,
    validation: KernelValidation | None,
) -> BackendSummary:
    name, ids = backend.run.backend, list(backend.alignments)
    by_utterance, by_speaker = resampler.draw(ids), resampler.draw(ids, speakers=True)
    return BackendSummary(
        name,
        backend.run,
        scoring.rates(backend.alignments.values()),
        by_utterance.interval(name) if by_utterance else None,
        by_speaker.interval(name) if by_speaker else None,
        scoring.speed(backend.records.values()),
        scoring.by_speaker(backend),
        scoring.by_length(backend),
        scoring.confusions(backend.alignments.values()),
        tuple(Failure(key, record.error or "") for key, record in backend.failed.items()),
        broken,
        mended,
        validation,
    )


def _verdict(
    scored: Mapping[str, ScoredBackend],
    name: str,
    comparisons: Mapping[tuple[str, str], Comparison | None],
    broken: tuple[Broken, ...] | None,
    limits: Limits,
    validation: KernelValidation | None,
) -> Verdict:
    one, cpu = scored[name], scored.get(REFERENCE)
    both = [key for key in one.records if cpu is None or key in cpu.records]
    failed = {*one.failed, *(cpu.failed if cpu else ())}
    return judge(
        one.run,
        comparisons[name, REFERENCE],
        comparisons.get((name, RIVAL)),
        broken=None if broken is None else len(broken),
        utterances=len(both),
        failed=len(failed),
        limits=limits,
        validation=validation,
        timed=scoring.speed(one.records.values()) is not None,
    )


def _differing(
    scored: Mapping[str, ScoredBackend], broken: Mapping[str, Sequence[Broken]]
) -> tuple[DifferingUtterance, ...]:
    cpu = scored.get(REFERENCE)
    if cpu is None:
        return ()
    kinds = {(name, one.id): one.kinds for name, found in broken.items() for one in found}
    order = [REFERENCE, *(name for name in scored if name != REFERENCE)]
    found = []
    for key, aligned in cpu.alignments.items():
        having = [name for name in order if key in scored[name].alignments]
        same = {name: scored[name].alignments[key].hypothesis == aligned.hypothesis for name in having}
        if all(same.values()):
            continue
        record = cpu.records[key]
        transcripts = []
        for name in having:
            one = scored[name].alignments[key]
            shown = one.operations if name == REFERENCE or not same[name] else ()
            text = scored[name].records[key].hypothesis or ""
            transcripts.append(
                Transcript(name, text, one.errors, same[name], kinds.get((name, key), ()), shown)
            )
        found.append(
            DifferingUtterance(
                key, record.speaker, record.reference, record.audio_seconds, aligned.words, tuple(transcripts)
            )
        )
    return tuple(found)


def _notes(backends: Mapping[str, BackendRecords], scored: Mapping[str, ScoredBackend]) -> tuple[str, ...]:
    notes = []
    sets = {name: len(backend.records) for name, backend in scored.items()}
    if len({frozenset(backend.records) for backend in scored.values()}) > 1:
        counts = ", ".join(f"{name} {count:,}" for name, count in sets.items())
        notes.append(
            f"not every backend transcribed the same utterances ({counts}); each pair is compared on its own"
        )
    for field in ("processor", "threads"):
        values = {name: getattr(backend.run, field) for name, backend in backends.items()}
        if len(set(values.values())) > 1:
            told = ", ".join(f"{name}: {value}" for name, value in values.items())
            notes.append(f"{field} differs ({told}): times cannot be compared")
    versions = [dict(backend.run.versions) for backend in backends.values()]
    if any(version != versions[0] for version in versions):
        keys = sorted({k for v in versions for k in v if v.get(k) != versions[0].get(k)} | _absent(versions))
        notes.append(f"versions differ between backends: {', '.join(keys)}")
    empty = sum(alignment.words == 0 for alignment in next(iter(scored.values())).alignments.values())
    if empty:
        notes.append(f"{empty:,} references have no words once normalised; all words there count as inserted")
    return tuple(notes)


def _absent(versions: Sequence[Mapping[str, object]]) -> set[str]:
    return {key for key in versions[0] if any(key not in version for version in versions)}
