"""The page's charts: error rates, differences, kinds of error, groups, unchanged transcripts, times.

A kernel that fails is a hundred times further from the others than they are from each other. Scales are made for the
nearer ones; what lies beyond is an arrow at the edge with its figure in words, never a dot at a false place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from app.evaluation.bootstrap import Interval
from app.evaluation.evaluation import Evaluation
from app.evaluation.report.layers import Layer, encoder_error, score_ranges, style
from app.evaluation.report.metrics import percent_interval, points_interval
from app.evaluation.scoring import Rates
from app.evaluation.summaries import BackendSummary, Comparison
from app.output import tables as t
from app.output.svg import Anchor, Band, Chart, Scale
from kernels.backends import REFERENCE

ROW = 46
"""Pixels of a row with a line of text above its mark."""
BAR_ROW = 42
"""Pixels of a row with a line of text above a bar."""
SHOWN_GROUPS = 40
"""Rows of a chart by speaker; the table has all."""
KINDS = (("substitutions", "Substituted"), ("deletions", "Deleted"), ("insertions", "Inserted"))


class GroupChart(NamedTuple):
    """A chart by groups, what it leaves out in words, and the backends that are on it."""

    chart: Markup
    note: str
    backends: list[str]


def draw(
    evaluation: Evaluation, errors: Mapping[str, Sequence[float]], ranges: Mapping[str, Sequence[Layer]]
) -> dict[str, Markup | GroupChart | dict[str, Markup] | None]:
    """Every chart by name, of `page.render_page`'s arguments; empty where there is nothing to show."""
    backends = evaluation.backends
    against_cpu = [c for c in evaluation.comparisons if c.baseline == REFERENCE]
    return {
        "wer": word_error_rates(backends),
        "difference": differences(against_cpu, evaluation.limits.margin),
        "kinds": kinds_of_error(backends),
        "by_length": by_group({b.backend: b.by_length for b in backends}, "lengths", "length of audio"),
        "by_speaker": by_group(
            {b.backend: b.by_speaker for b in backends}, "speakers", "speaker", worst_first=True
        ),
        "same": unchanged_transcripts(against_cpu),
        "speed": real_time_factors(backends),
        "layers": encoder_error(errors),
        "scores": score_ranges(ranges),
    }


class _Row(NamedTuple):
    """A backend's figure, in words with its interval, and whether that is beyond the scale of the nearer ones."""

    of: BackendSummary | Comparison
    value: float
    text: str
    ends: list[float]
    far: bool


def _rows(
    found: Iterable[tuple[BackendSummary | Comparison, float | None]],
    figure: Callable[[float | None], str],
    both_ends: Callable[[Interval | None], str],
    **limits: float,
) -> list[_Row]:
    rows = []
    for of, value in found:
        if value is not None:
            intervals = [i for i in (of.utterance_interval, of.speaker_interval) if i]
            ends = [value, *(end for i in intervals for end in (i.low, i.high))]
            text = f"{figure(value)}  {both_ends(of.utterance_interval)}".removesuffix(f"  {t.NONE}")
            rows.append(_Row(of, value, text, ends, far=False))
    limit = _limit([max(row.ends) for row in rows], **limits) if rows else 0.0
    return [row._replace(far=max(row.ends) > limit) for row in rows]


def word_error_rates(backends: Sequence[BackendSummary]) -> Markup | None:
    """A mark for each backend's WER, a thick line for the interval by utterance, a thin one by speaker."""
    rows = _rows([(b, b.rates.wer) for b in backends], t.percent, percent_interval, least=0.02, times=3)
    if not rows:
        return None
    scale = _padded([end for row in rows if not row.far for end in row.ends], floor=0.0)
    chart = Chart("wer-chart", "Word error rate of each backend with its 95 % interval")
    foot = ROW * len(rows)
    chart.axis(scale, _bands(rows, 0), foot, [f"{t.short(100 * x)} %" for x in scale.ticks()])
    _draw(chart, rows, scale, 0)
    return chart.render(foot + 24)


def differences(comparisons: Sequence[Comparison], margin: float) -> Markup | None:
    """WER(backend) - WER(cpu) with 0 and the margin, all in points."""
    edge, top = margin / 100, 8.0
    given = [(c, c.difference) for c in comparisons]
    rows = _rows(given, t.points, points_interval, least=max(0.005, 4 * edge), times=2)
    if not rows:
        return None
    scale = _padded([0.0, edge, *(end for row in rows if not row.far for end in row.ends)])
    title = "Difference of word error rate from the cpu, with its 95 % interval and the margin"
    chart = Chart("difference-chart", title, [f"The margin is {margin:g} points"])
    bottom, bands = top + ROW * len(rows), _bands(rows, top)
    chart.axis(scale, bands, bottom, ["0" if x == 0 else t.typeset(f"{100 * x:+g}") for x in scale.ticks()])
    zero, at_margin = scale.at(0), scale.at(edge)
    for upper, lower in bands:
        chart.bar(at_margin, 100, upper, lower - upper, "over")
        chart.line(zero, upper, zero, lower, "zero")
        chart.line(at_margin, upper, at_margin, lower, "margin")
    foot, near = bottom + 32, at_margin - zero < 30
    chart.text(zero, foot, "as cpu", "tick", "start" if zero < 5 else "end" if near else "middle")
    side: Anchor = "end" if at_margin > 90 else "start" if near else "middle"
    chart.text(at_margin, foot, f"margin {margin:+g}", "margin-label", side)
    _draw(chart, rows, scale, top)
    return chart.render(foot + 6)


def kinds_of_error(backends: Sequence[BackendSummary]) -> Markup | None:
    """Substitutions, deletions and insertions side by side: bars in errors per 100 reference words."""
    rows = [b for b in backends if b.rates.words]
    if not rows:
        return None
    rates = {b.backend: {kind: getattr(b.rates, kind) / b.rates.words for kind, _ in KINDS} for b in rows}
    tallest = [max(rate.values()) for rate in rates.values()]
    limit = _limit(tallest, least=0.01, times=3)
    high = max((rate for rate in tallest if rate <= limit), default=limit) or 0.01
    title = "Substitutions, deletions and insertions of each backend per 100 reference words"
    chart = Chart("kinds-chart", title)
    for panel, (kind, word) in enumerate(KINDS):
        left = panel * 34.5
        scale = Scale(0, high, left, left + 27)
        chart.text(left, 14, word, "strong")
        for place, (name, rate) in enumerate(rates.items()):
            y = 26 + 38 * place
            chart.text(left, y + 11, name, "tick")
            chart.text(left + 31, y + 11, t.number(100 * rate[kind]), "value", "end")
            chart.said.append(f"{name} {word.lower()} {t.number(100 * rate[kind])}")
            chart.line(left, y + 17, left + 31, y + 17, "hair")
            chart.bar(left, scale.at(rate[kind]), y + 17, 9, f"fill s{style(name)}")
            if rate[kind] > high:
                # A gap in the bar: it goes on beyond the panel.
                chart.bar(left + 22, left + 23, y + 15, 13, "gap")
                chart.bar(left + 24, left + 25, y + 15, 13, "gap")
    return chart.render(26 + 38 * len(rows))


def by_group(
    backends: Mapping[str, Mapping[str, Rates]], name: str, title: str, *, worst_first: bool = False
) -> GroupChart | None:
    """A row for each speaker or length class, with a mark for each backend."""
    known = {b: {g: r.wer for g, r in groups.items() if r.wer is not None} for b, groups in backends.items()}
    found = {backend: rates for backend, rates in known.items() if rates}
    if not found:
        return None
    first = next(iter(found.values()))
    groups = sorted(first, key=lambda g: (-first[g], g)) if worst_first else list(first)
    middles = {backend: sorted(rates.values())[len(rates) // 2] for backend, rates in found.items()}
    limit = _limit(middles.values(), least=0.05, times=4)
    drawn = [backend for backend in found if middles[backend] <= limit]
    notes = []
    if far := [backend for backend in found if backend not in drawn]:
        notes.append(f"{', '.join(far)}: beyond this scale")
    if len(groups) > SHOWN_GROUPS:
        notes.append(f"the {SHOWN_GROUPS} with the highest rate of {len(groups):,}")
        groups = groups[:SHOWN_GROUPS]
    by_name = {g: {b: found[b][g] for b in drawn if g in found[b]} for g in groups}
    scale = _padded([rate for rates in by_name.values() for rate in rates.values()], floor=0.0, left=21)
    chart = Chart(f"{name}-chart", f"Word error rate by {title}")
    step = 17 if len(groups) > 12 else 26
    bottom = step * len(groups) + 6
    chart.axis(scale, [(0, bottom)], bottom, [f"{t.short(100 * x)} %" for x in scale.ticks(5)], 5)
    for place, (group, rates) in enumerate(by_name.items()):
        y = step * place + step / 2 + 3
        chart.said.append(f"{group}: " + ", ".join(f"{b} {t.percent(rate)}" for b, rate in rates.items()))
        chart.text(0, y + 4, group if len(group) <= 10 else group[:9] + "…", "tick")
        if rates:
            chart.line(scale.at(min(rates.values())), y, scale.at(max(rates.values())), y, "span")
        for backend, rate in rates.items():
            # Equal rates stay apart by a few pixels; the first, with which all are compared, is a ring around them.
            lane = drawn.index(backend)
            aside = 0.0 if lane == 0 else 5.0 * (lane - len(drawn) / 2) / max(len(drawn) - 2, 1)
            hint = f"{group}, {backend}: {t.typeset(t.percent(rate))}"
            chart.mark(scale.at(rate), y + aside, style(backend), hint, hollow=lane == 0)
    return GroupChart(chart.render(bottom + 24), "; ".join(notes), drawn)


def unchanged_transcripts(comparisons: Sequence[Comparison]) -> Markup | None:
    """For each backend a bar of the transcripts that equal the cpu's once normalised; a tick where the raw ones do."""
    if not comparisons:
        return None
    chart = Chart("same-chart", "Transcripts that are the same as the cpu's")
    for place, c in enumerate(comparisons):
        n, same = c.utterances, c.identical_normalised
        figure = f"{t.share(same / n)}  {t.count(same)} of {t.count(n)}"
        chart.bar(0, 100, BAR_ROW * place + 24, 9, "track")
        _bar(chart, place, c.backend, c.backend, figure, same / n, c.identical_raw / n)
        chart.said.append(f"as printed {t.count(c.identical_raw)}")
    return chart.render(BAR_ROW * len(comparisons) + 2)


def real_time_factors(backends: Sequence[BackendSummary]) -> Markup | None:
    """Time over length of audio; a needle where the encoder's part ends, if that is known."""
    rows = [(b, b.speed) for b in backends if b.speed]
    if not rows:
        return None
    most = max(speed.real_time_factor for _, speed in rows) or 1.0
    chart = Chart("speed-chart", "Time over length of audio of each backend")
    for place, (b, speed) in enumerate(rows):
        encoding, device, rtf = speed.encode_seconds, b.run.device, speed.real_time_factor
        needle = None if encoding is None else encoding / speed.audio_seconds / most
        label = f"{b.backend}, {t.DEVICES.get(device, device or t.NONE)}"
        _bar(chart, place, b.backend, label, t.number(rtf, 3), rtf / most, needle)
    return chart.render(BAR_ROW * len(rows) + 2)


def _bar(
    chart: Chart, place: int, backend: str, label: str, figure: str, part: float, needle: float | None
) -> None:
    y = BAR_ROW * place
    chart.said.append(f"{label}: {figure}")
    chart.text(0, y + 16, label, "strong")
    chart.text(100, y + 16, t.typeset(figure), "value", "end")
    chart.bar(0, 100 * part, y + 24, 9, f"fill s{style(backend)}")
    if needle is not None:
        x = min(100 * needle, 100)
        chart.line(x, y + 22, x, y + 36, "needle")


def _draw(chart: Chart, rows: Sequence[_Row], scale: Scale, top: float) -> None:
    """Each backend's name, figure, intervals and mark."""
    for place, row in enumerate(rows):
        y, backend, number = top + ROW * place, row.of.backend, style(row.of.backend)
        chart.said.append(f"{backend} {row.text}")
        chart.text(0, y + 16, backend, "strong")
        chart.text(100, y + 16, t.typeset(row.text), "value", "end")
        y += 31
        if row.far:
            chart.arrow(y, number)
            chart.text(96, y + 4, "beyond this scale", "tick", "end")
            continue
        for interval, weight in ((row.of.speaker_interval, "thin"), (row.of.utterance_interval, "thick")):
            if interval:
                low, high = scale.at(interval.low), scale.at(interval.high)
                chart.line(low, y, high, y, f"{weight} s{number}")
                for x in (low, high) if weight == "thin" else ():
                    chart.line(x, y - 4, x, y + 4, f"thin s{number}")
        chart.mark(scale.at(row.value), y, number)


def _limit(highs: Iterable[float], *, least: float, times: float) -> float:
    """How far a scale goes: to a multiple of the nearest backend's, and at least so far."""
    return max(least, times * min(highs))


def _padded(values: Sequence[float], floor: float | None = None, left: float = 1.0) -> Scale:
    low, high = min(values), max(values)
    pad = 0.08 * (high - low) or 0.005
    return Scale(low - pad if floor is None else max(low - pad, floor), high + pad, left)


def _bands(rows: Sequence[_Row], top: float) -> list[Band]:
    """The part of each row that its mark is in, below its text; rows beyond the scale have none."""
    tops = [top + ROW * place for place, row in enumerate(rows) if not row.far]
    return [(y + 22, y + 42) for y in tops]
