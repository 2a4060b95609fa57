"""Prints a bench run: measurements first, then the cost model with everything that it rests on."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from app.evaluation.bench.measuring import Series
from app.evaluation.bench.results import BenchResult, Energy, Measurement
from kernels.npu import cost
from kernels.npu.cost_assumptions import ASSUMPTIONS, VECTOR_COUNTS
from kernels.npu.program.plan import ROWS_PER_CORE, Plan

Row = Sequence[str]


def device_line(device: str | None, reason: str) -> str:
    """What the figures hold for, in words that leave no doubt."""
    if device is None:
        return "nothing was measured on a device"
    if device == "npu":
        return f"NPU; {reason}"
    if device == "cpu":
        return f"CPU alone: not an NPU figure; {reason}"
    return f"{device} on the CPU: not an NPU figure; {reason}"


def text(result: BenchResult) -> str:
    """The whole report."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: BenchResult) -> Iterable[str]:
    machine = result.machine
    yield f"tilescribe bench: {device_line(result.device, result.device_reason)}"
    yield f"CPU: {machine.cpu}, {machine.processors} of {machine.processors_in_all} processors; {machine.system}"
    yield ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    if result.interrupted:
        yield "INTERRUPTED: what follows is what had been measured by then."
    for what, heading in _HEADINGS.items():
        found = [m for m in result.measurements if m.what == what]
        if found:
            yield ""
            yield heading.format(
                model=result.stack.name, heads=result.stack.heads, tokens=result.stack.tokens
            )
            yield from table(_MEASURED, (row for m in found for row in _measured(m)))
    for line in result.skipped:
        yield f"left out: {line}"
    if result.energy is not None:
        yield ""
        yield from _energy(result.energy)
    yield ""
    yield from cost_lines(result)


_HEADINGS = {
    "host": "Host's part of a layer on the array, measured on this CPU: {heads} heads, {tokens} tokens",
    "tile": "Tile: 64 rows against one tile of keys, one head, one call of the device",
    "smallest run": "Smallest run: one row, one key, one head: little but the dispatch",
    "layer": "Layer of {model}: {heads} heads, {tokens} tokens (not the first, which has twice the value columns)",
    "encoder": "Window through the whole encoder of {model}, and the attention in it",
}
_MEASURED = (
    "backend",
    "keys",
    "batch",
    "threads",
    "phase",
    "count",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "max ms",
    "tiles/s",
)


def _measured(m: Measurement) -> Iterable[Row]:
    for name, series in m.phases.items():
        rate = f"{m.tiles_per_second:,.0f}" if name == "run" and m.tiles_per_second else ""
        setting = (m.backend, str(m.tile_size or "-"), str(m.batch), str(m.threads), name)
        yield (*setting, str(len(series.nanoseconds)), *_milliseconds(series), rate)


def _milliseconds(series: Series) -> tuple[str, ...]:
    return tuple(
        f"{seconds * 1e3:.3f}" for seconds in (*(series.percentile(r) for r in (50, 95, 99)), series.worst)
    )


def _energy(energy: Energy) -> Iterable[str]:
    if energy.meter is None:
        yield f"Energy: not available ({energy.reason})"
        if not energy.windows:
            return
    else:
        yield f"Energy by {energy.meter}"
    if energy.idle_watts is not None:
        yield f"idle before the run: {energy.idle_watts:.2f} W"
    yield from table(
        ("backend", "keys", "batch", "threads", "windows", "J a window", "J over idle"),
        (
            (
                w.backend,
                str(w.tile_size or "-"),
                str(w.batch),
                str(w.threads),
                str(w.windows),
                f"{w.joules:.3f}",
                f"{w.joules_over_idle:.3f}",
            )
            for w in energy.windows
        ),
    )


def cost_lines(result: BenchResult) -> Iterable[str]:
    """The cost model: all sizes, then this model's alternatives, then what it rests on."""
    windows = result.costs()
    yield f"Cost model of attention on the NPU's array. {cost.WARNING}"
    yield f"One 30 s window, {_plan(result.plan)}; best - worst end of the assumptions below."
    yield ""
    yield from table(_WORK, (_work(w) for w in windows))
    yield ""
    yield from table(_TIMES, (_times(w) for w in windows))
    yield ""
    yield from wrapped(
        "dispatches: one a layer. GMAC: attention's products on the array, with padding, heads of the first layer "
        "twice (128 value columns). Ginstr: softmax and merging, all cores. MB: over the shim, both ways; into the "
        "cores. Share: attention's products in all multiplications of the layers, of the whole encoder. At most: the "
        "encoder's speed-up if attention took no time and the rest as long per multiplication (Amdahl). RTF: real-time "
        "factor of attention alone."
    )
    yield ""
    yield from _alternatives(result)
    yield ""
    yield from _basis(result)


_WORK = (
    "model",
    "layers",
    "heads",
    "dispatches",
    "GMAC",
    "Ginstr",
    "MB shim",
    "MB cores",
    "share: layers",
    "encoder",
    "at most",
)


def _work(w: cost.WindowCost) -> Row:
    return (
        w.stack.name,
        str(w.stack.layers),
        str(w.stack.heads),
        str(w.dispatches),
        f"{w.macs / 1e9:.1f}",
        f"{w.vector_instructions / 1e9:.2f}",
        f"{w.shim_bytes / 1e6:.0f}",
        f"{w.core_bytes / 1e6:.0f}",
        f"{w.stack.share_of_layers:.1%}",
        f"{w.stack.share:.1%}",
        f"{w.stack.speedup_limit:.2f} x",
    )


_TIMES = ("model", "cores ms", "data ms", "dispatch ms", "host ms", "window ms", "bound", "RTF")


def _times(w: cost.WindowCost) -> Row:
    best, worst = w.best, w.worst
    return (
        w.stack.name,
        _span(best.compute, worst.compute),
        _span(best.dma, worst.dma),
        _span(best.dispatch, worst.dispatch, 2),
        _span(best.host, worst.host),
        _span(best.total, worst.total),
        best.bound if best.bound == worst.bound else f"{best.bound} - {worst.bound}",
        "{:.4f} - {:.4f}".format(*w.real_time_factor),
    )


def _alternatives(result: BenchResult) -> Iterable[str]:
    stack, chosen = result.stack, result.plan
    yield f"{stack.name} by kernel and tile size, 4 columns; by columns, {_plan(chosen, columns=False)}:"
    plans = [Plan(scores, size) for scores in ("int32", "int8") for size in (64, 128, 256)]
    plans += [Plan(chosen.scores, chosen.tile_size, columns) for columns in (1, 2, 3, 4)]
    rows = []
    for plan in plans:
        w, cycles = cost.window(stack, plan, result.host), cost.tile_cycles(plan)
        kind = (plan.scores, str(plan.tile_size), str(plan.columns))
        per_logit = cycles.total / (ROWS_PER_CORE * plan.tile_size)
        parts = (cycles.scores, cycles.values, cycles.softmax, cycles.merge)
        rows.append(
            (*kind, *(f"{part:,.0f}" for part in parts), f"{per_logit:.2f}", *_times(w)[1:3], _times(w)[5])
        )
    yield from table(
        (
            "kernel",
            "keys",
            "columns",
            "Q K",
            "P V",
            "softmax",
            "merge",
            "cycles a logit",
            "cores ms",
            "data ms",
            "window ms",
        ),
        rows,
    )
    yield f"(Q K, P V, softmax, merge: instructions of a core for {ROWS_PER_CORE} rows and one tile.)"
    each, whole = cost.per_tile(stack), cost.window(stack, chosen, result.host)
    yield from wrapped(
        f"One dispatch a tile: {each.tiles:,} tiles of 64 x 64 a window, {each.best:.2f} - {each.worst:.2f} s of "
        f"dispatches alone, {each.at_ten_milliseconds:.0f} s at 10 ms a tile. One a layer: {whole.dispatches}, "
        f"{_span(whole.best.dispatch, whole.worst.dispatch, 2)} ms. A tile is the unit of compute, never of dispatch."
    )


def _basis(result: BenchResult) -> Iterable[str]:
    yield "Assumptions (best, worst):"
    for a in ASSUMPTIONS:
        values = f"{a.best:g}" if a.best == a.worst else f"{a.best:g}, {a.worst:g}"
        yield from wrapped(f"{a.name}: {values} {a.unit}. {a.source}.", "  ")
    host = result.host
    yield from wrapped(
        f"the host's part of one head of a run (quantise, pack, dequantise): {host.best * 1e3:.2f}, "
        f"{host.worst * 1e3:.2f} ms. {host.source}; a head of the first layer counts as two.",
        "  ",
    )
    yield from wrapped(
        "data moves while cores work, but with tiles of 256 a core has room for one and waits; columns do not slow "
        "each other down but for the DRAM; every tile counts in full: assumed.",
        "  ",
    )
    yield "Instructions of the kernel (counted by hand in kernels/npu/program/aie/attention.hpp, not in compiled code):"
    for of, counts in VECTOR_COUNTS.items():
        listed = ", ".join(f"{count.step} {count.count:g}" for count in counts)
        yield from wrapped(f"{of}, {sum(count.count for count in counts):g} in all: {listed}.", "  ")


def wrapped(sentences: str, indent: str = "") -> Iterable[str]:
    """Lines of at most 110 characters; those after the first are indented further."""
    return textwrap.wrap(
        sentences, 110, initial_indent=indent, subsequent_indent=indent + "  " * bool(indent)
    )


def _plan(plan: Plan, *, columns: bool = True) -> str:
    kind = f"{plan.scores} scores, tiles of {plan.tile_size} keys"
    return f"{kind}, {plan.columns} columns ({plan.cores} cores)" if columns else kind


def _span(best: float, worst: float, digits: int = 1) -> str:
    return f"{best * 1e3:.{digits}f} - {worst * 1e3:.{digits}f}"


def table(heading: Row, rows: Iterable[Row]) -> Iterable[str]:
    """Aligned columns: the first to the left, the others to the right."""
    cells = [heading, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        first, *others = zip(row, widths, strict=True)
        line = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        yield "  ".join(line).rstrip()
