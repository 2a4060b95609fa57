"""What figures were measured with: the processor, the threads, the packages."""

from __future__ import annotations

import os
import platform

from kernels.processor import cpuinfo

PACKAGES = ("tilescribe", "torch", "openvino", "openai-whisper", "numpy", "numba")
"""Whose versions a transcript may depend on."""


def processor() -> str:
    """The processor's name."""
    return cpuinfo().get("model name") or platform.processor() or platform.machine()


def available_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
