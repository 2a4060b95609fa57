"""Ratios of two sides' times, pair by pair, so that both saw the same load of the machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Ratio", "interleave"]


@dataclass(frozen=True)
class Ratio:
    """What was measured of one row for one model.

    Attributes:
        row: its name, as `--only` takes it.
        what: was done.
        peer: that it was held against.
        model: the model's name.
        goal: the ratio that is to be reached.
        aim: the one that is hoped for.
        unit: of both figures, seconds or MB.
        ours: a figure per pair.
        theirs: a figure per pair.
        words: in what each side gave, as a check that both did the same work; None where nothing is transcribed.
    """

    row: str
    what: str
    peer: str
    model: str
    goal: float
    aim: float
    unit: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    words: tuple[int, int] | None = None

    @property
    def ratios(self) -> tuple[float, float, float]:
        """The least, the median and the greatest."""
        each = [a / b for a, b in zip(self.ours, self.theirs, strict=True)]
        return min(each), statistics.median(each), max(each)

    @property
    def spread(self) -> str:
        """The ratios as the table has them."""
        return " ".join(f"{ratio:.2f}" for ratio in self.ratios)

    @property
    def line(self) -> str:
        """The row with its medians, for standard error."""
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        words = "" if self.words is None else f"; {self.words[0]} and {self.words[1]} words"
        return (
            f"{self.model}: {self.what} / {self.peer}: {self.spread} "
            f"({ours:.2f} and {theirs:.2f} {self.unit}{words})"
        )


def interleave(
    ours: Callable[[], float], theirs: Callable[[], float], pairs: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure both in turn, each first in every other pair."""
    measured: list[tuple[float, float]] = []
    for i in range(pairs):
        if i % 2:
            b = theirs()
            measured.append((ours(), b))
        else:
            a = ours()
            measured.append((a, theirs()))
    first, second = zip(*measured, strict=True)
    return first, second
