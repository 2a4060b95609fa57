"""Programs of the stand-ins: xclbin files that XRT itself takes, whose configuration of the array says what to compute.

The file is a header and sections (Xilinx/XRT, src/runtime_src/core/include/xrt/detail/xclbin.h). Kernel, arguments and
memories are those that mlir-aie packs (python/compiler/aiecc): opcode, instructions, their length, five buffers. An
instruction stream is `INSTRUCTIONS`, the number of heads, and the program's key.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import numpy as np

from kernels.npu.build.store import Program
from kernels.npu.program import plan as p

MAGIC = b"xclbin2\x00"
INSTRUCTIONS = np.array([0x06030100, 0x00000104, 0x7469_6C65], "<u4")
KERNEL = "MLIR_AIE"
_MARK = b"stands in:"
_KERNEL_ID = 0x901


def xclbin(program: Program, *, kernel: str = KERNEL, arguments: int = 8) -> bytes:
    """The file of a program, whose kernel has this name and so many arguments."""
    about = {"program": program.name, "kernel": kernel, "arguments": arguments}
    configuration = _parameters(program) + _MARK + json.dumps(about).encode() + b"\n"
    host, sram = (struct.pack("<BB6xQQ16s", 2, 1, *size, tag) for size, tag in _MEMORIES)
    memories = struct.pack("<i4x", 2) + host + sram
    buffers = [index for index in range(arguments) if index not in (0, 2)]
    connections = b"".join(struct.pack("<3i", index, 0, int(index == 1)) for index in buffers)
    connectivity = struct.pack("<i", len(buffers)) + connections
    unit = struct.pack("<IHHQ64s", 7, 1, _KERNEL_ID, 0xFFFFFFFFFFFFFFFF, f"{kernel}:{kernel}".encode())
    sections = {
        2: _metadata(kernel, arguments).encode(),
        6: memories,
        7: connectivity,
        8: struct.pack("<i4x", 1) + unit,
        26: memories,
        27: connectivity,
        32: _partition(configuration),
    }
    headers, data = b"", b""
    begin = 456 + 40 * len(sections)
    for kind, section in sections.items():
        headers += struct.pack("<I16s4xQQ", kind, b"", begin + len(data), len(section))
        data += section + bytes(-len(section) % 8)
    unique = hashlib.sha256(headers + data).digest()[:16]
    length = begin + len(data)
    header = struct.pack(
        "<QQQHBBHH16s64s16s16sI4x", length, 0, 0, 0, 2, 1, 0, 0, b"", b"", unique, b"", len(sections)
    )
    return MAGIC + struct.pack("<i", -1) + b"\xff" * 284 + struct.pack("<Q", 0) + header + headers + data


_MEMORIES = (((0x10000, 0x4000000), b"HOST"), ((0xC000, 0x4000000), b"SRAM"))


def read(data: bytes) -> dict[str, Any]:
    """What a file of `xclbin` says of itself: program, kernel, arguments."""
    about: dict[str, Any] = json.loads(data.partition(_MARK)[2].partition(b"\n")[0])
    return about


def instructions(program: Program, heads: int) -> bytes:
    """The instruction stream of a run (0 heads: of a single tile)."""
    return np.concatenate([INSTRUCTIONS, np.array([heads, *key(program.name)], "<u4")]).tobytes()


def key(name: str) -> list[int]:
    """Tells instructions of one program from those of another."""
    return list(hashlib.sha256(name.encode()).digest()[:4])


def _parameters(program: Program) -> bytes:
    """The struct `Program` of amdxdna.cc: the arguments of host.cc's functions."""
    plan, blocks = program.plan, p.PADDED_TOKENS // p.ROWS_PER_CORE
    numbers = [0] * 9
    if plan:
        sizes = (p.QUERY_BLOCK_BYTES, plan.key_value_bytes, p.OUTPUT_BLOCK_BYTES)
        numbers = [blocks, blocks, plan.tiles, *sizes, *plan.work]
    tile_size = plan.tile_size if plan else p.SINGLE_TILE
    fields = [*key(program.name), int(not plan), int(program.scores == "int8"), tile_size, *numbers]
    return struct.pack(f"<{len(fields)}i", *fields)


def _metadata(kernel: str, arguments: int) -> str:
    lines, offset = [], 0
    for index in range(arguments):
        name, kind, size, where = {
            0: ("opcode", "uint64_t", 8, 0),
            1: ("instr", "char *", 8, 1),
            2: ("ninstr", "uint32_t", 4, 0),
        }.get(index, (f"bo{index - 3}", "void*", 8, 1))
        lines.append(
            f'<arg name="{name}" addressQualifier="{where}" id="{index}" size="0x{size:x}" offset="0x{offset:x}" '
            f'hostOffset="0x0" hostSize="0x{size:x}" type="{kind}"/>'
        )
        offset += size
    extended = f'<extended-data subtype="1" functional="0" dpu_kernel_id="0x{_KERNEL_ID:x}"/>'
    return (
        f'<project name="standin"><platform><device><core><kernel name="{kernel}" language="c" type="dpu">'
        f'{extended}{"".join(lines)}<instance name="{kernel}"/></kernel></core></device></platform></project>'
    )


def _partition(configuration: bytes) -> bytes:
    """One partition of four columns with one configuration: header, first column, its table, its group, its kernel."""
    column, pdi, group, kernel, image = 184, 192, 288, 384, 392
    header = struct.pack("<B3xII4xQQ", 0, image, 2048, 0, 0)
    width = struct.pack("<H6xII72x", 4, 1, column)
    tables = (
        struct.pack("<IIQ48x", 1, pdi, 0),
        struct.pack("<H6x", 1),
        struct.pack("<16sIIII64x", b"", len(configuration), image + 8, 1, group),
        struct.pack("<IB3xQIIII64x", image, 1, 1, 1, kernel, 0, 0),
        struct.pack("<Q", _KERNEL_ID),
        b"standin\x00",
    )
    return header + width + b"".join(tables) + configuration
