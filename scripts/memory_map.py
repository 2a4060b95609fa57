"""Print the memory map of every device program: bytes of a core and of a memory tile, and what exceeds the array.

    python scripts/memory_map.py

The score type and the number of columns change no size, so each tile size has one row. `frames` is what a build
measured of the stack that is kept, `unknown` until Peano has compiled the program on this machine.
"""

from __future__ import annotations

import sys

from kernels.contract import TILE_SIZES
from kernels.npu.build import store
from kernels.npu.build.store import BuildError, Program
from kernels.npu.program import memory_map
from kernels.npu.program.plan import CORE, MEMORY, Plan

REGIONS = (
    "stack",
    "queries",
    "input",
    "keys and values",
    "output",
    "state",
    "logits",
    "weights",
    "constants",
)


def table(maps: dict[memory_map.MemoryMap, int | None]) -> str:
    """Markdown, a row for each program, with what its stack was measured to take."""
    totals = (f"core, of {CORE.memory_bytes:,}", f"memory tile, of {MEMORY.memory_bytes:,}")
    head = ("program", *REGIONS, *totals, "frames")
    lines = [f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for program, frames in maps.items():
        sizes = [
            *map(program.core.of, REGIONS),
            program.core.nbytes,
            program.memory.nbytes if program.memory else 0,
        ]
        cells = [f"{size:,}" if size else "" for size in sizes]
        cells.append(f"{frames:,}" if frames else "unknown")
        lines.append(f"| {' | '.join((program.name, *cells))} |")
    return "\n".join(lines)


def measured_stack(program: Program) -> int | None:
    """Bytes, where a build of the program is on this machine and says it."""
    try:
        about = store.usable(program)[0][1]
    except BuildError:
        return None
    return (about.measured or {}).get("stack_bytes")


def main() -> int:
    programs = [*(Program(Plan(tile_size=size)) for size in TILE_SIZES), Program("int32")]
    maps = {program.memory_map(): measured_stack(program) for program in programs}
    print(table(maps))
    excesses = [text for program in maps for text in program.violations()]
    print("\n".join(excesses), file=sys.stderr, end="\n" if excesses else "")
    return 1 if excesses else 0


if __name__ == "__main__":
    sys.exit(main())
