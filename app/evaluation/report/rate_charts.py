"""Charts of error rates: each backend with its intervals, differences from the cpu, kinds of error, and groups.

A kernel that fails is a hundred times further from the others than they are from each other. Scales are made for the
nearer ones; what lies beyond is an arrow at the edge with its figure in words, never a dot at a false place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from app.evaluation.report.figures import (
    MINUS,
    count,
    number,
    percent,
    percent_interval,
    points,
    points_interval,
    short,
)
from app.evaluation.report.svg import Band, Chart, Scale

Summary = Mapping[str, Any]

ROW = 46
"""Pixels of a row with a line of text above its mark."""

SHOWN_GROUPS = 40
"""Rows of a chart by speaker; the table has all."""


def word_error_rates(backends: Sequence[Summary], style: Mapping[str, int]) -> Markup | None:
    """A dot for each backend's WER, a thick line for the interval by utterance, a thin one by speaker."""
    rows = [b for b in backends if b["rates"]["wer"] is not None]
    if not rows:
        return None
    limit = _limit([_upper(b) for b in rows], least=0.02, times=3)
    shown = [b for b in rows if _upper(b) <= limit]
    scale = _padded([e for b in shown for e in _ends(b["rates"]["wer"], b)], floor=0.0)
    said = (
        f"{b['backend']} {percent(b['rates']['wer'])}, {percent_interval(b['utterance_interval'])}"
        for b in rows
    )
    chart = Chart(
        "wer-chart", "Word error rate of each backend with its 95 % interval", "; ".join(said) + "."
    )
    bands = _bands([_upper(b) <= limit for b in rows], 0)
    foot = ROW * len(rows)
    chart.axis(scale, bands, foot, [f"{short(100 * t)} %" for t in scale.ticks()])
    for place, b in enumerate(rows):
        y, number_of = ROW * place, style[b["backend"]]
        spread = f"  {percent_interval(b['utterance_interval'])}" if b["utterance_interval"] else ""
        _label(chart, y, b["backend"], percent(b["rates"]["wer"]) + spread)
        if _upper(b) > limit:
            _beyond(chart, y, number_of)
            continue
        _intervals(chart, scale, y + 31, number_of, b["utterance_interval"], b["speaker_interval"])
        chart.mark(scale.at(b["rates"]["wer"]), y + 31, number_of)
    chart.height = foot + 24
    return chart.render()


def differences(comparisons: Sequence[Summary], margin: float, style: Mapping[str, int]) -> Markup | None:
    """WER(backend) - WER(cpu) in points, with 0 and the margin.

    Args:
        comparisons: with the cpu.
        margin: in points.
        style: numbers of the backends' marks.
    """
    rows = [c for c in comparisons if c["difference"] is not None]
    if not rows:
        return None
    edge = margin / 100
    limit = max(_limit([_upper_difference(c) for c in rows], least=0.005, times=2), 4 * edge)
    shown = [c for c in rows if _upper_difference(c) <= limit]
    scale = _padded([0.0, edge, *(e for c in shown for e in _ends(c["difference"], c))])
    said = (
        f"{c['backend']} {points(c['difference'])} points, {points_interval(c['utterance_interval'])}"
        for c in rows
    )
    title = "Difference of word error rate from the cpu, with its 95 % interval and the margin"
    chart = Chart("difference-chart", title, f"The margin is {margin:g} points. " + "; ".join(said) + ".")
    top = 8.0
    bands = _bands([_upper_difference(c) <= limit for c in rows], top)
    ticks = scale.ticks()
    labels = ["0" if t == 0 else f"{100 * t:+g}".replace("-", MINUS) for t in ticks]
    bottom = top + ROW * len(rows)
    chart.axis(scale, bands, bottom, labels)
    zero, at_margin = scale.at(0), scale.at(edge)
    for upper, lower in bands:
        chart.bar(at_margin, 100, upper, lower - upper, "over")
        chart.line(zero, upper, zero, lower, "zero")
        chart.line(at_margin, upper, at_margin, lower, "margin")
    foot, near = bottom + 32, at_margin - zero < 30
    chart.text(zero, foot, "as cpu", "tick", "start" if zero < 5 else "end" if near else "middle")
    chart.text(at_margin, foot, f"margin {margin:+g}", "margin-label",
               "end" if at_margin > 90 else "start" if near else "middle")  # fmt: skip
    for place, c in enumerate(rows):
        y, number_of = ROW * place + top, style[c["backend"]]
        spread = f"  {points_interval(c['utterance_interval'])}" if c["utterance_interval"] else ""
        _label(chart, y, c["backend"], points(c["difference"]) + spread)
        if _upper_difference(c) > limit:
            _beyond(chart, y, number_of)
            continue
        _intervals(chart, scale, y + 31, number_of, c["utterance_interval"], c["speaker_interval"])
        chart.mark(scale.at(c["difference"]), y + 31, number_of)
    chart.height = foot + 6
    return chart.render()


KINDS = (("substitutions", "Substituted"), ("deletions", "Deleted"), ("insertions", "Inserted"))


def kinds_of_error(backends: Sequence[Summary], style: Mapping[str, int]) -> Markup | None:
    """Substitutions, deletions and insertions side by side: bars in errors per 100 reference words."""
    rows = [b for b in backends if b["rates"]["words"]]
    if not rows:
        return None
    rates = {b["backend"]: {kind: b["rates"][kind] / b["rates"]["words"] for kind, _ in KINDS} for b in rows}
    tallest = [max(rate.values()) for rate in rates.values()]
    limit = _limit(tallest, least=0.01, times=3)
    high = max((max(r.values()) for r in rates.values() if max(r.values()) <= limit), default=limit) or 0.01
    said = (
        f"{b['backend']}: " + ", ".join(f"{count(b['rates'][kind])} {kind}" for kind, _ in KINDS)
        for b in rows
    )
    title = "Substitutions, deletions and insertions of each backend per 100 reference words"
    chart = Chart("kinds-chart", title, "; ".join(said) + ".")
    for panel, (kind, word) in enumerate(KINDS):
        left = panel * 34.5
        scale = Scale(0, high, left, left + 27)
        chart.text(left, 14, word, "strong")
        for place, b in enumerate(rows):
            y, rate = 26 + 38 * place, rates[b["backend"]][kind]
            chart.text(left, y + 11, b["backend"], "tick")
            chart.text(left + 31, y + 11, number(100 * rate), "value", "end")
            chart.line(left, y + 17, left + 31, y + 17, "hair")
            chart.bar(left, scale.at(rate), y + 17, 9, f"fill s{style[b['backend']]}")
            if rate > high:
                # A gap in the bar: it goes on beyond the panel.
                chart.bar(left + 22, left + 23, y + 15, 13, "gap")
                chart.bar(left + 24, left + 25, y + 15, 13, "gap")
    chart.height = 26 + 38 * len(rows)
    return chart.render()


def by_group(
    name: str, title: str, backends: Sequence[Summary], key: str, style: Mapping[str, int], *, sort: bool
) -> tuple[Markup, str, list[str]] | None:
    """A row for each speaker or length class, with a mark for each backend.

    Args:
        name: of the chart.
        title: what it shows.
        backends: to be shown.
        key: `by_speaker` or `by_length`.
        style: numbers of the backends' marks.
        sort: by the first backend's rate, worst first, instead of in the groups' order.

    Returns:
        The chart, a note on what it leaves out, and the backends that are on it; or None where there are no groups.
    """
    groups = [g for g in backends[0][key] if backends[0][key][g]["wer"] is not None] if backends else []
    found = {
        b["backend"]: {g: b[key][g]["wer"] for g in groups if g in b[key] and b[key][g]["wer"] is not None}
        for b in backends
    }
    found = {backend: rates for backend, rates in found.items() if rates}
    if not groups or not found:
        return None
    first = next(iter(found))
    if sort:
        groups.sort(key=lambda g: (-found[first].get(g, 0.0), g))
    middles = {backend: sorted(rates.values())[len(rates) // 2] for backend, rates in found.items()}
    limit = _limit(list(middles.values()), least=0.05, times=4)
    drawn = [backend for backend in found if middles[backend] <= limit]
    notes = (
        [f"{', '.join(b for b in found if b not in drawn)}: beyond this scale"]
        if len(drawn) < len(found)
        else []
    )
    if len(groups) > SHOWN_GROUPS:
        notes.append(f"the {SHOWN_GROUPS} with the highest rate of {len(groups):,}")
        groups = groups[:SHOWN_GROUPS]
    values = [found[b][g] for b in drawn for g in groups if g in found[b]]
    scale = _padded(values, floor=0.0, left=21)
    said = (
        f"{g}: " + ", ".join(f"{b} {percent(found[b][g])}" for b in drawn if g in found[b]) for g in groups
    )
    chart = Chart(name, title, "; ".join(said) + ".")
    step = 17 if len(groups) > 12 else 26
    bottom = step * len(groups) + 6
    chart.axis(scale, [(0, bottom)], bottom, [f"{short(100 * t)} %" for t in scale.ticks(5)], 5)
    for place, group in enumerate(groups):
        y = step * place + step / 2 + 3
        rates = [found[b][group] for b in drawn if group in found[b]]
        chart.text(0, y + 4, group if len(group) <= 10 else group[:9] + "…", "tick")
        chart.line(scale.at(min(rates)), y, scale.at(max(rates)), y, "span")
        for lane, backend in enumerate(drawn):
            if group in found[backend]:
                rate = found[backend][group]
                hint = (
                    f"{group}, {backend}: {percent(rate)} of {count(backends[0][key][group]['words'])} words"
                )
                # Equal rates stay apart by a few pixels; the first, with which all are compared, is a ring around them.
                aside = 0.0 if lane == 0 else 5.0 * (lane - len(drawn) / 2) / max(len(drawn) - 2, 1)
                chart.mark(scale.at(rate), y + aside, style[backend], hint, hollow=lane == 0)
    chart.height = bottom + 24
    return chart.render(), "; ".join(notes), drawn


def _label(chart: Chart, y: float, left: str, right: str) -> None:
    chart.text(0, y + 16, left, "strong")
    chart.text(100, y + 16, right, "value", "end")


def _beyond(chart: Chart, y: float, style: int) -> None:
    chart.arrow(y + 31, style)
    chart.text(96, y + 35, "beyond this scale", "tick", "end")


def _intervals(
    chart: Chart,
    scale: Scale,
    y: float,
    style: int,
    by_utterance: Mapping[str, float] | None,
    by_speaker: Mapping[str, float] | None,
) -> None:
    if by_speaker:
        low, high = scale.at(by_speaker["low"]), scale.at(by_speaker["high"])
        chart.line(low, y, high, y, f"thin s{style}")
        for x in (low, high):
            chart.line(x, y - 4, x, y + 4, f"thin s{style}")
    if by_utterance:
        low, high = scale.at(by_utterance["low"]), scale.at(by_utterance["high"])
        chart.line(low, y, high, y, f"thick s{style}")


def _ends(value: float, row: Summary) -> list[float]:
    intervals = [row[key] for key in ("utterance_interval", "speaker_interval") if row[key]]
    return [value, *(interval[end] for interval in intervals for end in ("low", "high"))]


def _upper(backend: Summary) -> float:
    return max(_ends(backend["rates"]["wer"], backend))


def _upper_difference(comparison: Summary) -> float:
    return max(_ends(comparison["difference"], comparison))


def _limit(highs: Sequence[float], *, least: float, times: float) -> float:
    """How far a scale goes: to a multiple of the nearest backend's, and at least so far."""
    return max(least, times * min(highs))


def _padded(values: Sequence[float], floor: float | None = None, left: float = 1.0) -> Scale:
    low, high = min(values), max(values)
    pad = 0.08 * (high - low) or 0.005
    return Scale(low - pad if floor is None else max(low - pad, floor), high + pad, left)


def _bands(on_scale: Sequence[bool], top: float) -> list[Band]:
    """The part of each row that its mark is in, below its text; rows beyond the scale have none."""
    return [(top + ROW * row + 22, top + ROW * row + 42) for row, on in enumerate(on_scale) if on]
