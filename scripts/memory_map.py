"""Print the memory map of every device program: bytes of a core and of a memory tile, and what exceeds the array.

    python scripts/memory_map.py

The score type and the number of columns change no size, so each tile size has one row. `frames` is what a build
measured of the stack that is kept, `unknown` until Peano has compiled the program on this machine.
"""

from __future__ import annotations

import sys

from app.output import tables as t
from app.output.tables import Metric
from kernels.contract import TILE_SIZES
from kernels.npu.build import store
from kernels.npu.build.store import BuildError, Program
from kernels.npu.program.memory_map import MemoryMap
from kernels.npu.program.plan import CORE, MEMORY, Plan

REGIONS = (
    "stack", "queries", "input", "keys and values", "output", "state", "scores", "weights", "constants",
)  # fmt: skip
Row = tuple[MemoryMap, int | None]
"""A program's map, and the bytes of stack that a build of it was measured to take."""


def size(nbytes: int) -> str:
    return t.count(nbytes) if nbytes else ""


MAPS: tuple[Metric[Row], ...] = (
    Metric("program", lambda row: row[0].name),
    *(Metric[Row](region, lambda row, region=region: size(row[0].core.of(region))) for region in REGIONS),
    Metric(f"core, of {CORE.memory_bytes:,}", lambda row: size(row[0].core.nbytes)),
    Metric(
        f"memory tile, of {MEMORY.memory_bytes:,}",
        lambda row: size(row[0].memory.nbytes if row[0].memory else 0),
    ),
    Metric("frames", lambda row: t.count(row[1]) if row[1] else "unknown"),
)


def measured_stack(program: Program) -> int | None:
    """Bytes, where a build of the program is on this machine and says it."""
    try:
        about = store.usable(program)[0][1]
    except BuildError:
        return None
    return (about.measured or {}).get("stack_bytes")


def main() -> int:
    programs = [*(Program(Plan(tile_size=size)) for size in TILE_SIZES), Program("int32")]
    rows = [(program.memory_map(), measured_stack(program)) for program in programs]
    print("\n".join(t.markdown(MAPS, rows)))
    excesses = [text for found, _ in rows for text in found.violations()]
    print("\n".join(excesses), file=sys.stderr, end="\n" if excesses else "")
    return 1 if excesses else 0


if __name__ == "__main__":
    sys.exit(main())
