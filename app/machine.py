"""The machine: what figures are measured with (processor, threads, packages), and its memory."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress
from importlib.metadata import version

from kernels.processor import cpuinfo

PACKAGES = ("tilescribe", "torch", "openvino", "openai-whisper", "numpy", "numba")
"""Whose versions a transcript may depend on."""

_MMAP_THRESHOLD = -3  # glibc's malloc.h


def versions() -> dict[str, str]:
    """Of Python and of `PACKAGES`."""
    return {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}


def processor() -> str:
    """The processor's name."""
    return cpuinfo().get("model name") or platform.processor() or platform.machine()


def available_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def give_memory_back() -> None:
    """Let glibc return to the system what windows took, for a process of hours: by itself it keeps it."""
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 20)
