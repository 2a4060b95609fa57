"""Sizes of a core's program, read from the ELF file that the tool chain links: what the memory map can only assume."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

AIE_MACHINE = 264
"""e_machine of AI Engine files."""

_ALLOCATED, _EXECUTABLE = 2, 4


@dataclass(frozen=True)
class CoreSizes:
    """Bytes of a core's program memory, and of its data memory that hold constants and static variables."""

    program_bytes: int
    constant_bytes: int


def core_sizes(path: Path) -> CoreSizes | None:
    """Sizes of a linked core; None where the file is not one (another machine's, not linked, not an ELF file).

    Stack and buffers are symbols of the linker script without sections of their own, and so do not count.
    """
    data = path.read_bytes()
    try:
        ident, kind, machine = data[:16], *struct.unpack_from("<HH", data, 16)
        if ident[:6] != b"\x7fELF\x01\x01" or kind != 2 or machine != AIE_MACHINE:
            return None
        (table,) = struct.unpack_from("<I", data, 32)
        entry, count = struct.unpack_from("<HH", data, 46)
        program = constants = 0
        for i in range(count):
            _, _, flags, _, _, size = struct.unpack_from("<6I", data, table + i * entry)
            if flags & _ALLOCATED:
                program += size if flags & _EXECUTABLE else 0
                constants += 0 if flags & _EXECUTABLE else size
    except struct.error:
        return None
    return CoreSizes(program, constants)
