"""What figures were measured with: the processor, the threads, the packages."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

from kernels.processor import cpuinfo

PACKAGES = ("tilescribe", "torch", "openvino", "openai-whisper", "numpy", "numba")
"""Whose versions a transcript may depend on."""


def versions() -> dict[str, str]:
    """Of Python and of `PACKAGES`."""
    return {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}


def processor() -> str:
    """The processor's name."""
    return cpuinfo().get("model name") or platform.processor() or platform.machine()


def available_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
