"""Charts as SVG, for the report's page and for `tilescribe validate`'s picture.

No chart library: the page has to be one file that follows light and dark by the style sheet's variables and flows from
phone to paper with type as large as the text around it; matplotlib would weigh 100 MB and a second of start.

Colours and stroke widths are a style sheet's, by class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

Anchor = Literal["start", "middle", "end"]
Band = tuple[float, float]

MARKS = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",  # disc
    "M-4.5-4.5h9v9h-9z",  # square
    "M0-5.8L5.6 4.4H-5.6z",  # triangle
    "M0-6L6 0L0 6L-6 0z",  # diamond
    "M-5-2.6L-2.6-5L0-2.4L2.6-5L5-2.6L2.4 0L5 2.6L2.6 5L0 2.4L-2.6 5L-5 2.6L-2.4 0z",  # cross
    "M0 5.8L5.6-4.4H-5.6z",  # triangle upside down
    "M-6-2.2H6V2.2H-6z",  # bar
    "M-2.2-6H2.2V6H-2.2z",  # post
)
"""Shapes that tell series apart as their colours do; the style sheet has as many colours, `s0` to `s7`."""


def legend_mark(style: int, hollow: bool = False) -> Markup:
    """A mark by itself, for a legend; hollow where the chart has it as a ring."""
    return Markup(
        '<svg class="key" width="14" height="14" viewBox="-7 -7 14 14" aria-hidden="true" focusable="false">'
        '<path class="{}" d="{}"/></svg>'
    ).format(_mark_class(style, hollow), MARKS[style])


def _mark_class(style: int, hollow: bool = False) -> str:
    return f"mark{' hollow' if hollow else ''} s{style}"


@dataclass(frozen=True)
class Scale:
    """From numbers, `low` to `high`, to places along x, `left` to `right` in percent of the width."""

    low: float
    high: float
    left: float = 1.0
    right: float = 99.0

    def at(self, value: float) -> float:
        """The place of a number, held within the scale."""
        part = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.left + part * (self.right - self.left)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers within the scale, at most so many."""
        span = self.high - self.low
        power = 10.0 ** math.floor(math.log10(span / max(most - 1, 1)))
        step = next(power * s for s in (1, 2, 2.5, 5, 10, 20) if span / (power * s) <= most - 1 + 1e-9)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [0.0 if k == 0 else round(k * step, 10) for k in range(first, last + 1)]


@dataclass
class Chart:
    """One chart, with a text alternative that says its figures in words.

    It fills the width that there is, and x is in percent; with a width and a style sheet of its own it is a picture
    that stands alone, and x is in pixels. y is in pixels always.

    Attributes:
        name: of its ids; unique on the page.
        said: its figures in words.
        width: pixels, of a picture that stands alone.
        css: of that picture.
    """

    name: str
    title: str
    said: list[str] = field(default_factory=list)
    width: float | None = None
    css: str = ""
    _parts: list[Markup] = field(default_factory=list)

    def add(self, tag: str, inner: str = "", **attributes: str | float) -> None:
        """An element: x, x1, x2 and width of attributes are in the chart's unit, other numbers are pixels."""
        unit = "%" if self.width is None else ""
        given = Markup("")
        for name, value in attributes.items():
            of_x = unit if name in ("x", "x1", "x2", "width") else ""
            text = value if isinstance(value, str) else f"{value:.2f}{of_x}"
            given += Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), text)
        closed = Markup(">{}</{}>").format(inner, tag) if inner else Markup("/>")
        self._parts.append(Markup("<{}{}").format(tag, given) + closed)

    def line(self, x1: float, y1: float, x2: float, y2: float, classes: str) -> None:
        """A straight line."""
        self.add("line", class_=classes, x1=x1, y1=y1, x2=x2, y2=y2)

    def bar(self, x1: float, x2: float, y: float, height: float, classes: str) -> None:
        """A bar from x1 to x2; y is its top."""
        self.add("rect", class_=classes, x=x1, y=y, width=max(x2 - x1, 0), height=height)

    def text(self, x: float, y: float, text: str, classes: str = "", anchor: Anchor = "start") -> None:
        """A line of text; y is its base line."""
        self.add("text", text, class_=classes, x=x, y=y, text_anchor=anchor)

    def mark(self, x: float, y: float, style: int, hint: str = "", *, hollow: bool = False) -> None:
        """A series' mark; `hint` shows where a pointer rests on it."""
        inner = Markup("<title>{}</title>").format(hint) if hint else ""
        path = Markup('<path class="{}" d="{}">{}</path>')
        self.add("svg", path.format(_mark_class(style, hollow), MARKS[style], inner), class_="at", x=x, y=y)

    def arrow(self, y: float, style: int) -> None:
        """At the right edge: further than the scale goes."""
        path = Markup('<path class="{}" d="M-9-5L0 0L-9 5z"/>').format(_mark_class(style))
        self.add("svg", path, class_="at", x=100.0, y=y)

    def axis(
        self, scale: Scale, bands: Sequence[Band], foot: float, labels: Sequence[str], most: int = 6
    ) -> None:
        """Vertical hair lines at round numbers through some bands, with labels below.

        Args:
            scale: of the numbers.
            bands: top and bottom of each; lines stop between them, where there is text.
            foot: where the labels begin.
            labels: of `scale.ticks(most)`.
            most: how many lines.
        """
        for value, label in zip(scale.ticks(most), labels, strict=True):
            x = scale.at(value)
            for top, bottom in bands:
                self.line(x, top, x, bottom, "hair")
            self.text(x, foot + 16, label, "tick", "start" if x < 4 else "end" if x > 96 else "middle")

    def render(self, height: float) -> Markup:
        """The SVG element, so many pixels high."""
        head = Markup('<svg class="chart" role="img" width="100%" height="{:.0f}"').format(height)
        style = Markup("")
        if self.width is not None:
            head = Markup(
                '<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{0:.0f}" height="{1:.0f}" '
                'viewBox="0 0 {0:.0f} {1:.0f}"'
            ).format(self.width, height)
            style = Markup("<style>{}</style>").format(Markup(self.css))
        labels = Markup(
            ' aria-labelledby="{0}-title {0}-desc"><title id="{0}-title">{1}</title><desc id="{0}-desc">{2}</desc>'
        ).format(self.name, self.title, "; ".join(self.said) + ".")
        return head + labels + style + Markup("").join(self._parts) + Markup("</svg>")
