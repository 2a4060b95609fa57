"""Matched-pairs sentence-segment word error test (MAPSSWE) of two systems on the same utterances.

Gillick and Cox, "Some statistical issues in the comparison of speech recognition algorithms", ICASSP 1989. Segments and
statistic follow `sc_stats -t mapsswe` of NIST's SCTK: errors of both systems are cut into segments that are bounded by
utterance ends or by two words in a row that both have right; errors in different segments count as independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec
import numpy as np

from app.evaluation.alignment import Alignment

BOUNDARY_WORDS = 2
"""Words in a row that both systems have right between segments: SCTK's default, after Gillick and Cox."""

ENOUGH_SEGMENTS = 50
"""Below so many z is not safely normal (Jurafsky and Martin, "Speech and Language Processing", 2nd edition, 9.8)."""

LEVELS = (0.001, 0.01, 0.05)
"""Significance levels that SCTK's reports tell apart."""


class ErrorSegment(msgspec.Struct, frozen=True):
    """A stretch of an utterance in which at least one system errs.

    Attributes:
        words: reference words in it, boundary words among them.
        first_errors: of the first system; `second_errors` are the second's.
    """

    words: int
    first_errors: int
    second_errors: int


class MatchedPairs(msgspec.Struct, frozen=True):
    """The test's result.

    Attributes:
        mean: of errors of the first system minus errors of the second, per segment.
        variance: of these differences (divided by segments - 1); None for fewer than two segments.
        z: mean / sqrt(variance / segments); 0 where all differences are 0, None where it is undefined: fewer than two
            segments, or differences that are all the same but not 0 (SCTK prints 0 there).
        p: two-tailed probability of such a |z| if the systems err alike; None where z is.
        level: the strictest of 0.001, 0.01 and 0.05 that p does not exceed; None where it exceeds all, or is None.
        enough: whether there are segments enough to take z as normal.
    """

    segments: int
    mean: float
    variance: float | None
    z: float | None
    p: float | None
    level: float | None
    enough: bool


def mapsswe(pairs: Iterable[tuple[Alignment, Alignment]]) -> MatchedPairs:
    """Test whether two systems err alike.

    Args:
        pairs: for each utterance the first system's and the second's alignment with the same reference.
    """
    found = [segment for first, second in pairs for segment in segments(first, second)]
    n = len(found)
    differences = np.array([s.first_errors - s.second_errors for s in found], np.float64)
    mean = float(differences.mean()) if n else 0.0
    if not differences.any():
        # Systems that never differ differ with certainty by nothing, however few the segments.
        return MatchedPairs(n, 0.0, 0.0 if n > 1 else None, 0.0, 1.0, None, n >= ENOUGH_SEGMENTS)
    variance = float(differences.var(ddof=1)) if n > 1 else None
    if not variance:
        return MatchedPairs(n, mean, variance, None, None, None, False)
    z = mean / math.sqrt(variance / n)
    p = math.erfc(abs(z) / math.sqrt(2))
    level = next((level for level in LEVELS if p <= level), None)
    return MatchedPairs(n, mean, variance, z, p, level, n >= ENOUGH_SEGMENTS)


def segments(first: Alignment, second: Alignment) -> list[ErrorSegment]:
    """The segments of one utterance.

    A segment begins with the last two words that both have right before its first error (or where the utterance
    begins), and ends with the first two in a row after its last error (or where the utterance ends). The words that
    end one may begin the next. Words inserted before the first word and after the last belong to the first and last.

    Raises:
        ValueError: the references differ.
    """
    if first.reference != second.reference:
        raise ValueError("the alignments have different references")
    both = first.correct & second.correct
    added = first.inserted + second.inserted
    n = len(both)
    found = []
    # A segment's insertions: those in gaps from `gap` on; gap g is before word g, gap n after the last word.
    start, gap, right, erring = 0, 0, 0, False
    for position in range(n + 1):
        wrong = position < n and not both[position]
        if added[position] or wrong:
            if not erring:
                start, gap, erring = max(position - BOUNDARY_WORDS, 0), position, True
            right = 0
        if position < n and not wrong:
            right += 1
            if erring and right == BOUNDARY_WORDS:
                found.append(_segment(first, second, start, position + 1, gap, position + 1))
                erring = False
    if erring:
        found.append(_segment(first, second, start, n, gap, n + 1))
    return found


def _segment(
    first: Alignment, second: Alignment, start: int, end: int, first_gap: int, end_gap: int
) -> ErrorSegment:
    """Words from `start` up to `end`, and insertions in the gaps from `first_gap` up to `end_gap`."""
    errors = [
        int((~system.correct[start:end]).sum()) + int(system.inserted[first_gap:end_gap].sum())
        for system in (first, second)
    ]
    return ErrorSegment(end - start, errors[0], errors[1])
