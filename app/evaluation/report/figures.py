"""Numbers as the page prints them: a true minus sign, thin spaces before units, a dash where there is no number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NONE = "–"
MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NARROW NO-BREAK SPACE}"


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals."""
    return NONE if value is None else f"{value:,.{digits}f}".replace("-", MINUS)


def short(value: float | None) -> str:
    """A number with three significant figures, without trailing zeros."""
    return NONE if value is None else f"{value:.3g}".replace("-", MINUS)


def count(value: float | None) -> str:
    """A whole number with separated thousands."""
    return NONE if value is None else f"{value:,.0f}".replace("-", MINUS)


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction as a percentage."""
    return NONE if fraction is None else f"{number(100 * fraction, digits)}{SPACE}%"


def points(fraction: float | None) -> str:
    """A difference of two rates in percentage points, with its sign."""
    if fraction is None:
        return NONE
    text = f"{100 * fraction:+.2f}".replace("-", MINUS)
    return "0.00" if text[1:] == "0.00" else text


def percent_interval(interval: Mapping[str, float] | None) -> str:
    """Both ends of a rate's interval."""
    if interval is None:
        return NONE
    return f"{number(100 * interval['low'])} to {percent(interval['high'])}"


def points_interval(interval: Mapping[str, float] | None) -> str:
    """Both ends of a difference's interval in points."""
    return NONE if interval is None else f"{points(interval['low'])} to {points(interval['high'])}"


def share(part: float, whole: float) -> str:
    """A part of a whole as a percentage; never 100 % or 0 % unless it is."""
    if not whole:
        return NONE
    if part in (0, whole):
        return percent(part / whole, 0)
    for digits in (1, 2):
        text = percent(part / whole, digits)
        if float(text.split(SPACE)[0]) not in (0.0, 100.0):
            return text
    return percent(part / whole, 3)


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
        return f"{seconds / 3600:.1f}{SPACE}h"
    return f"{seconds / 60:.1f}{SPACE}min" if seconds >= 120 else f"{seconds:.1f}{SPACE}s"


def plain(value: Any) -> str:
    """Any value of a description in a line."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return short(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    return str(value)
