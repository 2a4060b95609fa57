"""Prints a bench run: measurements first, then the cost model with everything that it rests on."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from app.evaluation.benchmark.results import BenchResult, scores_of
from app.evaluation.report.metrics import COST_TIMES, COST_WORK, ENERGY, LATENCY
from app.output import tables as t
from app.output.tables import Metric
from kernels.backends import TILE_BACKENDS
from kernels.contract import TILE_SIZES
from kernels.npu import cost
from kernels.npu.cost_assumptions import ASSUMPTIONS, PEER, VECTOR_COUNTS
from kernels.npu.program.plan import COLUMN_COUNTS, ROWS_PER_CORE, Plan

HEADINGS = {
    "host": "Host's part of a layer on the array, measured on this CPU: {heads} heads, {tokens} tokens",
    "tile": "Tile: 64 rows against one tile of keys, one head, one call of the device",
    "smallest run": "Smallest run: one row, one key, one head: little but the dispatch",
    "layer": "Layer of {model}: {heads} heads, {tokens} tokens (not the first, which has twice the value columns)",
    "encoder": "Window through the whole encoder of {model}, and the attention in it",
}
LEGEND = (
    "dispatches: one a layer. GMAC: attention's products on the array, with padding, heads of the first layer "
    "twice (128 value columns). Ginstr: softmax and merging, all cores. MB: over the shim, both ways; into the "
    "cores. Share: attention's products in all multiplications of the layers, of the whole encoder. At most: the "
    "encoder's speed-up if attention took no time and the rest as long per multiplication (Amdahl). RTF: real-time "
    "factor of attention alone."
)
ASSUMED = (
    "data moves while cores work, but with tiles of 256 a core has room for one and waits; columns do not slow "
    "each other down but for the DRAM; every tile counts in full: assumed."
)


def device_line(device: str | None, reason: str) -> str:
    """What the figures hold for, in words that leave no doubt."""
    if device is None:
        return "nothing was measured on a device"
    where = {"npu": "NPU", "cpu": "CPU alone: not an NPU figure"}
    return f"{where.get(device, f'{device} on the CPU: not an NPU figure')}; {reason}"


def lines(result: BenchResult) -> Iterable[str]:
    """All of it."""
    machine, stack, document = result.machine, result.stack, result.to_dict()
    yield f"tilescribe bench: {device_line(result.device, result.device_reason)}"
    yield f"CPU: {machine.cpu}, {machine.processors} of {machine.processors_in_all} processors; {machine.system}"
    yield from _wrapped(", ".join(f"{name} {version}" for name, version in machine.versions.items()))
    if result.interrupted:
        yield "INTERRUPTED: what follows is what had been measured by then."
    for what, heading in HEADINGS.items():
        found = [m for m in document["measurements"] if m["what"] == what]
        if found:
            yield ""
            yield heading.format(model=stack.name, heads=stack.heads, tokens=stack.tokens)
            yield from t.console(LATENCY, [(m, *phase) for m in found for phase in m["phases"].items()])
    for line in result.skipped:
        yield f"left out: {line}"
    if energy := result.energy:
        measured = document["energy"]["windows"]
        yield ""
        yield f"Energy by {energy.meter}" if energy.meter else f"Energy: not available ({energy.reason})"
        if energy.idle_watts is not None and (energy.meter or measured):
            yield f"idle before the run: {energy.idle_watts:.2f} W"
            yield from t.console(ENERGY, measured)
    windows, plan = document["cost_model"]["windows"], result.plan
    yield ""
    yield f"Cost model of attention on the NPU's array. {cost.WARNING}"
    yield (
        f"One 30 s window, {_plan(plan)}, {plan.columns} columns ({plan.cores} cores); "
        "best - worst end of the assumptions below."
    )
    for block in (t.console(COST_WORK, windows), t.console(COST_TIMES, windows), _wrapped(LEGEND)):
        yield ""
        yield from block
    yield ""
    yield from _alternatives(result)
    yield ""
    yield from _beside_a_peer(result)
    yield ""
    yield from _basis(result)


PLANS: tuple[Metric[cost.WindowCost], ...] = (
    Metric("kernel", lambda w: w.plan.scores),
    Metric("keys", lambda w: str(w.plan.tile_size)),
    Metric("columns", lambda w: str(w.plan.columns)),
    Metric("Q K", lambda w: t.count(cost.tile_cycles(w.plan).scores)),
    Metric("P V", lambda w: t.count(cost.tile_cycles(w.plan).values)),
    Metric("softmax", lambda w: t.count(cost.tile_cycles(w.plan).softmax)),
    Metric("merge", lambda w: t.count(cost.tile_cycles(w.plan).merge)),
    Metric(
        "cycles a logit",
        lambda w: t.number(cost.tile_cycles(w.plan).total / w.plan.tile_size / ROWS_PER_CORE),
    ),
    Metric("cores ms", lambda w: t.ends(w.best.compute, w.worst.compute)),
    Metric("data ms", lambda w: t.ends(w.best.dma, w.worst.dma)),
    Metric("window ms", lambda w: t.ends(w.best.total, w.worst.total)),
)
"""Of a window with one plan of the array."""


def _alternatives(result: BenchResult) -> Iterable[str]:
    stack, chosen = result.stack, result.plan
    yield f"{stack.name} by kernel and tile size, 4 columns; by columns, {_plan(chosen)}:"
    plans = [Plan(scores_of(kernel), size) for kernel in TILE_BACKENDS for size in TILE_SIZES]
    plans += [Plan(chosen.scores, chosen.tile_size, columns) for columns in COLUMN_COUNTS]
    yield from t.console(PLANS, [cost.window(stack, plan, result.host) for plan in plans])
    yield f"(Q K, P V, softmax, merge: instructions of a core for {ROWS_PER_CORE} rows and one tile.)"
    each, whole = cost.per_tile(stack), cost.window(stack, chosen, result.host)
    yield from _wrapped(
        f"One dispatch a tile: {each.tiles:,} tiles of 64 x 64 a window, {each.best:.2f} - {each.worst:.2f} s of "
        f"dispatches alone, {each.at_ten_milliseconds:.0f} s at 10 ms a tile. One a layer: {stack.layers}, "
        f"{t.ends(whole.best.dispatch, whole.worst.dispatch, 2)} ms. A tile is the unit of compute, never of dispatch."
    )


def _beside_a_peer(result: BenchResult) -> Iterable[str]:
    peer, model = PEER, cost.peer_layer(result.plan)
    best, worst = model.best.array, model.worst.array
    fused, apart = (seconds * 1e3 for seconds in peer.seconds)
    yield from _wrapped(
        f"Beside a measurement: a layer of {peer.heads} heads and {peer.tokens:,} tokens takes "
        f"{t.ends(best, worst)} ms on the array by this model ({t.ends(best / peer.heads, worst / peer.heads)} ms a "
        f"head), {fused:.0f} and {apart:.0f} ms ({fused / peer.heads:.1f} and {apart / peer.heads:.1f} ms a head) by "
        f"{peer.source}. That is another kernel: it says that the range is of the right size, not where in it this "
        "one is."
    )


def _basis(result: BenchResult) -> Iterable[str]:
    yield "Assumptions (best, worst):"
    for a in ASSUMPTIONS:
        values = f"{a.best:g}" if a.best == a.worst else f"{a.best:g}, {a.worst:g}"
        yield from _wrapped(f"{a.name}: {values} {a.unit}. {a.source}.", "  ")
    host = result.host
    yield from _wrapped(
        f"the host's part of one head of a run (quantise, pack, dequantise): {t.milliseconds(host.best, 2)}, "
        f"{t.milliseconds(host.worst, 2)} ms. {host.source}; a head of the first layer counts as two.",
        "  ",
    )
    yield from _wrapped(ASSUMED, "  ")
    yield "Instructions of the kernel (counted by hand in kernels/npu/program/aie/attention.hpp, not in compiled code):"
    for of, counts in VECTOR_COUNTS.items():
        listed = ", ".join(f"{count.step} {count.count:g}" for count in counts)
        yield from _wrapped(f"{of}, {sum(count.count for count in counts):g} in all: {listed}.", "  ")


def _wrapped(sentences: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        sentences, 110, initial_indent=indent, subsequent_indent=indent + "  " * bool(indent)
    )


def _plan(plan: Plan) -> str:
    return f"{plan.scores} scores, tiles of {plan.tile_size} keys"
