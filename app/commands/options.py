"""Options that several commands have: their choices, and what they mean."""

from __future__ import annotations

import sys
from enum import StrEnum


class DeviceChoice(StrEnum):
    """Where the integer kernels run."""

    AUTO = "auto"
    NPU = "npu"
    EMULATOR = "emulator"


class ComputeTypeChoice(StrEnum):
    """What the matrix products outside the integer attention are computed in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


class TileSize(StrEnum):
    """Keys per tile."""

    SMALL = "64"
    MEDIUM = "128"
    LARGE = "256"


def temperatures(first: float, step: float | None) -> float | tuple[float, ...]:
    """The first temperature and those that follow it up to 1, as openai-whisper's command has them."""
    if not step:
        return first
    count = max(0, int((1.0 - first) / step + 1e-6))
    return tuple(round(first + i * step, 6) for i in range(count + 1))


def wants_bar(progress: bool | None, quiet: bool) -> bool:
    """Whether to draw a progress bar: as asked, else on a terminal unless notes are to be left out."""
    return sys.stderr.isatty() and not quiet if progress is None else progress
