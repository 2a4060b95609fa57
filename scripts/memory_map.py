"""Print the memory map of every device program: bytes of a core and of a memory tile, and what exceeds the array.

    python scripts/memory_map.py

The score type and the number of columns change no size, so each tile size has one row.
"""

from __future__ import annotations

import sys

from kernels.contract import TILE_SIZES
from kernels.npu.program import memory_map
from kernels.npu.program.plan import Plan


def main() -> int:
    maps = [memory_map.streaming(Plan(tile_size=size)) for size in TILE_SIZES]
    maps.append(memory_map.single_tile())
    print(memory_map.table(maps))
    excesses = [text for program in maps for text in program.violations()]
    print("\n".join(excesses), file=sys.stderr, end="\n" if excesses else "")
    return 1 if excesses else 0


if __name__ == "__main__":
    sys.exit(main())
