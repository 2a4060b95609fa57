"""Durations of repeated work, and the machine that they hold for."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 3
"""Calls before the first that counts: caches, threads, compiled code."""


@dataclass(frozen=True)
class Series:
    """Durations of the same work, in the order they were measured; none is left out.

    Attributes:
        nanoseconds: by the monotonic clock.
    """

    nanoseconds: tuple[int, ...]

    def percentile(self, rank: float) -> float:
        """Seconds; numpy's linear interpolation between the nearest two."""
        return float(np.percentile(self.nanoseconds, rank)) / 1e9

    @property
    def best(self) -> float:
        """Seconds of the shortest."""
        return min(self.nanoseconds) / 1e9

    @property
    def worst(self) -> float:
        """Seconds of the longest."""
        return max(self.nanoseconds) / 1e9

    def to_dict(self) -> dict[str, Any]:
        """Milliseconds, the count, and every duration."""
        return {
            "count": len(self.nanoseconds),
            "p50_ms": self.percentile(50) * 1e3,
            "p95_ms": self.percentile(95) * 1e3,
            "p99_ms": self.percentile(99) * 1e3,
            "min_ms": self.best * 1e3,
            "max_ms": self.worst * 1e3,
            "samples_ns": list(self.nanoseconds),
        }


def time_phases(
    phases: Mapping[str, Callable[[], object]], repeat: int, total: str | None = "total"
) -> dict[str, Series]:
    """Run phases one after the other, again and again, and time each.

    Args:
        phases: in their order; each may use what the one before it left behind.
        repeat: how often, after `WARM_UP` (but at most `repeat`) rounds that are not counted.
        total: name of the sum of all phases; None for no sum.
    """
    taken: dict[str, list[int]] = {name: [] for name in phases}
    for round_ in range(-min(WARM_UP, repeat), repeat):
        for name, work in phases.items():
            start = time.perf_counter_ns()
            work()
            end = time.perf_counter_ns()
            if round_ >= 0:
                taken[name].append(end - start)
    if total is not None and len(phases) > 1:
        taken[total] = [sum(round_) for round_ in zip(*taken.values(), strict=True)]
    return {name: Series(tuple(values)) for name, values in taken.items()}


@dataclass(frozen=True)
class Machine:
    """Where it ran.

    Attributes:
        cpu: the model, as the system names it.
        processors: that this process may use.
        processors_in_all: of the machine.
        system: kernel and architecture.
        versions: of what computes.
    """

    cpu: str
    processors: int
    processors_in_all: int
    system: str
    versions: dict[str, str]


def this_machine() -> Machine:
    """Describe this machine."""
    packages = ("tilescribe", "numpy", "numba", "torch")
    return Machine(
        cpu=_cpu(),
        processors=len(os.sched_getaffinity(0)),
        processors_in_all=os.cpu_count() or 0,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
    )


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
