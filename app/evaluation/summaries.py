"""One backend on all that it transcribed, and two on the utterances that both have: rates, intervals, significance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import msgspec

from app.evaluation.bootstrap import Interval, Replications, replicate
from app.evaluation.breakage import Broken, broken
from app.evaluation.kernels import KernelValidation
from app.evaluation.mapsswe import MatchedPairs, mapsswe
from app.evaluation.records import RunDescription, SpeechCoverage
from app.evaluation.scoring import (
    Confusions,
    Lateness,
    Rates,
    ScoredBackend,
    Speed,
    confusions,
    coverage,
    lateness,
    rates,
    speed,
)


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance that a backend could not transcribe."""

    id: str
    error: str


class BackendSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One backend over all utterances that it transcribed.

    Attributes:
        utterance_interval: 95 % interval of its WER, utterances drawn.
        speaker_interval: the same, speakers drawn; None where speakers are not known, or there is one.
        speed: None where nothing was timed.
        coverage: of the speech; None where voice activity detection was off.
        lateness: of words in a stream; None where there was none.
        broken: utterances that it broke and the cpu did not; None where the cpu did not run.
        mended: utterances that the cpu broke and it did not; None where the cpu did not run.
    """

    backend: str
    run: RunDescription
    rates: Rates
    utterance_interval: Interval | None
    speaker_interval: Interval | None
    speed: Speed | None
    coverage: SpeechCoverage | None
    lateness: Lateness | None
    by_speaker: dict[str, Rates]
    by_length: dict[str, Rates]
    confusions: Confusions
    failures: tuple[Failure, ...]
    broken: tuple[Broken, ...] | None
    mended: tuple[Broken, ...] | None
    validation: KernelValidation | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A backend against a baseline, utterance by utterance. Rates are fractions.

    Attributes:
        utterances: that both have; all that follows is of these.
        utterance_interval: 95 % interval of the difference, utterances drawn.
        speaker_interval: the same, speakers drawn; None without a speaker for each utterance, and at least two.
        speakers: None where they are not known.
        share_better: share of the replications (utterances drawn) in which the backend has the lower WER.
        improved: utterances with fewer errors than the baseline's.
        share_no_worse: share of the utterances that have no more; WhisperKit calls it quality of inference (QoI).
        identical_raw: transcripts that are the same but for spaces around them.
        mapsswe: its differences are errors of the backend minus errors of the baseline.
    """

    backend: str
    baseline: str
    utterances: int
    words: int
    wer: float | None
    baseline_wer: float | None
    difference: float | None
    utterance_interval: Interval | None
    speaker_interval: Interval | None
    speakers: int | None
    share_better: float | None
    improved: int
    worsened: int
    share_no_worse: float
    identical_raw: int
    identical_normalised: int
    mapsswe: MatchedPairs


Draw = Callable[..., Replications]
"""Draws utterances by their ids, a tuple in order, or their speakers if a second argument says so."""


def resampler(scored: Mapping[str, ScoredBackend], *, replications: int, seed: int) -> Draw:
    """Bootstrap draws of sets of utterances, each made once for all backends that have the whole set."""

    @cache
    def draw(ids: tuple[str, ...], speakers: bool = False) -> Replications:
        covering = {name: one for name, one in scored.items() if one.alignments.keys() >= set(ids)}
        first = next(iter(covering.values()))
        groups = first.speakers(ids) if speakers else None
        return replicate(
            {name: one.errors(ids) for name, one in covering.items()},
            first.words(ids),
            groups=groups,
            replications=0 if speakers and groups is None else replications,
            seed=seed,
        )

    return draw


def summarise_backend(
    one: ScoredBackend, cpu: ScoredBackend | None, draw: Draw, validation: KernelValidation | None
) -> BackendSummary:
    """Sum up a backend, beside the cpu's run where there is one."""
    name, ids = one.run.backend, tuple(one.alignments)
    baseline = None if one is cpu else cpu
    return BackendSummary(
        backend=name,
        run=one.run,
        rates=rates(one.alignments.values()),
        utterance_interval=draw(ids).interval(name),
        speaker_interval=draw(ids, True).interval(name),
        speed=speed(one.records.values()),
        coverage=coverage(one.records.values()),
        lateness=lateness(one.records.values()),
        by_speaker=one.by_speaker(),
        by_length=one.by_length(),
        confusions=confusions(one.alignments.values()),
        failures=tuple(Failure(id=key, error=record.error or "") for key, record in one.failed.items()),
        broken=broken(one, baseline) if baseline else None,
        mended=broken(baseline, one) if baseline else None,
        validation=validation,
    )


def compare(
    scored: Mapping[str, ScoredBackend], backend: str, baseline: str, draw: Draw
) -> Comparison | None:
    """Compare two backends; None where they have no utterance in common, or one did not run."""
    if backend not in scored or baseline not in scored:
        return None
    one, other = scored[backend], scored[baseline]
    pairs = {key: (a, other.alignments[key]) for key, a in one.alignments.items() if key in other.alignments}
    if not pairs:
        return None
    ids = tuple(pairs)
    first, second = (rates(alignments) for alignments in zip(*pairs.values(), strict=True))
    gained = one.errors(ids) - other.errors(ids)
    worsened = int((gained > 0).sum())
    speakers = one.speakers(ids)
    return Comparison(
        backend=backend,
        baseline=baseline,
        utterances=len(ids),
        words=first.words,
        wer=first.wer,
        baseline_wer=second.wer,
        difference=None if first.wer is None or second.wer is None else first.wer - second.wer,
        utterance_interval=draw(ids).difference(backend, baseline),
        speaker_interval=draw(ids, True).difference(backend, baseline),
        speakers=None if speakers is None else len(set(speakers)),
        share_better=draw(ids).share_better(backend, baseline),
        improved=int((gained < 0).sum()),
        worsened=worsened,
        share_no_worse=1 - worsened / len(ids),
        identical_raw=sum(one.text(i) == other.text(i) for i in ids),
        identical_normalised=sum(a.hypothesis == b.hypothesis for a, b in pairs.values()),
        mapsswe=mapsswe(pairs.values()),
    )
