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

# glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def versions() -> dict[str, str]:
    """Of Python and of `PACKAGES`."""
    return {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}


def processor() -> str:
    """The processor's name."""
    return cpuinfo().get("model name") or platform.processor() or platform.machine()


def available_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def share_one_heap() -> None:
    """Let glibc keep what one window took for the next, in one heap of all threads; call it before there are any.

    Otherwise it gives much back at once, and memory that the system has to clear anew takes a tenth of the time of
    what is computed in it; and each thread has a heap of its own, which keeps what it has.
    """
    with suppress(AttributeError):  # another C library
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 128 << 20)):
            ctypes.CDLL(None).mallopt(option, value)


def give_memory_back() -> None:
    """Return to the system what is free in the heap, in a process of hours."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
