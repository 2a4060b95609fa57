"""Figures and tables as text: the same for console, Markdown and page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

NONE = "-"
"""Where there is no figure."""

DEVICES = {"cpu": "CPU", "emulator": "emulator on the CPU", "npu": "NPU"}
"""What attention was computed on: an emulator is never called an NPU."""

Place = Literal["console", "markdown", "page"]
EVERYWHERE: tuple[Place, ...] = ("console", "markdown", "page")
REPORTS: tuple[Place, ...] = ("markdown", "page")
SCREENS: tuple[Place, ...] = ("console", "page")
CONSOLE: tuple[Place, ...] = ("console",)
MARKDOWN: tuple[Place, ...] = ("markdown",)
PAGE: tuple[Place, ...] = ("page",)

Row = TypeVar("Row")
Cells = Sequence[str]


@dataclass(frozen=True)
class Metric(Generic[Row]):
    """A column of a table: how it writes a row's figure, where, and whether that `wraps` because it is words.

    One that is `optional` is shown only where a row has its figure.
    """

    heading: str
    text: Callable[[Row], str]
    places: tuple[Place, ...] = EVERYWHERE
    wraps: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its figures written out; the first column names the rows."""

    caption: str
    columns: tuple[Metric[Any], ...]
    rows: list[list[str]]


def written(metrics: Iterable[Metric[Row]], rows: Iterable[Row], place: Place, caption: str = "") -> Table:
    """What rows show at a place."""
    rows = list(rows)
    shown = tuple(
        metric
        for metric in metrics
        if place in metric.places and not (metric.optional and all(metric.text(row) == NONE for row in rows))
    )
    return Table(caption, shown, [[metric.text(row) for metric in shown] for row in rows])


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals and separated thousands."""
    return NONE if value is None else f"{value:,.{digits}f}"


def short(value: float | None) -> str:
    """A number with three significant figures, without trailing zeros."""
    return NONE if value is None else f"{value:.3g}"


def count(value: float | None) -> str:
    """A whole number with separated thousands."""
    return number(value, 0)


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction as a percentage."""
    return NONE if fraction is None else f"{number(100 * fraction, digits)} %"


def share(fraction: float | None, digits: int = 1) -> str:
    """A part of a whole as a percentage, with as many digits as keep it from 0 % and 100 % unless it is that."""
    if fraction is None or not 0 < fraction < 1:
        return percent(fraction, digits)
    while float(text := f"{100 * fraction:.{digits}f}") in (0.0, 100.0) and digits < 6:
        digits += 1
    return f"{text} %"


def correlation(r: float | None, digits: int = 4) -> str:
    """Pearson's; what is not quite 1 is not rounded up to it."""
    if r is not None and r < 1 - 1e-9:
        r = min(r, 1 - 10**-digits)
    return number(r, digits)


def points(fraction: float | None) -> str:
    """A difference of two rates in percentage points, with its sign unless it is none."""
    if fraction is None:
        return NONE
    text = f"{100 * fraction:+,.2f}"
    return "0.00" if text[1:] == "0.00" else text


def span(least: float, largest: float, digits: int = 0) -> str:
    """From the least to the largest."""
    return f"{least:.{digits}f}..{largest:.{digits}f}"


def probability(p: float | None) -> str:
    """A p value."""
    if p is None:
        return "undefined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def duration(seconds: float | None) -> str:
    """A length of audio in the unit that fits."""
    if seconds is None:
        return NONE
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.1f} s"


def milliseconds(seconds: float, digits: int = 3) -> str:
    """Seconds as milliseconds, without the unit."""
    return f"{1000 * seconds:.{digits}f}"


def ends(best: float, worst: float, digits: int = 1) -> str:
    """Seconds at both ends of some assumptions, in milliseconds."""
    return f"{milliseconds(best, digits)} - {milliseconds(worst, digits)}"


def aligned(rows: Iterable[Cells], left: int = 1) -> list[str]:
    """Columns as wide as they have to be: the first ones to the left, the others to the right."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def console(metrics: Iterable[Metric[Row]], rows: Iterable[Row]) -> list[str]:
    """The lines of a table on the console."""
    table = written(metrics, rows, "console")
    return aligned([[column.heading for column in table.columns], *table.rows])


def markdown(metrics: Iterable[Metric[Row]], rows: Iterable[Row]) -> list[str]:
    """A table in GitHub's Markdown; text from outside has to be escaped before."""
    table = written(metrics, rows, "markdown")
    return markdown_table([column.heading for column in table.columns], table.rows)


def markdown_table(heading: Cells, rows: Iterable[Cells]) -> list[str]:
    """The same from cells."""
    return [f"| {' | '.join(row)} |" for row in [heading, ["---"] * len(heading), *rows]]


def typeset(text: str) -> str:
    """A figure in print: true minus signs, dashes between figures and where there is none, thin spaces before units."""
    if text == NONE:
        return "–"
    text = re.sub(r"(?<=\d) - (?=\d)", " – ", text)
    text = re.sub(r"(?<!\w)-(?=\d)| - ", lambda m: m[0].replace("-", "\N{MINUS SIGN}"), text)
    return re.sub(r"(?<=\d) (?=%|min\b|h\b|s\b)", "\N{NARROW NO-BREAK SPACE}", text)
