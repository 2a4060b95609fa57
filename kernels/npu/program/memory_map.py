"""Where everything lies in the array's memories, counted before anything is built, and checked.

A core has 64 KiB for its stack, its buffers and its program's constants; nothing in the array stops one from running
into the next. The design (`aie/design.py`) gives every stack and buffer its size from here and from `plan.py`, and the
tests hold what it allocates against these maps.

Addresses follow the tool chain's sequential scheme: the stack first, then larger buffers before smaller. They are what
a build is expected to show; the checks rest on sizes and alignment alone. Three figures can only be known from a build,
and are assumptions until then: the constants of a core's program, that the program fits, and that the frames of its
functions fit the stack, which grows into the buffers. `build/xclbin.py` reads them back from what it builds and refuses
what does not fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from kernels.contract import HEAD_DIM
from kernels.npu.program import plan as p
from kernels.npu.program import transfers
from kernels.npu.program.plan import Plan, TileLimits, Work

MEMORY_TILE_DEPTH = 2  # groups and tiles held of each stream: one comes in while the other goes out
SINGLE_TILE_INPUTS = 3  # Q, K and V, which the core takes together
SINGLE_TILE_INPUT_DEPTH = (
    SINGLE_TILE_INPUTS + 1
)  # the tool chain keeps one more than is taken (objectCountOn)
CONSTANT_BYTES = 1024  # kept free for the constants of a core's program: assumed until a build shows them

Buffers = dict[str, tuple[int, int]]  # bytes and depth by name


class Region(NamedTuple):
    """Bytes of a tile's memory; a fifo's buffers have numbered names (`output#1`)."""

    name: str
    address: int
    nbytes: int


@dataclass(frozen=True)
class TileMap:
    """What one tile holds and uses.

    Attributes:
        regions: of its memory, in order of address.
        incoming: descriptors of each DMA channel from the stream into memory.
        outgoing: descriptors of each DMA channel from memory to the stream.
        locks: semaphores: two for each pool of buffers that a DMA shares with a core or with another DMA.
    """

    limits: TileLimits
    regions: tuple[Region, ...]
    incoming: tuple[int, ...]
    outgoing: tuple[int, ...]
    locks: int

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return sum(region.nbytes for region in self.regions)

    def of(self, name: str) -> int:
        """Bytes of a fifo's or buffer's regions together; 0 where there is none."""
        return sum(region.nbytes for region in self.regions if region.name.split("#")[0] == name)

    def violations(self) -> list[str]:
        """Every excess and misalignment, one line each; empty where all is well."""
        counted = (
            ("bytes", self.nbytes, self.limits.memory_bytes),
            ("incoming channels", len(self.incoming), self.limits.channels),
            ("outgoing channels", len(self.outgoing), self.limits.channels),
            ("descriptors", sum(self.incoming + self.outgoing), self.limits.descriptors),
            ("locks", self.locks, self.limits.locks),
        )
        found = [f"{used:,} {what} of {most:,}" for what, used, most in counted if used > most]
        for name, address, nbytes in self.regions:
            if address % p.ALIGNMENT or nbytes % p.ALIGNMENT:
                found.append(f"{name} ({nbytes} bytes at {address}) is not aligned to {p.ALIGNMENT}")
        return [f"{self.limits.kind}: {text}" for text in found]


@dataclass(frozen=True)
class MemoryMap:
    """One program: every core, memory tile (None where it uses none) and shim tile of it is like these."""

    name: str
    core: TileMap
    memory: TileMap | None
    shim: TileMap

    def violations(self) -> list[str]:
        """Every excess of every tile, one line each; empty where all is well."""
        found = [text for tile in (self.core, self.memory, self.shim) if tile for text in tile.violations()]
        if self.memory is not None:
            # Which channels are even is the tool chain's choice: hold the fullest half of them against the limit.
            half = p.MEMORY.channels // 2
            both = (self.memory.incoming, self.memory.outgoing)
            worst = sum(sum(sorted(channels)[-half:]) for channels in both)
            most = p.MEMORY_DESCRIPTORS_PER_PARITY
            if worst > most:
                found.append(f"memory tile: channels of one parity may need {worst} descriptors of {most}")
        queued = max(self.shim.incoming + self.shim.outgoing)
        if queued > p.SHIM_QUEUE:
            found.append(f"shim tile: {queued} descriptors wait at a channel for {p.SHIM_QUEUE}")
        return [f"{self.name}: {text}" for text in found]

    def as_json(self) -> dict[str, object]:
        """For a manifest: bytes of each region of a core and of a memory tile, and the sums."""
        tiles = {"core": self.core, "memory": self.memory}
        return {
            name: {"bytes": tile.nbytes, "regions": {r.name: [r.address, r.nbytes] for r in tile.regions}}
            for name, tile in tiles.items()
            if tile is not None
        }


def streaming(plan: Plan) -> MemoryMap:
    """The map of a streaming program."""
    streams = {
        "queries": (p.QUERY_BLOCK_BYTES, plan.input_depth),
        "keys and values": (plan.key_value_bytes, plan.input_depth),
        "output": (p.OUTPUT_BLOCK_BYTES, plan.output_depth),
    }
    core = TileMap(
        p.CORE,
        _core_regions(streams, plan.work),
        incoming=(plan.input_depth, plan.input_depth),
        outgoing=(plan.output_depth,),
        locks=2 * len(streams),
    )
    # Queries are cut into, and outputs joined from, a part for each core, with its own descriptors and locks.
    depth, part, parts = MEMORY_TILE_DEPTH, MEMORY_TILE_DEPTH, MEMORY_TILE_DEPTH * p.CORES_PER_COLUMN
    groups = {
        "queries": (transfers.QUERY_GROUP_BYTES, depth),
        "keys and values": (plan.key_value_bytes, depth),
        "output": (transfers.OUTPUT_GROUP_BYTES, depth),
    }
    memory = TileMap(
        p.MEMORY,
        _placed(groups, 0),
        incoming=(parts, depth, *[part] * p.CORES_PER_COLUMN),
        outgoing=(*[part] * p.CORES_PER_COLUMN, depth, parts),
        locks=2 * (2 * p.CORES_PER_COLUMN + 1),
    )
    return MemoryMap(plan.name, core, memory, _shim(transfers.streaming(plan, 1)))


def single_tile() -> MemoryMap:
    """The map of the single-tile program: one core, no memory tile."""
    streams = {
        "input": (p.SINGLE_TILE * HEAD_DIM, SINGLE_TILE_INPUT_DEPTH),
        "output": (p.SINGLE_TILE_OUTPUT_BYTES, 1),
    }
    regions = _core_regions(streams, p.SINGLE_TILE_WORK)
    core = TileMap(p.CORE, regions, (SINGLE_TILE_INPUT_DEPTH,), (1,), locks=2 * len(streams))
    return MemoryMap("single_tile", core, None, _shim(transfers.single_tile()))


def _shim(moved: Iterable[transfers.Transfer]) -> TileMap:
    first = [t.stream for t in moved if t.column == 0]
    outgoing = tuple(first.count(stream) for stream in dict.fromkeys(first) if stream != "output")
    return TileMap(p.SHIM, (), (first.count("output"),), outgoing, 0)


def _core_regions(streams: Buffers, work: Work) -> tuple[Region, ...]:
    """Stack, buffers, constants."""
    own = {"state": 4 * work.state_words, "scores": 2 * work.score_halves, "weights": 2 * work.weight_halves}
    placed = _placed({**streams, **{name: (nbytes, 1) for name, nbytes in own.items()}}, p.STACK_BYTES)
    end = placed[-1].address + placed[-1].nbytes
    return (Region("stack", 0, p.STACK_BYTES), *placed, Region("constants", end, CONSTANT_BYTES))


def _placed(buffers: Buffers, address: int) -> tuple[Region, ...]:
    """Put buffers one after the other from `address` on, the larger first."""
    regions = []
    for name, (nbytes, depth) in sorted(buffers.items(), key=lambda item: -item[1][0]):
        for i in range(depth):
            regions.append(Region(name if depth == 1 else f"{name}#{i}", address, nbytes))
            address += nbytes
    return tuple(regions)
