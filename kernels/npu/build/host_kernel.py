"""The AIE2 source, compiled for the host: the device's own C++ on the CPU, over the device's own buffers.

It is there to check: the source against the reference, and the runtime's buffers against the source. It is slower than
the emulator and is no backend. It needs a C++20 compiler (g++ or clang++), and keeps what it compiles.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.arrays import Bytes
from kernels.cache import cache_folder
from kernels.device import DeviceError
from kernels.npu.program import layout
from kernels.npu.program import plan as p
from kernels.npu.program.plan import Plan
from kernels.processor import cpuinfo

_SOURCE = Path(__file__).parents[1] / "program" / "aie"
_FLAGS = ("-std=c++20", "-O3", "-march=native", "-fPIC", "-shared")


class HostKernel:
    """The AIE2 source on the CPU, with the interface of a device."""

    name = "host"

    def __init__(self) -> None:
        """Compile the source, unless that was done before. Raises `DeviceError` where there is no compiler."""
        self._library = _library()

    def run(
        self,
        operands: c.Operands,
        *,
        scores: c.ScoreType = "int32",
        tile_size: int = c.DEFAULT_TILE_SIZE,
        output_bits: int = 16,
    ) -> npt.NDArray[np.int16]:
        """See `kernels.device.Device`; packs a run's buffers and computes on them."""
        operands.check(tile_size, scores, output_bits)
        layout.check_fits(operands)
        plan = Plan(scores, tile_size)
        rows, width = operands.q.shape[1], operands.v.shape[2]
        split = layout.by_columns(operands)
        heads = len(split.q)
        queries, stream, output = (np.empty(size, np.uint8) for size in plan.buffer_bytes(heads))
        layout.pack_queries(split, output_bits, queries)
        layout.pack_keys_and_values(split, tile_size, stream)
        self.run_buffers(plan, heads, queries, stream, output, rows=rows)
        out = output.view("<i2").reshape(heads, p.PADDED_TOKENS, c.HEAD_DIM)[:, :rows]
        return np.concatenate(np.split(out, width // c.HEAD_DIM), axis=2)

    def run_buffers(
        self,
        plan: Plan,
        heads: int,
        queries: Bytes,
        stream: Bytes,
        output: Bytes,
        *,
        rows: int = p.PADDED_TOKENS,
    ) -> None:
        """A streaming run on the device's own buffers, packed by `layout` and as long as `plan.buffer_bytes` says.

        Only the blocks with these leading rows of each head are computed (the device computes all).

        Raises:
            DeviceError: a buffer has another size, or the source did what the device does not do.
        """
        buffers = (queries, stream, output)
        for buffer, size in zip(buffers, plan.buffer_bytes(heads), strict=True):
            if buffer.dtype != np.uint8 or buffer.size != size or not buffer.flags.c_contiguous:
                raise DeviceError(f"a buffer of {buffer.size} bytes, where the run has {size}")
        self._call(
            self._library.host_stream,
            int(plan.scores == "int8"),
            plan.tile_size,
            heads,
            -(-rows // p.ROWS_PER_CORE),
            p.PADDED_TOKENS // p.ROWS_PER_CORE,
            plan.tiles,
            p.QUERY_BLOCK_BYTES,
            plan.key_value_bytes,
            p.OUTPUT_BLOCK_BYTES,
            *plan.work,
            buffers=buffers,
        )

    def run_single(self, scores: c.ScoreType, data: Bytes, output: Bytes) -> None:
        """A single-tile run on the device's own buffers: Q, K and V, row-major INT8, 64 x 64 each; and the output.

        Raises:
            DeviceError: a buffer has another size, or the source did what the device does not do.
        """
        if data.size != p.SINGLE_TILE_INPUT_BYTES or output.size != p.SINGLE_TILE_OUTPUT_BYTES:
            raise DeviceError(
                f"a single tile: {p.SINGLE_TILE_INPUT_BYTES} bytes in, {p.SINGLE_TILE_OUTPUT_BYTES} out"
            )
        matrices = data.view(np.int8).reshape(3, p.SINGLE_TILE, c.HEAD_DIM)
        cut = [
            layout.blocked(matrix, rows, 8).ravel() for matrix, rows in zip(matrices, (4, 8, 4), strict=True)
        ]
        self._call(self._library.host_single, int(scores == "int8"), buffers=(np.concatenate(cut), output))

    def _call(self, function: Any, *numbers: int, buffers: Iterable[npt.NDArray[Any]]) -> None:
        function.restype = ctypes.c_char_p
        refusal = function(*numbers, *(buffer.ctypes.data_as(ctypes.c_void_p) for buffer in buffers))
        if refusal is not None:
            raise DeviceError(f"the AIE2 source does what the device does not: {refusal.decode()}")


def compiler() -> str | None:
    """The C++ compiler to use: `$CXX`, g++ or clang++; None where there is none."""
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        if name and shutil.which(name):
            return name
    return None


@cache
def _library() -> ctypes.CDLL:
    chosen = compiler()
    if chosen is None:
        raise DeviceError("there is no C++ compiler here; install g++ or clang++ to check the AIE2 source")
    path = cache_folder() / "host" / f"{_key(chosen)}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built = Path(folder) / "host.so"
            host = _SOURCE / "host"
            command = [chosen, *_FLAGS, "-I", str(host), str(host / "host.cc"), "-o", str(built)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["no message"]
                error = next((line for line in lines if "error" in line), lines[0])
                raise DeviceError(f"{chosen} cannot compile the AIE2 source: {error}")
            built.replace(path)
    return ctypes.CDLL(str(path))


def _key(chosen: str) -> str:
    """What the library depends on: the sources, the flags, the compiler and the processor it compiles for."""
    digest = hashlib.sha256(" ".join(_FLAGS).encode())
    for source in sorted(_SOURCE.rglob("*")):
        if source.suffix in (".cc", ".hpp"):
            digest.update(source.read_bytes())
    digest.update(subprocess.run([chosen, "--version"], capture_output=True, check=False).stdout)
    about = cpuinfo()
    digest.update(f"{platform.machine()}{about.get('flags') or about.get('Features')}".encode())
    return digest.hexdigest()[:32]
