"""Machine code as LLVM writes it to a file (an ELF object of x86-64), put into memory by itself.

It takes no linker, and no LLVM: its code model is the large one, so that a reference is always a whole address.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from typing import NamedTuple

__all__ = ["ForeignCodeError", "load"]

_WHOLE_ADDRESS = 1  # R_X86_64_64
_PROGRAM, _SYMBOLS, _RELOCATIONS, _UNDEFINED, _COMMON = 1, 2, 4, 0, 0xFFF2
_IN_MEMORY = 2
_HEADER, _SYMBOL, _RELOCATION = (struct.Struct(form) for form in ("<IIQQQQIIQQ", "<IBBHQQ", "<QQq"))
_ALIGNMENT = 64
_ALLOCATIONS = "NRT_MemInfo_alloc"
_PROTECTION = mmap.PROT_READ | mmap.PROT_EXEC

_loaded: list[mmap.mmap] = []


class ForeignCodeError(ValueError):
    """Code that refers to other code in a way that is not known here."""


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry: int


def load(code: bytes, name: str) -> int:
    """Put an object into memory for as long as the process lives; returns the address of its function `name`.

    What it takes from elsewhere is the C library's or Python's. Names that neither has are those of numba's errors,
    which its functions come to where they fail.

    Raises:
        ForeignCodeError: it refers to other code in a way that is not known here.
        ValueError: it is no such object, or it has no such function.
        OSError: the system lets no process make code.
    """
    try:
        return _load(code, name)
    except (struct.error, IndexError) as error:
        raise ValueError("no object of x86-64's large code model") from error


def _load(code: bytes, name: str) -> int:
    sections = _sections(code)
    placed, end = {}, 0
    for number, section in enumerate(sections):
        if section.kind == _PROGRAM and section.flags & _IN_MEMORY:
            placed[number] = end
            end += -(-section.size // _ALIGNMENT) * _ALIGNMENT
    (table,) = (section for section in sections if section.kind == _SYMBOLS)
    symbols = [_SYMBOL.unpack_from(code, at) for at in _each(table, _SYMBOL)]
    common = sum(1 for symbol in symbols if symbol[3] == _COMMON)
    memory = mmap.mmap(-1, end + _ALIGNMENT * common)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for number, place in placed.items():
        section = sections[number]
        memory[place : place + section.size] = code[section.offset : section.offset + section.size]

    library, addresses, names = ctypes.CDLL(None), [], sections[table.link].offset
    for where, _, _, number, value, _ in symbols:
        text = code[names + where : code.index(b"\0", names + where)].decode()
        if number == _UNDEFINED:
            if text.startswith(_ALLOCATIONS):
                raise ValueError("it allocates, which takes numba's memory")
            there = getattr(library, text, None) if text else None
            addresses.append((text, ctypes.cast(there, ctypes.c_void_p).value or 0 if there else 0))
        elif number == _COMMON:
            addresses.append((text, start + end))
            end += _ALIGNMENT
        else:
            addresses.append((text, start + placed.get(number, 0) + value))
    for section in sections:
        if section.kind != _RELOCATIONS or section.info not in placed:
            continue
        for at in _each(section, _RELOCATION):
            offset, about, more = _RELOCATION.unpack_from(code, at)
            if about & 0xFFFFFFFF != _WHOLE_ADDRESS:
                raise ForeignCodeError(f"a reference of kind {about & 0xFFFFFFFF}")
            struct.pack_into("<q", memory, placed[section.info] + offset, addresses[about >> 32][1] + more)

    _loaded.append(memory)
    protect = library.mprotect
    protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    if protect(start, len(memory), _PROTECTION):
        raise OSError("memory cannot be made code")
    found = dict(addresses).get(name)
    if found is None:
        raise ValueError(f"there is no {name}")
    return found


def _sections(code: bytes) -> list[_Section]:
    if code[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no object of x86-64")
    (first,) = struct.unpack_from("<Q", code, 0x28)
    size, count = struct.unpack_from("<HH", code, 0x3A)
    return [_Section(*_HEADER.unpack_from(code, first + i * size)) for i in range(count)]


def _each(section: _Section, entry: struct.Struct) -> range:
    return range(section.offset, section.offset + section.size, entry.size)
