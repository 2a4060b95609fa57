"""Charts that flow: positions along x are percentages, heights and type are pixels.

So one SVG fits a wide screen and a phone, and its lettering stays as large as the text around it. Colours and stroke
widths are the style sheet's, by class; a backend is told by the shape of its mark as well as its colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

Anchor = Literal["start", "middle", "end"]
Band = tuple[float, float]

KNOWN = ("cpu", "int32", "int8", "legacy-int32", "legacy-int8")
"""Backends whose marks are fixed, so that pages can be laid side by side."""

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


def styles(backends: Sequence[str]) -> dict[str, int]:
    """The number of each backend's mark and colour."""
    others = [name for name in backends if name not in KNOWN]
    free = len(MARKS) - len(KNOWN)
    own = {name: len(KNOWN) + place % free for place, name in enumerate(others)}
    return {name: own[name] if name in own else KNOWN.index(name) for name in backends}


def mark(style: int, hollow: bool = False) -> Markup:
    """A mark by itself, for a legend; hollow where the chart has it as a ring."""
    return Markup(
        '<svg class="key" width="14" height="14" viewBox="-7 -7 14 14" aria-hidden="true" focusable="false">'
        '<path class="mark{} s{}" d="{}"/></svg>'
    ).format(" hollow" if hollow else "", style, MARKS[style])


@dataclass(frozen=True)
class Scale:
    """From numbers to percentages of the width.

    Attributes:
        low: the number at `left`.
        high: the number at `right`.
        left: percent.
        right: percent.
    """

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
        raw = span / max(most - 1, 1)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * s for s in (1, 2, 2.5, 5, 10, 20) if span / (power * s) <= most - 1 + 1e-9)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [0.0 if k == 0 else round(k * step, 10) for k in range(first, last + 1)]


@dataclass
class Chart:
    """One chart; its text alternative says in words what it shows.

    Attributes:
        name: of its ids; unique on the page.
        title: what it shows.
        description: its figures in words.
        height: pixels.
    """

    name: str
    title: str
    description: str
    height: float = 0
    _parts: list[Markup] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, classes: str) -> None:
        """A straight line; x in percent, y in pixels."""
        form = '<line class="{}" x1="{:.2f}%" y1="{:.1f}" x2="{:.2f}%" y2="{:.1f}"/>'
        self._parts.append(Markup(form).format(classes, x1, y1, x2, y2))

    def bar(self, x1: float, x2: float, y: float, height: float, classes: str) -> None:
        """A bar from x1 to x2, percent; y is its top."""
        form = '<rect class="{}" x="{:.2f}%" y="{:.1f}" width="{:.2f}%" height="{:.1f}"/>'
        self._parts.append(Markup(form).format(classes, x1, y, max(x2 - x1, 0), height))

    def text(self, x: float, y: float, text: str, classes: str = "", anchor: Anchor = "start") -> None:
        """A line of text; y is its base line."""
        form = '<text class="{}" x="{:.2f}%" y="{:.1f}" text-anchor="{}">{}</text>'
        self._parts.append(Markup(form).format(classes, x, y, anchor, text))

    def mark(self, x: float, y: float, style: int, hint: str = "", *, hollow: bool = False) -> None:
        """A backend's mark; `hint` shows where a pointer rests on it."""
        inner = Markup("<title>{}</title>").format(hint) if hint else Markup("")
        form = '<svg class="at" x="{:.2f}%" y="{:.1f}"><path class="mark{} s{}" d="{}">{}</path></svg>'
        self._parts.append(Markup(form).format(x, y, " hollow" if hollow else "", style, MARKS[style], inner))

    def arrow(self, y: float, style: int) -> None:
        """At the right edge: further than the scale goes."""
        form = '<svg class="at" x="100%" y="{:.1f}"><path class="mark s{}" d="M-9-5L0 0L-9 5z"/></svg>'
        self._parts.append(Markup(form).format(y, style))

    def axis(
        self, scale: Scale, bands: Sequence[Band], foot: float, labels: Sequence[str], most: int = 6
    ) -> None:
        """Vertical hair lines at round numbers through some bands, with labels below.

        Args:
            scale: of the numbers.
            bands: top and bottom of each; lines stop between them, where there is text.
            foot: where the labels begin.
            labels: those of `scale.ticks(most)`.
            most: how many lines.
        """
        for value, label in zip(scale.ticks(most), labels, strict=True):
            x = scale.at(value)
            anchor: Anchor = "start" if x < 4 else "end" if x > 96 else "middle"
            for top, bottom in bands:
                self.line(x, top, x, bottom, "hair")
            self.text(x, foot + 16, label, "tick", anchor)

    def render(self) -> Markup:
        """The SVG element."""
        head = Markup(
            '<svg class="chart" role="img" width="100%" height="{0:.0f}" aria-labelledby="{1}-title {1}-desc">'
            '<title id="{1}-title">{2}</title><desc id="{1}-desc">{3}</desc>'
        ).format(self.height, self.name, self.title, self.description)
        return head + Markup("").join(self._parts) + Markup("</svg>")
