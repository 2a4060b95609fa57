"""OpenVINO graphs made ready to run, and kept on disk as compiled for a processor.

A kept graph is mapped: it is there in 0.05 s, and its weights as the file has them take no memory once OpenVINO has
rearranged them for its kernels.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from mmap import ACCESS_COPY, MADV_DONTNEED, mmap
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import openvino as ov

from kernels.cache import cache_folder
from kernels.processor import cpuinfo
from models.compute import core, has_bfloat16
from models.weights.building import Model

__all__ = ["Graph", "Graphs"]

_CHECK_BYTES = 4


class Graph:
    """A compiled graph, which may be mapped from a file."""

    def __init__(self, compiled: Any, mapped: mmap | None = None) -> None:
        self._compiled, self._mapped = compiled, mapped

    def request(self) -> Any:
        """An `openvino.InferRequest`, with work space of its own."""
        request = self._compiled.create_infer_request()
        request.graph = self  # OpenVINO goes on reading what is mapped, and does not keep it
        self.forget()
        return request

    def forget(self) -> None:
        """Take what was read of the file out of memory; what is needed again is read again."""
        if self._mapped is not None:
            self._mapped.madvise(MADV_DONTNEED)


class Graphs:
    """Compiles the graphs of one model, or takes those that were compiled before from `graphs` in the cache folder.

    Those of a model that has no SHA-256 are not kept.
    """

    def __init__(self, model: Model, threads: int | None) -> None:
        """Graphs that run on so many threads; as many as there are processors where it is None."""
        self._threads = threads or len(os.sched_getaffinity(0))
        self._folder = None
        if model.sha256 is not None:
            self._folder = cache_folder() / "graphs" / model.sha256[:16] / _processor() / _version()

    def compile(self, name: str, build: Callable[[], Any], *, group_size: int = 0) -> Graph:
        """The graph of that name.

        Args:
            name: which no other of the model's graphs has.
            build: makes it, an `openvino.Model`, where it was not kept.
            group_size: of activations that share a step where they are rounded to INT8 before INT8 weights; 0 leaves
                them as they are.
        """
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self._threads,
            # Runs side by side would pin their threads to the same processors.
            "ENABLE_CPU_PINNING": False,
            # As the graph has it: otherwise OpenVINO would round activations to bfloat16, or to INT8 before INT8
            # weights, and keys and values of the text to 8 bits.
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": group_size,
            "KV_CACHE_PRECISION": "f32",
            # Kernels made for a shape stay otherwise, one set for each length of text and audio, and an hour of live
            # sound has thousands: memory that grows, and no time gained.
            "CPU_RUNTIME_CACHE_CAPACITY": 0,
        }
        path = self._folder / name.replace(" ", "-") if self._folder else None
        if path is not None and (kept := _kept(path, settings)):
            return kept
        compiled = core().compile_model(build(), "CPU", settings)
        if path is not None and _keep(path, compiled) and (kept := _kept(path, settings)):
            return kept
        return Graph(compiled)


def _kept(path: Path, settings: dict[str, Any]) -> Graph | None:
    # OpenVINO raises RuntimeError for a file that it cannot use, which is then made again.
    with suppress(OSError, ValueError, RuntimeError), path.open("rb") as file:
        # OpenVINO asks for an array that could be written to, and would run damaged weights.
        mapped = mmap(file.fileno(), 0, access=ACCESS_COPY)
        content = np.frombuffer(mapped, np.uint8)[:-_CHECK_BYTES]
        if _check(content) != mapped[-_CHECK_BYTES:]:
            return None
        tensor = ov.Tensor(content, shared_memory=True)
        return Graph(core().import_model(tensor, "CPU", settings), mapped)
    return None


def _keep(path: Path, compiled: Any) -> bool:
    """Write a graph, whole or not at all; False where there is no room or no permission, which costs time alone."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.parent.iterdir():
            if other != path.parent:
                shutil.rmtree(other, ignore_errors=True)  # of another version
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                content = compiled.export_model().getbuffer()
                file.write(content)
                file.write(_check(content))
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
        return True
    return False


def _check(content: Any) -> bytes:
    """What tells a damaged file, in 7 ms for tiny.en's; it is no seal."""
    return crc32(content).to_bytes(_CHECK_BYTES, "little")


def _processor() -> str:
    """Of the processor, and of what graphs are built for on it."""
    about = cpuinfo()
    parts = platform.machine(), about.get("model name"), about.get("flags"), has_bfloat16()
    return _digest(repr(parts).encode())


def _version() -> str:
    """Of OpenVINO and of the code that builds graphs."""
    return _digest(
        ov.__version__.encode(), *(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))
    )


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
