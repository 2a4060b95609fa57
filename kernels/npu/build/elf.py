"""What the tool chain's ELF files say of a core: bytes of program, of constants, and of each function's stack frame."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

AIE_MACHINE = 264  # e_machine of AI Engine ELF files
STACK_SIZES = ".stack_sizes"  # of -fstack-size-section: functions' addresses, each with its frame in LEB128
_LINKED = 2
_ALLOCATED, _EXECUTABLE = 2, 4


class _Section(NamedTuple):
    name: str
    flags: int
    size: int
    content: bytes


class _File(NamedTuple):
    kind: int
    sections: list[_Section]


def core_sizes(path: Path) -> tuple[int, int] | None:
    """Bytes of a linked core's program, and of its constants and static variables in data memory.

    Stack and buffers are symbols of the linker script without sections of their own, and so do not count. None where
    the file is no linked core (another machine's, not linked, not an ELF file).
    """
    file = _read(path)
    if file is None or file.kind != _LINKED:
        return None
    kept = [section for section in file.sections if section.flags & _ALLOCATED]
    program = sum(section.size for section in kept if section.flags & _EXECUTABLE)
    return program, sum(section.size for section in kept) - program


def frames(path: Path) -> list[int]:
    """Bytes of the stack frame of each function in an object or a linked core; empty where the file does not say."""
    file = _read(path)
    found = [section.content for section in file.sections if section.name == STACK_SIZES] if file else []
    return [frame for content in found for frame in _frames(content)]


def _frames(content: bytes) -> Iterator[int]:
    at = 0
    while at + 4 < len(content):
        at += 4  # the address, of 32 bits, which is the linker's to fill in
        frame = shift = 0
        while at < len(content):
            byte = content[at]
            frame |= (byte & 0x7F) << shift
            shift += 7
            at += 1
            if not byte & 0x80:
                break
        yield frame


def _read(path: Path) -> _File | None:
    """A 32-bit little-endian file for AI Engines; None for anything else."""
    data = path.read_bytes()
    try:
        ident, kind, machine = data[:16], *struct.unpack_from("<HH", data, 16)
        if ident[:6] != b"\x7fELF\x01\x01" or machine != AIE_MACHINE:
            return None
        (table,) = struct.unpack_from("<I", data, 32)
        entry, count, names = struct.unpack_from("<HHH", data, 46)
        headers = [struct.unpack_from("<6I", data, table + i * entry) for i in range(count)]
    except struct.error:
        return None
    start = headers[names][4] if names < count else len(data)
    return _File(
        kind,
        [
            _Section(
                data[start + name :].partition(b"\0")[0].decode("ascii", "replace"),
                flags,
                size,
                data[offset : offset + size],
            )
            for name, _, flags, _, offset, size in headers
        ],
    )
