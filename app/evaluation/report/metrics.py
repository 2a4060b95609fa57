"""Every figure of an evaluation's tables: heading, where it comes from, how it is written, and where it is shown.

A new figure is one line here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from app.evaluation.bootstrap import Interval
from app.evaluation.evaluation import Evaluation
from app.evaluation.mapsswe import MatchedPairs
from app.evaluation.records import SpeechCoverage
from app.evaluation.rules import Rule
from app.evaluation.scoring import Rates
from app.evaluation.summaries import BackendSummary, Comparison
from app.output import tables as t
from app.output.tables import CONSOLE, MARKDOWN, PAGE, REPORTS, SCREENS, Metric, Table


def percent_interval(interval: Interval | None) -> str:
    """Both ends of a rate's interval."""
    return t.NONE if interval is None else f"{t.number(100 * interval.low)} to {t.percent(interval.high)}"


def points_interval(interval: Interval | None) -> str:
    """Both ends of a difference's interval in points."""
    return t.NONE if interval is None else f"{t.points(interval.low)} to {t.points(interval.high)}"


def _utterances(backend: BackendSummary) -> str:
    failed = f" ({t.count(len(backend.failures))} failed)" if backend.failures else ""
    return t.count(backend.rates.utterances) + failed


def _covered(coverage: SpeechCoverage | None) -> str:
    return t.share(
        coverage.covered_seconds / coverage.speech_seconds if coverage and coverage.speech_seconds else None
    )


def _findings(coverage: SpeechCoverage | None) -> str:
    return t.NONE if coverage is None else plain(coverage.findings)


def _taken_back(backend: BackendSummary) -> str:
    late = backend.lateness
    return t.NONE if late is None else f"{t.count(late.retracted)} of {t.count(late.words)}"


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


def line(text: str) -> str:
    """Text from outside in one line of Markdown: no table cell, tag or emphasis of its own."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"[\\`*_|\[\]]", r"\\\g<0>", flat)


BACKENDS: tuple[Metric[BackendSummary], ...] = (
    Metric("backend", lambda b: b.backend),
    Metric("WER", lambda b: t.percent(b.rates.wer)),
    Metric("95 % interval", lambda b: percent_interval(b.utterance_interval)),
    Metric("speakers drawn", lambda b: percent_interval(b.speaker_interval), PAGE),
    Metric("CER", lambda b: t.percent(b.rates.cer), REPORTS),
    Metric(
        "sub. / del. / ins.",
        lambda b: " / ".join(map(t.count, (b.rates.substitutions, b.rates.deletions, b.rates.insertions))),
        REPORTS,
    ),
    Metric("words", lambda b: t.count(b.rates.words), PAGE),
    Metric("utterances", _utterances, REPORTS),
    Metric("broken", lambda b: t.count(None if b.broken is None else len(b.broken)), MARKDOWN),
    Metric("time / audio", lambda b: t.number(b.speed.real_time_factor if b.speed else None, 3)),
    Metric("CPU s/min", lambda b: t.number(b.speed.cpu_per_minute if b.speed else None, 1)),
    Metric("speech with text", lambda b: _covered(b.coverage), optional=True),
    Metric("left and mended", lambda b: _findings(b.coverage), REPORTS, wraps=True, optional=True),
    Metric("lag p50", lambda b: t.number(b.lateness.p50_seconds if b.lateness else None), optional=True),
    Metric("lag p95", lambda b: t.number(b.lateness.p95_seconds if b.lateness else None), optional=True),
    Metric("words taken back", _taken_back, REPORTS, optional=True),
    Metric("ran on", lambda b: b.run.device, CONSOLE),
)
"""Of each backend on all that it transcribed."""

COMPARISONS: tuple[Metric[Comparison], ...] = (
    Metric("backend - baseline", lambda c: f"{c.backend} - {c.baseline}", REPORTS),
    Metric("points of WER", lambda c: t.points(c.difference), REPORTS),
    Metric("95 % interval", lambda c: points_interval(c.utterance_interval), REPORTS),
    Metric("better / worse", lambda c: f"{t.count(c.improved)} / {t.count(c.worsened)}", REPORTS),
    Metric("no worse", lambda c: t.share(c.share_no_worse), REPORTS),
    Metric("same text", lambda c: f"{t.count(c.identical_normalised)} of {t.count(c.utterances)}", REPORTS),
    Metric("MAPSSWE", lambda c: _test(c.mapsswe), REPORTS, wraps=True),
    Metric("speakers drawn", lambda c: points_interval(c.speaker_interval), REPORTS),
)
"""Of each pair of backends on the utterances that both transcribed."""

RUNS: tuple[Metric[BackendSummary], ...] = (
    Metric("backend", lambda b: b.backend),
    Metric("device", lambda b: b.run.device, wraps=True),
    Metric("why", lambda b: b.run.device_reason, wraps=True),
    Metric("kernel", lambda b: plain(b.run.kernel), wraps=True),
    Metric("processor", lambda b: plain(b.run.processor), wraps=True),
    Metric("threads", lambda b: plain(b.run.threads)),
    Metric("started", lambda b: plain(b.run.started), wraps=True),
)
"""What ran."""

PASSED = {True: "yes", False: "**no**", None: "undecided"}
RULES: tuple[Metric[Rule], ...] = (
    Metric("rule", lambda r: r.name, MARKDOWN),
    Metric("passed", lambda r: PASSED[r.passed] if r.applies else t.NONE, MARKDOWN),
    Metric("", lambda r: line(r.sentence), MARKDOWN),
)
"""How a candidate's rules came out."""

# What follows comes from JSON files beside the records, each part of which may be absent.
Json = Mapping[str, Any]


def _label(tile: Json) -> str:
    return tile["kernel"] if tile.get("shift") is None else f"{tile['kernel']}, shift {tile['shift']}"


def _scores(tile: Json) -> str:
    scores = tile.get("scores")
    return t.span(scores["least"], scores["largest"]) if scores else t.NONE


def _clipped(scores: Json | None) -> str:
    return t.share(scores["clipped"]) if scores and scores.get("held") else t.NONE


def _targets(tile: Json) -> str:
    words = (
        f"{a['name']} {a['wanted']}: {'✓ met' if a['passed'] else '✕ missed'} ({a['found']})"
        for a in tile.get("targets") or ()
    )
    return "; ".join(words) or t.NONE


TILES: tuple[Metric[Json], ...] = (
    Metric("kernel", _label, SCREENS),
    Metric("ran on", lambda v: v.get("device") or t.NONE, PAGE, wraps=True),
    Metric("correlation", lambda v: t.correlation(v.get("correlation")), SCREENS),
    Metric("MAE", lambda v: t.number(v.get("mae")), SCREENS),
    Metric("RMSE", lambda v: t.number(v.get("rmse")), SCREENS),
    Metric("max error", lambda v: t.number(v.get("max_error")), SCREENS),
    Metric("relative error", lambda v: t.percent(v.get("relative_error"), 1), PAGE),
    Metric("within 5", lambda v: t.share(v["within_5"]), CONSOLE),
    Metric("within 10", lambda v: t.share(v["within_10"]), CONSOLE),
    Metric("output", lambda v: t.span(v["output_min"], v["output_max"]), CONSOLE),
    Metric("scores", _scores, CONSOLE),
    Metric("INT8 clips", lambda v: _clipped(v.get("scores")), SCREENS),
    Metric("targets", _targets, PAGE, wraps=True),
)
"""Of `TileResult.to_dict()`, of which the page shows what there is."""

LATENCY: tuple[Metric[tuple[Json, str, Json]], ...] = (
    Metric("work", lambda m: m[0]["what"], PAGE),
    Metric("backend", lambda m: m[0]["backend"], wraps=True),
    Metric("keys", lambda m: plain(m[0]["tile_size"])),
    Metric("batch", lambda m: plain(m[0]["batch"])),
    Metric("threads", lambda m: plain(m[0]["threads"])),
    Metric("phase", lambda m: m[1], wraps=True),
    Metric("count", lambda m: plain(m[2]["count"]), CONSOLE),
    Metric("p50 ms", lambda m: t.number(m[2]["p50_ms"], 3)),
    Metric("p95 ms", lambda m: t.number(m[2]["p95_ms"], 3)),
    Metric("p99 ms", lambda m: t.number(m[2]["p99_ms"], 3), CONSOLE),
    Metric("min ms", lambda m: t.number(m[2]["min_ms"], 3), PAGE),
    Metric("max ms", lambda m: t.number(m[2]["max_ms"], 3)),
    Metric("CPU ms", lambda m: t.number(m[2].get("cpu_ms"), 3)),
    Metric("CPU s/min", lambda m: t.number(m[2].get("cpu_per_minute"), 1)),
    Metric("tiles/s", lambda m: t.count(m[0]["tiles_per_second"] if m[1] == "run" else None), CONSOLE),
)
"""Of a measurement of `tilescribe bench --json`, the name of one of its phases, and that phase."""

COST_TIMES: tuple[Metric[Json], ...] = (
    Metric("model", lambda w: w["model"], SCREENS),
    Metric("plan", lambda w: w["plan"], PAGE, wraps=True),
    Metric("cores ms", lambda w: _ends(w, "compute"), CONSOLE),
    Metric("data ms", lambda w: _ends(w, "streams", "dram"), CONSOLE),
    Metric("dispatch ms", lambda w: _ends(w, "dispatch", digits=2), CONSOLE),
    Metric("host ms", lambda w: _ends(w, "host"), CONSOLE),
    Metric("window ms", lambda w: _ends(w, "total")),
    Metric("bound", lambda w: " - ".join(dict.fromkeys(end["bound"] for end in w["seconds"].values()))),
    Metric("RTF", lambda w: " - ".join(f"{end:.4f}" for end in w["real_time_factor"].values()), CONSOLE),
)
"""Of a window in its cost model: times at both ends of the assumptions."""

COST_WORK: tuple[Metric[Json], ...] = (
    Metric("model", lambda w: w["model"], CONSOLE),
    Metric("layers", lambda w: plain(w["layers"]), CONSOLE),
    Metric("heads", lambda w: plain(w["heads"]), CONSOLE),
    Metric("dispatches", lambda w: plain(w["dispatches"])),
    Metric("GMAC", lambda w: f"{w['macs'] / 1e9:.1f}", CONSOLE),
    Metric("Ginstr", lambda w: f"{w['vector_instructions'] / 1e9:.2f}", CONSOLE),
    Metric("MB shim", lambda w: f"{w['shim_bytes'] / 1e6:.0f}", CONSOLE),
    Metric("MB cores", lambda w: f"{w['core_bytes'] / 1e6:.0f}", CONSOLE),
    Metric("share: layers", lambda w: t.percent(w["attention_share_of_layers"], 1), CONSOLE),
    Metric("of encoder", lambda w: t.percent(w["attention_share_of_encoder"], 1)),
    Metric("at most", lambda w: f"{w['speedup_limit']:.2f} x", CONSOLE),
)
"""Of the same: what there is to do, and what it is of the whole."""

ENERGY: tuple[Metric[Json], ...] = (
    Metric("backend", lambda w: w["backend"]),
    Metric("keys", lambda w: plain(w["tile_size"])),
    Metric("batch", lambda w: plain(w["batch"])),
    Metric("threads", lambda w: plain(w["threads"])),
    Metric("windows", lambda w: t.count(w["windows"])),
    Metric("J a window", lambda w: t.number(w["joules"], 3)),
    Metric("J over idle", lambda w: t.number(w["joules_over_idle"], 3)),
)
"""Of a window in its energy."""


def _ends(window: Json, *parts: str, digits: int = 1) -> str:
    best, worst = (max(end[part] for part in parts) for end in window["seconds"].values())
    return t.ends(best, worst, digits)


def tables(
    evaluation: Evaluation, validation: Iterable[Json], errors: Mapping[str, list[float]], bench: Json
) -> dict[str, Table]:
    """Every table of the page by name, of `page.render_page`'s arguments; those without rows are not shown."""
    backends, cost, energy = evaluation.backends, bench.get("cost_model") or {}, bench.get("energy") or {}
    timed = [(m, *phase) for m in bench.get("measurements") or () for phase in m["phases"].items()]
    place = "the NPU" if bench.get("measured_on_npu") else "the CPU, not on an NPU"
    compared = "Differences between backends on the utterances that both transcribed"
    modelled = "Modelled attention of one window of 30 s, milliseconds, at both ends of the assumptions"
    metered = f"Energy of one encoder window; read from {energy.get('meter')}"
    return {
        "rates": _table("Error rates of each backend on all that it transcribed", BACKENDS, backends),
        "comparisons": _table(compared, COMPARISONS, (*evaluation.comparisons, *evaluation.streams)),
        "runs": _table("What ran for each backend", RUNS, backends),
        "validation": _table(
            "Each kernel against FP32 attention, 64 × 64 random integers", TILES, validation
        ),
        "latency": _table(f"Measured on {place}", LATENCY, timed),
        "cost": _table(modelled, (*COST_TIMES, *COST_WORK), cost.get("windows")),
        "energy": _table(metered, ENERGY, energy.get("windows")),
        "by_length": _rates_by_group("Length", {b.backend: b.by_length for b in backends}),
        "by_speaker": _rates_by_group("Speaker", {b.backend: b.by_speaker for b in backends}),
        "layers": _error_by_layer(errors),
    }


def _table(caption: str, metrics: Iterable[Metric[Any]], rows: Iterable[Any] | None) -> Table:
    return t.written(metrics, rows or (), "page", caption)


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
