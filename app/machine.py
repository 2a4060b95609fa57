"""What figures were measured with: the processor, the threads, the packages."""

from __future__ import annotations

import os
import platform
from pathlib import Path

PACKAGES = ("tilescribe", "torch", "openvino", "openai-whisper", "numpy", "numba")
"""Whose versions a transcript may depend on."""


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def available_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
