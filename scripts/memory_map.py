"""Print the memory map of every device program: bytes of a core and of a memory tile, and what exceeds the array.

    python scripts/memory_map.py

The score type and the number of columns change no size, so each tile size has one row.
"""

from __future__ import annotations

import sys

from kernels.contract import TILE_SIZES
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


def table(maps: list[memory_map.MemoryMap]) -> str:
    """Markdown, a row for each program."""
    totals = (f"core, of {CORE.memory_bytes:,}", f"memory tile, of {MEMORY.memory_bytes:,}")
    lines = [f"| {' | '.join(('program', *REGIONS, *totals))} |", "|---" + "|---:" * (len(REGIONS) + 2) + "|"]
    for program in maps:
        sizes = [
            *map(program.core.of, REGIONS),
            program.core.nbytes,
            program.memory.nbytes if program.memory else 0,
        ]
        lines.append(f"| {' | '.join((program.name, *(f'{size:,}' if size else '' for size in sizes)))} |")
    return "\n".join(lines)


def main() -> int:
    maps = [memory_map.streaming(Plan(tile_size=size)) for size in TILE_SIZES]
    maps.append(memory_map.single_tile())
    print(table(maps))
    excesses = [text for program in maps for text in program.violations()]
    print("\n".join(excesses), file=sys.stderr, end="\n" if excesses else "")
    return 1 if excesses else 0


if __name__ == "__main__":
    sys.exit(main())
