"""Two backends on the utterances that both have: difference, intervals, significance, equal transcripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from app.evaluation.scoring import ScoredBackend, rates
from app.evaluation.statistics.bootstrap import Interval, Replications, replicate
from app.evaluation.statistics.mapsswe import MatchedPairs, mapsswe


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


class Resampler:
    """Bootstrap draws for sets of utterances, each made once for all backends that have the whole set."""

    def __init__(self, scored: Mapping[str, ScoredBackend], *, replications: int, seed: int) -> None:
        self._scored = scored
        self._replications, self._seed = replications, seed
        self._drawn: dict[tuple[tuple[str, ...], bool], Replications] = {}

    def draw(self, ids: Sequence[str], *, speakers: bool = False) -> Replications:
        """The replications over utterances that a backend has; none where there is nothing, or no two speakers."""
        key = (tuple(ids), speakers)
        if key not in self._drawn:
            covering = {n: s for n, s in self._scored.items() if s.alignments.keys() >= set(ids)}
            first = next(iter(covering.values()))
            groups = first.speakers(ids) if speakers else None
            nothing = not ids or (speakers and len(set(groups or ())) < 2)
            self._drawn[key] = replicate(
                {name: backend.errors(ids) for name, backend in covering.items()},
                first.words(ids),
                groups=groups,
                replications=0 if nothing else self._replications,
                seed=self._seed,
            )
        return self._drawn[key]


def compare(
    scored: Mapping[str, ScoredBackend], backend: str, baseline: str, resampler: Resampler
) -> Comparison | None:
    """Compare two backends; None where they have no utterance in common, or the baseline did not run."""
    if backend not in scored or baseline not in scored:
        return None
    one, other = scored[backend], scored[baseline]
    ids = [key for key in one.alignments if key in other.alignments]
    if not ids:
        return None
    first, second = rates(one.alignments[i] for i in ids), rates(other.alignments[i] for i in ids)
    by_utterance, by_speaker = resampler.draw(ids), resampler.draw(ids, speakers=True)
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
        utterance_interval=by_utterance.difference(backend, baseline),
        speaker_interval=by_speaker.difference(backend, baseline),
        speakers=None if speakers is None else len(set(speakers)),
        share_better=by_utterance.share_better(backend, baseline),
        improved=int((gained < 0).sum()),
        worsened=worsened,
        share_no_worse=1 - worsened / len(ids),
        identical_raw=sum(one.text(i) == other.text(i) for i in ids),
        identical_normalised=sum(one.alignments[i].hypothesis == other.alignments[i].hypothesis for i in ids),
        mapsswe=mapsswe((one.alignments[i], other.alignments[i]) for i in ids),
    )
