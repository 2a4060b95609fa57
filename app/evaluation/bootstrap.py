"""Paired bootstrap of corpus WER: intervals for each backend and for the differences between backends.

Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004: utterances
are drawn with replacement, the same draw for every backend, and each replication's WER is its errors over its words.
The same with speakers drawn instead of utterances gives the intervals of a set whose speakers are a sample themselves.

Intervals are percentiles of the replications, as in that paper. WER is a ratio of sums over many utterances, near
enough to symmetric that corrected intervals (BCa, studentised) move its ends by little; percentiles need no estimate of
variance, which is zero when two backends agree everywhere: their difference is then exactly 0 to 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from kernels.arrays import Doubles

CONFIDENCE = 0.95
BLOCK = 128
"""Replications drawn at a time: 2,620 utterances make 5 MB of draws, whatever the number of replications."""


class Interval(msgspec.Struct, frozen=True):
    """A 95 % interval, as fractions of the reference's words: 2.5 % of the replications are below, and above."""

    low: float
    high: float


@dataclass(frozen=True)
class Replications:
    """WER in each replication.

    Attributes:
        wer: for each backend float64, shape (replications,), the same draws for all; a draw without a word is NaN.
    """

    wer: Mapping[str, Doubles]

    def interval(self, backend: str) -> Interval | None:
        """Of a backend's WER; None where no draw has a word."""
        return _percentiles(self.wer[backend])

    def difference(self, backend: str, baseline: str) -> Interval | None:
        """Of WER(backend) - WER(baseline)."""
        return _percentiles(self.wer[backend] - self.wer[baseline])

    def share_better(self, backend: str, baseline: str) -> float | None:
        """Share of the replications in which the backend's WER is the lower one.

        Bisani and Ney's probability of improvement; draws in which both are the same do not count for it.
        """
        difference = self.wer[backend] - self.wer[baseline]
        kept = difference[np.isfinite(difference)]
        return float((kept < 0).mean()) if len(kept) else None


def replicate(
    errors: Mapping[str, npt.NDArray[np.int64]],
    words: npt.NDArray[np.int64],
    *,
    groups: Sequence[str] | None = None,
    replications: int = 10_000,
    seed: int = 0,
) -> Replications:
    """Draw the replications.

    Args:
        errors: for each backend, int64, shape (utterances,).
        words: in the references, int64, shape (utterances,).
        groups: the speaker of each utterance: speakers are drawn, each with all its utterances. Utterances are drawn
            where it is None.
        replications: how many draws; none are made of no utterance, nor of fewer than two speakers.
        seed: of the draws. They depend on nothing but it and the number of utterances, so that one more backend
            changes no other's interval; callers put utterances in the order of their ids.

    Raises:
        ValueError: lengths differ.
    """
    table = np.stack([words, *errors.values()], 1).astype(np.float64)
    if groups is not None:
        if len(groups) != len(table):
            raise ValueError(f"{len(groups)} groups for {len(table)} utterances")
        names, index = np.unique(np.asarray(groups, str), return_inverse=True)
        summed = np.zeros((len(names), table.shape[1]))
        np.add.at(summed, index, table)
        table = summed
    if len(table) < (1 if groups is None else 2):
        replications = 0
    totals = _totals(table, replications, np.random.default_rng(seed))
    with np.errstate(invalid="ignore", divide="ignore"):
        # Insertions alone, in a draw without a word, are no rate.
        rates = np.where(totals[:, :1] > 0, totals[:, 1:] / totals[:, :1], np.nan)
    return Replications({name: rates[:, i] for i, name in enumerate(errors)})


def _totals(table: Doubles, replications: int, random: np.random.Generator) -> Doubles:
    """Sums of the table's rows over each draw, shape (replications, columns); exact, since all are whole numbers."""
    n = len(table)
    totals = np.empty((replications, table.shape[1]))
    for start in range(0, replications, BLOCK):
        size = min(BLOCK, replications - start)
        drawn = random.integers(0, n, (size, n), dtype=np.int32)
        drawn += np.arange(size, dtype=np.int32)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        totals[start : start + size] = counts.astype(np.float64) @ table
    return totals


def _percentiles(values: Doubles) -> Interval | None:
    kept = values[np.isfinite(values)]
    if not len(kept):
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(kept, [tail, 1 - tail])
    return Interval(float(low), float(high))
