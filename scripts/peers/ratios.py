"""What a row of the race finds: ratios pair by pair, and what else is known of both sides."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from app.output import tables as t
from app.output.tables import Metric


@dataclass(frozen=True)
class Figures:
    """What else is known of a side.

    Attributes:
        load: seconds from the start of its process until the model was ready.
        megabytes: that its process took at most.
        cpu: seconds of all its threads per minute of audio, the least.
        said: version and instructions, as it tells them.
    """

    load: float
    megabytes: float
    cpu: float
    said: dict[str, str]


@dataclass(frozen=True)
class Ratio:
    """What was measured of one row for one model.

    Attributes:
        row: its name, as `--only` takes it.
        what: was done.
        goal: the ratio that is to be reached.
        aim: the one that is hoped for.
        unit: of `ours` and `theirs`, which have a figure per pair: seconds or MB.
        words: in what each side gave, as a check that both did the same work; None where nothing is transcribed.
        sides: ours and the peer's; None where no warm process was timed.
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
    sides: tuple[Figures, Figures] | None = None

    @property
    def ratios(self) -> tuple[float, float, float]:
        """The least, the median and the greatest."""
        each = [a / b for a, b in zip(self.ours, self.theirs, strict=True)]
        return min(each), statistics.median(each), max(each)

    @property
    def spread(self) -> str:
        """The ratios as the table has them."""
        return " ".join(map(t.number, self.ratios))

    @property
    def line(self) -> str:
        """The row with its medians, for standard error."""
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        words = "" if self.words is None else f"; {self.words[0]} and {self.words[1]} words"
        return (
            f"{self.model}: {self.what} / {self.peer}: {self.spread} "
            f"({ours:.2f} and {theirs:.2f} {self.unit}{words})"
        )


def _both(figure: Callable[[Figures], str]) -> Callable[[Ratio], str]:
    """A figure of both sides, where a warm process was timed."""
    return lambda ratio: " / ".join(map(figure, ratio.sides)) if ratio.sides else t.NONE


RATIOS: tuple[Metric[Ratio], ...] = (
    Metric("what", lambda r: r.what),
    Metric("over", lambda r: r.peer),
    Metric("model", lambda r: r.model),
    Metric("minimum", lambda r: t.number(r.ratios[0])),
    Metric("median", lambda r: t.number(r.ratios[1])),
    Metric("maximum", lambda r: t.number(r.ratios[2])),
    Metric("CPU s/min", _both(lambda side: t.number(side.cpu, 1))),
    Metric("MB", _both(lambda side: t.count(side.megabytes))),
    Metric("load s", _both(lambda side: t.number(side.load))),
)
"""Of the last three both sides: CPU per minute of audio, peak memory after the work, loading."""
