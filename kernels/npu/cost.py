"""What attention on the array would cost: arithmetic on a `Plan`, not a measurement.

A stack of attention layers is cut as `plan.py` lays it out; from that follow bytes, multiplications, vector
instructions and dispatches, and from those, with the assumptions of `cost_assumptions.py`, times at both ends of
their ranges. Nothing of this kernel has been measured on an NPU; the host's part can be what was measured on the CPU at
hand.

The model of time, for one layer (layers wait for each other, so their times add up):

    host (quantise, pack, dequantise) + synchronising buffers + dispatch + array
    array = max(cores, shim streams, DRAM)      loads run beside the work where a core holds two tiles, else they add
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from kernels.contract import HEAD_DIM, SCORE_TYPES, TILE_SIZES
from kernels.npu import cost_assumptions as assumed
from kernels.npu.cost_assumptions import LANES, Assumption, VectorCount
from kernels.npu.program import plan as p
from kernels.npu.program.plan import Plan

WARNING = "A model, not a measurement: no part of it has run on an NPU."


@dataclass(frozen=True)
class HostCost:
    """Seconds of the CPU for one head of a run: quantise, pack, dequantise; measured, or assumed."""

    best: float = 0.1e-3
    worst: float = 1e-3
    source: str = "assumed"


@dataclass(frozen=True)
class Stack:
    """The attention layers of a model, and what else it computes.

    Attributes:
        heads: of a layer, 64 wide each.
        tokens: rows and keys of a head that count.
        layer_macs: multiplications of a layer outside attention's two products.
        other_macs: multiplications outside the layers.
        doubled_layers: layers whose values have 128 columns: they run as twice the heads.
        seconds: of audio that one pass covers.
    """

    name: str
    layers: int
    heads: int
    tokens: int
    layer_macs: int
    other_macs: int
    doubled_layers: int = 1
    seconds: float = 30.0

    @property
    def head_runs(self) -> int:
        """Heads of 64 value columns that the array works on, over all layers."""
        return self.heads * (self.layers + self.doubled_layers)

    @property
    def attention_macs(self) -> int:
        """Multiplications of attention's two products over all layers, without padding and without doubling."""
        return self.layers * self.heads * 2 * self.tokens**2 * HEAD_DIM

    @property
    def share_of_layers(self) -> float:
        """Attention's share of the layers' multiplications."""
        return self.attention_macs / (self.attention_macs + self.layers * self.layer_macs)

    @property
    def share(self) -> float:
        """Attention's share of all multiplications."""
        return self.attention_macs / (self.attention_macs + self.layers * self.layer_macs + self.other_macs)

    @property
    def speedup_limit(self) -> float:
        """The most that the whole can gain if attention took no time and the rest ran at the same rate (Amdahl)."""
        return 1 / (1 - self.share)

    @property
    def tiles(self) -> int:
        """Pairs of 64 rows and 64 keys over all layers, as the single-tile program takes them."""
        return (p.PADDED_TOKENS // p.SINGLE_TILE) ** 2 * self.heads * self.layers


class TileCycles(NamedTuple):
    """A core's instructions in `attention_tile` for 32 rows and one key tile, one a cycle."""

    scores: float
    values: float
    softmax: float
    merge: float

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self)


def tile_cycles(plan: Plan) -> TileCycles:
    """Count the instructions of a plan's key tile."""
    logits = p.ROWS_PER_CORE * plan.tile_size
    int8_scores = assumed.INT8_SCORE_COUNTS if plan.scores == "int8" else ()
    return TileCycles(
        scores=logits * HEAD_DIM / assumed.INT8_MACS.best,
        values=logits * HEAD_DIM / assumed.INT16_MACS.best,
        softmax=logits / LANES * _sum(assumed.SOFTMAX_COUNTS + int8_scores),
        merge=p.ROWS_PER_CORE * _sum(assumed.MERGE_COUNTS),
    )


class HeadTraffic(NamedTuple):
    """Bytes that one head moves.

    Attributes:
        queries: in over the shim, all columns; `outputs` the other way.
        key_values: in over the shim, all columns: the tiles once for every group of 128 rows.
        to_cores: from memory tiles into cores: queries once, every key and value tile to four cores.
        column_stream: through the busiest channel of one column.
        buffers: of the host, to be synchronised.
    """

    queries: int
    key_values: int
    outputs: int
    to_cores: int
    column_stream: int
    buffers: int

    @property
    def shim(self) -> int:
        """Everything over the shim, both ways."""
        return self.queries + self.key_values + self.outputs


def head_traffic(plan: Plan) -> HeadTraffic:
    """Count the bytes of one head."""
    queries, stream, outputs = plan.buffer_bytes(1)
    key_values = p.GROUPS_PER_HEAD * stream
    return HeadTraffic(
        queries=queries,
        key_values=key_values,
        outputs=outputs,
        to_cores=queries + p.CORES_PER_COLUMN * key_values,
        column_stream=max(queries, key_values, outputs) // plan.columns,
        buffers=queries + stream + outputs,
    )


class Times(NamedTuple):
    """Seconds of one pass, at one end of the assumptions.

    Attributes:
        compute: of the busiest core.
        streams: of the busiest shim channel.
        dram: of all bytes over the shim.
        dispatch: of starting runs.
        host: of the CPU before and after the array, with the synchronising of buffers.
    """

    compute: float
    streams: float
    dram: float
    dispatch: float
    host: float

    @property
    def dma(self) -> float:
        """Of moving data: the slower of the streams and the DRAM."""
        return max(self.streams, self.dram)

    @property
    def array(self) -> float:
        """Of the array: data moves while the cores work."""
        return max(self.compute, self.dma)

    @property
    def total(self) -> float:
        """Of everything."""
        return self.array + self.dispatch + self.host

    @property
    def bound(self) -> str:
        """What takes most of the time: `compute`, `DMA`, `dispatch` or `host`."""
        array = "compute" if self.compute >= self.dma else "DMA"
        parts = {"host": self.host, "dispatch": self.dispatch, array: self.array}
        return max(parts, key=parts.__getitem__)

    def to_dict(self) -> dict[str, object]:
        """As JSON takes it."""
        return {**self._asdict(), "total": self.total, "bound": self.bound}


@dataclass(frozen=True)
class WindowCost:
    """What one pass through a stack's attention would cost, one dispatch a layer.

    Attributes:
        macs: multiplications on the array, with padding and doubled heads.
        shim_bytes: over the shim, both ways, in the whole pass.
        core_bytes: from memory tiles into cores in the whole pass.
        vector_instructions: of the softmax and merging, over all cores.
        core_cycles: instructions of one core, one a cycle.
        best: times at the better end of every assumption.
        worst: times at the worse end of every assumption.
    """

    stack: Stack
    plan: Plan
    host: HostCost
    macs: int
    shim_bytes: int
    core_bytes: int
    vector_instructions: float
    core_cycles: float
    best: Times
    worst: Times

    @property
    def real_time_factor(self) -> tuple[float, float]:
        """Time over the seconds of audio, attention alone, best and worst."""
        return self.best.total / self.stack.seconds, self.worst.total / self.stack.seconds

    def to_dict(self) -> dict[str, object]:
        """The numbers as JSON takes them."""
        best, worst = self.real_time_factor
        return {
            "model": self.stack.name,
            "plan": self.plan.name,
            "layers": self.stack.layers,
            "heads": self.stack.heads,
            "head_runs": self.stack.head_runs,
            "dispatches": self.stack.layers,
            "macs": self.macs,
            "vector_instructions": self.vector_instructions,
            "shim_bytes": self.shim_bytes,
            "core_bytes": self.core_bytes,
            "core_cycles": self.core_cycles,
            "attention_share_of_layers": self.stack.share_of_layers,
            "attention_share_of_encoder": self.stack.share,
            "speedup_limit": self.stack.speedup_limit,
            "host_source": self.host.source,
            "real_time_factor": {"best": best, "worst": worst},
            "seconds": {"best": self.best.to_dict(), "worst": self.worst.to_dict()},
            "measured": False,
        }


def window(stack: Stack, plan: Plan | None = None, host: HostCost | None = None) -> WindowCost:
    """The cost, with the default plan (`Plan()`) and an assumed host unless they are given."""
    plan, host = plan or Plan(), host or HostCost()
    runs, cycles, traffic = stack.head_runs, tile_cycles(plan), head_traffic(plan)
    blocks = runs * plan.groups_per_column  # query blocks that one core works on
    start = plan.work.state_words / 8 * _sum(assumed.START_COUNTS)
    ends = start + p.ROWS_PER_CORE * HEAD_DIM / LANES * _sum(assumed.FINISH_COUNTS)
    core_cycles = blocks * (ends + plan.tiles * cycles.total)

    def times(at: Callable[[Assumption | HostCost], float]) -> Times:
        hertz = at(assumed.CLOCK) * 1e9
        scalar = blocks * (p.ROWS_PER_CORE * at(assumed.DIVISION) + plan.tiles * at(assumed.TILE_CALL))
        # A core with room for one tile waits for the next one.
        waiting = blocks * plan.tiles if plan.input_depth == 1 else 0
        waits = waiting * plan.key_value_bytes / at(assumed.STREAM)
        return Times(
            compute=(core_cycles / at(assumed.EFFICIENCY) + scalar + waits) / hertz,
            streams=runs * traffic.column_stream / at(assumed.STREAM) / hertz,
            dram=runs * traffic.shim / (at(assumed.DRAM) * 1e9),
            dispatch=stack.layers * at(assumed.DISPATCH) * 1e-6,
            host=runs * (at(host) + traffic.buffers / (at(assumed.SYNC) * 1e9)),
        )

    return WindowCost(
        stack,
        plan,
        host,
        macs=runs * 2 * p.PADDED_TOKENS**2 * HEAD_DIM,
        shim_bytes=runs * traffic.shim,
        core_bytes=runs * traffic.to_cores,
        vector_instructions=blocks * plan.cores * (ends + plan.tiles * (cycles.softmax + cycles.merge)),
        core_cycles=core_cycles,
        best=times(attrgetter("best")),
        worst=times(attrgetter("worst")),
    )


def peer_layer(plan: Plan | None = None) -> WindowCost:
    """The cost of the layer that a peer measured (`cost_assumptions.PEER`), without the host."""
    layer = Stack("peer", 1, assumed.PEER.heads, assumed.PEER.tokens, 0, 0, doubled_layers=0)
    return window(layer, plan, HostCost(0, 0, "left out"))


@dataclass(frozen=True)
class PerTileCost:
    """What it would cost to dispatch every tile of 64 rows and 64 keys on its own, merging left out.

    Attributes:
        tiles: dispatches.
        best: seconds of the dispatches alone, as is `worst`.
        at_ten_milliseconds: seconds if a tile took the 10 ms that the founding report set as its target.
        bytes: moved in, with each tile's queries, keys and values.
    """

    tiles: int
    best: float
    worst: float
    at_ten_milliseconds: float
    bytes: int


def per_tile(stack: Stack) -> PerTileCost:
    """The cost of one dispatch a tile."""
    return PerTileCost(
        tiles=stack.tiles,
        best=stack.tiles * assumed.DISPATCH.best * 1e-6,
        worst=stack.tiles * assumed.DISPATCH.worst * 1e-6,
        at_ten_milliseconds=stack.tiles * 10e-3,
        bytes=stack.tiles * p.SINGLE_TILE_INPUT_BYTES,
    )


def plans() -> tuple[Plan, ...]:
    """Every plan that there is, for comparison."""
    return tuple(Plan(s, t, n) for s in SCORE_TYPES for t in TILE_SIZES for n in p.COLUMN_COUNTS)


def _sum(counts: tuple[VectorCount, ...]) -> float:
    return sum(count.count for count in counts)
