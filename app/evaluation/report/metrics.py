"""Every figure of an evaluation's tables: heading, where it comes from, how it is written, and where it is shown.

A new figure is one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from app.evaluation.comparing import Comparison
from app.evaluation.evaluation import BackendSummary, Evaluation
from app.evaluation.scoring import Rates
from app.evaluation.statistics.mapsswe import MatchedPairs
from app.output import tables as t

Place = Literal["console", "markdown", "page"]
EVERYWHERE: tuple[Place, ...] = ("console", "markdown", "page")
REPORTS: tuple[Place, ...] = ("markdown", "page")
PAGE: tuple[Place, ...] = ("page",)

Row = TypeVar("Row")


@dataclass(frozen=True)
class Metric(Generic[Row]):
    """A column of a table.

    Attributes:
        heading: of the column.
        text: the figure of a row, written out.
        places: where it is shown.
        wraps: whether it is words, that may take several lines, and not a figure.
    """

    heading: str
    text: Callable[[Row], str]
    places: tuple[Place, ...] = PAGE
    wraps: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its figures written out; the first column names the rows."""

    caption: str
    columns: tuple[Metric[Any], ...]
    rows: list[list[str]]


def cells(metrics: Iterable[Metric[Row]], row: Row, place: Place) -> list[str]:
    """What a row shows at a place."""
    return [metric.text(row) for metric in metrics if place in metric.places]


def headings(metrics: Iterable[Metric[Row]], place: Place) -> list[str]:
    """The headings at a place."""
    return [metric.heading for metric in metrics if place in metric.places]


def table(caption: str, metrics: Iterable[Metric[Row]], rows: Iterable[Row]) -> Table:
    """A table for the page."""
    shown = tuple(metric for metric in metrics if "page" in metric.places)
    return Table(caption, shown, [cells(shown, row, "page") for row in rows])


def _utterances(backend: BackendSummary) -> str:
    failed = f" ({t.count(len(backend.failures))} failed)" if backend.failures else ""
    return t.count(backend.rates.utterances) + failed


def _test(test: MatchedPairs) -> str:
    figures = "undefined" if test.z is None else f"z = {t.number(test.z)}, {t.probability(test.p)}"
    return f"{figures} ({t.count(test.segments)} segments{'' if test.enough else ', too few'})"


def plain(value: Any) -> str:
    """Any value of a description in a line."""
    if value is None:
        return t.NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return t.short(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items()) or t.NONE
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    return str(value)


BACKENDS: tuple[Metric[BackendSummary], ...] = (
    Metric("Backend", lambda b: b.backend, EVERYWHERE),
    Metric("WER", lambda b: t.percent(b.rates.wer), EVERYWHERE),
    Metric("95 % interval", lambda b: t.percent_interval(b.utterance_interval), EVERYWHERE),
    Metric("Speakers drawn", lambda b: t.percent_interval(b.speaker_interval)),
    Metric("CER", lambda b: t.percent(b.rates.cer), REPORTS),
    Metric(
        "Sub. / del. / ins.",
        lambda b: " / ".join(map(t.count, (b.rates.substitutions, b.rates.deletions, b.rates.insertions))),
        REPORTS,
    ),
    Metric("Words", lambda b: t.count(b.rates.words)),
    Metric("Utterances", _utterances, REPORTS),
    Metric("Broken", lambda b: t.count(None if b.broken is None else len(b.broken)), REPORTS),
    Metric("Time / audio", lambda b: t.number(b.speed.real_time_factor if b.speed else None, 3), REPORTS),
)
"""Of each backend on all that it transcribed."""

COMPARISONS: tuple[Metric[Comparison], ...] = (
    Metric("Backend - baseline", lambda c: f"{c.backend} - {c.baseline}", REPORTS),
    Metric("Points of WER", lambda c: t.points(c.difference), REPORTS),
    Metric("95 % interval", lambda c: t.points_interval(c.utterance_interval), REPORTS),
    Metric("Speakers drawn", lambda c: t.points_interval(c.speaker_interval), REPORTS),
    Metric("MAPSSWE", lambda c: _test(c.mapsswe), REPORTS),
    Metric("Better / worse", lambda c: f"{t.count(c.improved)} / {t.count(c.worsened)}", REPORTS),
    Metric("Same text", lambda c: f"{t.count(c.identical_normalised)} of {t.count(c.utterances)}", REPORTS),
)
"""Of each pair of backends on the utterances that both transcribed."""

RUNS: tuple[Metric[BackendSummary], ...] = (
    Metric("Backend", lambda b: b.backend),
    Metric("Device", lambda b: b.run.device, wraps=True),
    Metric("Why", lambda b: b.run.device_reason, wraps=True),
    Metric("Kernel", lambda b: plain(b.run.kernel), wraps=True),
    Metric("Processor", lambda b: plain(b.run.processor), wraps=True),
    Metric("Threads", lambda b: plain(b.run.threads)),
    Metric("Started", lambda b: plain(b.run.started), wraps=True),
)
"""What ran."""

# What follows comes from JSON files beside the records, each part of which may be absent.
Json = Mapping[str, Any]


def _targets(kernel: Json) -> str:
    targets = kernel.get("targets") or ()
    words = (
        f"{a['name']} {a['wanted']}: {'✓ met' if a['passed'] else '✕ missed'} ({a['found']})" for a in targets
    )
    return "; ".join(words) or t.NONE


def _shift(kernel: Json) -> str:
    return "" if kernel.get("shift") is None else f", shift {kernel['shift']}"


VALIDATION: tuple[Metric[Json], ...] = (
    Metric("Kernel", lambda v: f"{v['kernel']}{_shift(v)}"),
    Metric("Ran on", lambda v: plain(v.get("device")), wraps=True),
    Metric("Correlation", lambda v: t.number(v.get("correlation"), 4)),
    Metric("Mean error", lambda v: t.number(v.get("mae"))),
    Metric("RMSE", lambda v: t.number(v.get("rmse"))),
    Metric("Largest", lambda v: t.number(v.get("max_error"), 0)),
    Metric("Relative", lambda v: t.percent(v.get("relative_error"), 1)),
    Metric("Scores clipped", lambda v: t.share((v.get("scores") or {}).get("clipped"))),
    Metric("Targets", _targets, wraps=True),
)
"""Of `kernels.validation.TileResult.to_dict()`."""

LATENCY: tuple[Metric[tuple[Json, str, Json]], ...] = (
    Metric("Work", lambda m: m[0]["what"]),
    Metric("Backend", lambda m: m[0]["backend"], wraps=True),
    Metric("Tile", lambda m: plain(m[0]["tile_size"])),
    Metric("Threads", lambda m: plain(m[0]["threads"])),
    Metric("Batch", lambda m: plain(m[0]["batch"])),
    Metric("Phase", lambda m: m[1], wraps=True),
    Metric("Median", lambda m: t.number(m[2]["p50_ms"], 3)),
    Metric("95 %", lambda m: t.number(m[2]["p95_ms"], 3)),
    Metric("Least", lambda m: t.number(m[2]["min_ms"], 3)),
    Metric("Most", lambda m: t.number(m[2]["max_ms"], 3)),
)
"""Of a measurement of `tilescribe bench --json`, the name of one of its phases, and that phase."""

COST: tuple[Metric[Json], ...] = (
    Metric("Model", lambda w: w["model"]),
    Metric("Plan", lambda w: w["plan"], wraps=True),
    Metric("Best", lambda w: t.milliseconds(w["seconds"]["best"]["total"], 1)),
    Metric("Worst", lambda w: t.milliseconds(w["seconds"]["worst"]["total"], 1)),
    Metric("Bound by", lambda w: f"{w['seconds']['best']['bound']} / {w['seconds']['worst']['bound']}"),
    Metric("Dispatches", lambda w: t.count(w["dispatches"])),
    Metric("Share of encoder", lambda w: t.percent(w["attention_share_of_encoder"], 1)),
)
"""Of a window in its cost model."""

ENERGY: tuple[Metric[Json], ...] = (
    Metric("Backend", lambda w: w["backend"]),
    Metric("Tile", lambda w: plain(w["tile_size"])),
    Metric("Threads", lambda w: plain(w["threads"])),
    Metric("Windows", lambda w: t.count(w["windows"])),
    Metric("In all", lambda w: t.number(w["joules"])),
    Metric("Over idle", lambda w: t.number(w["joules_over_idle"])),
)
"""Of a window in its energy."""


def tables(
    evaluation: Evaluation, validation: Iterable[Json], errors: Mapping[str, list[float]], bench: Json
) -> dict[str, Table]:
    """Every table of the page by name; those without rows are not shown.

    Args:
        evaluation: what was scored.
        validation: of kernels.
        errors: of the encoder, by backend and layer.
        bench: what `tilescribe bench --json` wrote, or nothing.
    """
    backends, cost, energy = evaluation.backends, bench.get("cost_model") or {}, bench.get("energy") or {}
    timed = [(m, *phase) for m in bench.get("measurements") or () for phase in m["phases"].items()]
    measured_on = "the NPU" if bench.get("measured_on_npu") else "the CPU, not on an NPU"
    return {
        "rates": table("Error rates of each backend on all that it transcribed", BACKENDS, backends),
        "comparisons": table(
            "Differences between backends on the utterances that both transcribed",
            COMPARISONS,
            evaluation.comparisons,
        ),
        "by_length": _rates_by_group("Length", {b.backend: b.by_length for b in backends}),
        "by_speaker": _rates_by_group("Speaker", {b.backend: b.by_speaker for b in backends}),
        "runs": table("What ran for each backend", RUNS, backends),
        "layers": _error_by_layer(errors),
        "validation": table(
            "Each kernel against FP32 attention, 64 × 64 random integers", VALIDATION, validation
        ),
        "latency": table(f"Measured on {measured_on}, milliseconds", LATENCY, timed),
        "cost": table(
            "Modelled attention of one window of 30 s, milliseconds, at both ends of the assumptions",
            COST,
            cost.get("windows") or (),
        ),
        "energy": table(
            f"Energy of one encoder window, joules; read from {energy.get('meter')}",
            ENERGY,
            energy.get("windows") or (),
        ),
    }


def _rates_by_group(label: str, backends: Mapping[str, Mapping[str, Rates]]) -> Table:
    """Each group's size and each backend's rate in it."""
    rows = []
    for group in dict.fromkeys(group for rates in backends.values() for group in rates):
        known = next(rates[group] for rates in backends.values() if group in rates)
        wers = [t.percent(rates[group].wer if group in rates else None) for rates in backends.values()]
        rows.append([group, t.count(known.utterances), t.count(known.words), *wers])
    headings = (label, "Utterances", "Words", *backends)
    return Table(f"Word error rate by {label.lower()}", tuple(Metric[Any](h, str) for h in headings), rows)


def _error_by_layer(errors: Mapping[str, list[float]]) -> Table:
    layers = map(str, range(1, max(map(len, errors.values()), default=1)))
    columns = tuple(Metric[Any](heading, str) for heading in ("Backend", *layers, "out"))
    rows = [[name, *map(t.percent, values)] for name, values in errors.items()]
    return Table("Relative error after each layer; the last column is the encoder’s output", columns, rows)
