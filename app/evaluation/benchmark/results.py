"""What a bench run was asked for and what it found: the objects of its JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from app.evaluation.benchmark import encoders
from app.machine import available_threads, processor, versions
from kernels.backends import DEFAULT, TILE_BACKENDS, find
from kernels.contract import DEFAULT_TILE_SIZE, ScoreType
from kernels.device import DeviceName
from kernels.npu import cost
from kernels.npu.cost_assumptions import ASSUMPTIONS, VECTOR_COUNTS
from kernels.npu.program.plan import Plan

SCHEMA_VERSION = 1


class Options(msgspec.Struct, frozen=True):
    """What to measure.

    Attributes:
        model: whose heads and layers set the sizes.
        backends: tile kernels, and `cpu` (FP32, encoder windows alone) to compare with.
        threads: None for as many as there are processors.
        batches: windows at once.
        tiles: that are timed, one by one.
        repeat: how often a layer and a window are timed.
        model_only: measure the host's part alone, for the cost model.
    """

    model: str = "base"
    backends: tuple[str, ...] = TILE_BACKENDS
    device: DeviceName = "auto"
    tile_sizes: tuple[int, ...] = (DEFAULT_TILE_SIZE,)
    threads: tuple[int | None, ...] = (None,)
    batches: tuple[int, ...] = (1,)
    tiles: int = 200
    repeat: int = 5
    model_only: bool = False

    @property
    def kernels(self) -> tuple[str, ...]:
        """Those of the backends that are tile kernels."""
        return tuple(name for name in self.backends if name in TILE_BACKENDS)


class Machine(msgspec.Struct, frozen=True):
    """This machine: its processors, of which this process may use some, and the versions of what computes."""

    cpu: str = msgspec.field(default_factory=processor)
    processors: int = msgspec.field(default_factory=available_threads)
    processors_in_all: int = os.cpu_count() or 0
    system: str = f"{platform.system()} {platform.release()} {platform.machine()}"
    versions: dict[str, str] = msgspec.field(default_factory=versions)


class Series(msgspec.Struct, frozen=True):
    """Durations of the same work, in the order they were measured; none is left out.

    Percentiles are numpy's, interpolated linearly between the nearest two; `samples_ns` are by the monotonic clock.

    Attributes:
        cpu_ms: the mean of what all of the process' threads computed in it; None where that was not measured.
        cpu_per_minute: seconds of CPU per minute of audio, where it is work on audio.
    """

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float
    samples_ns: tuple[int, ...]
    cpu_ms: float | None = None
    cpu_per_minute: float | None = None

    @classmethod
    def of(
        cls, nanoseconds: Sequence[int], cpu: Sequence[int] = (), audio_seconds: float | None = None
    ) -> Series:
        """The series of these durations, with the CPU's nanoseconds in them, and the audio that each was work on."""
        p50, p95, p99, least, most = (np.percentile(nanoseconds, [50, 95, 99, 0, 100]) / 1e6).tolist()
        cpu_ms = float(np.mean(cpu)) / 1e6 if cpu else None
        per_minute = cpu_ms * 60e-3 / audio_seconds if cpu_ms is not None and audio_seconds else None
        return cls(len(nanoseconds), p50, p95, p99, least, most, tuple(nanoseconds), cpu_ms, per_minute)


class Setting(msgspec.Struct):
    """What a piece of work is measured with; `tile_size` is None for `cpu`."""

    backend: str
    tile_size: int | None
    threads: int
    batch: int = 1

    def __str__(self) -> str:
        return f"{self.backend}, {self.tile_size or '-'} keys, batch {self.batch}, threads {self.threads}"


class Measurement(Setting, kw_only=True):
    """Durations of one piece of work in one setting.

    Attributes:
        what: `host` (the host's part of a layer on the array, whatever the device is), `tile` (64 rows, one tile of
            keys, one head), `smallest run` (NPU alone), `layer` (all heads, 1500 tokens), or `encoder`, a window
            through the whole of it.
        phases: durations by name, and those that the device tells of itself as `device: ...`.
        tiles: tiles of 64 rows in one `run`; 0 where they were not run by themselves.
        tiles_per_second: at the median duration of `run`.
    """

    what: str
    phases: dict[str, Series]
    tiles: int = 0
    tiles_per_second: float | None = None

    def __post_init__(self) -> None:
        if self.tiles:
            self.tiles_per_second = 1e3 * self.tiles / self.phases["run"].p50_ms


class WindowEnergy(Setting, kw_only=True):
    """Energy of one encoder window, of the `windows` that were measured: all that the meter saw, and that over idle."""

    windows: int
    joules: float
    joules_over_idle: float


class Energy(msgspec.Struct):
    """What the meter saw; `reason` is why there is none or why it stopped, `idle_watts` are of before any work."""

    meter: str | None = None
    reason: str = ""
    idle_watts: float | None = None
    windows: list[WindowEnergy] = []


class BenchResult(msgspec.Struct):
    """Everything that one bench run found; filled in as it goes, so that an interrupted one holds what there is.

    Attributes:
        device: None with `model_only`.
        skipped: what was left out, and why, a line each.
        energy: None before it was looked for.
        host: the CPU's part of a run on the array, for the cost model.
        interrupted: whether Ctrl-C ended it.
    """

    options: Options
    machine: Machine
    stack: cost.Stack
    device: str | None = None
    device_reason: str = ""
    measurements: list[Measurement] = []
    skipped: list[str] = []
    energy: Energy | None = None
    host: cost.HostCost = cost.HostCost()
    interrupted: bool = False

    @property
    def plan(self) -> Plan:
        """The plan that the cost model is printed for: the first kernel and tile size asked for, all columns."""
        return Plan(scores_of([*self.options.kernels, DEFAULT][0]), self.options.tile_sizes[0])

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it, with the cost model of every size of Whisper."""
        windows = [cost.window(stack, self.plan, self.host) for stack in encoders.every()]
        plans = [cost.window(self.stack, plan, self.host) for plan in cost.plans()]
        found = msgspec.to_builtins(self)
        del found["stack"]
        model = {
            "note": cost.WARNING,
            "plan": self.plan.name,
            "host": found.pop("host"),
            "windows": [window.to_dict() for window in windows],
            "plans": [window.to_dict() for window in plans],
            "one_dispatch_per_tile": cost.per_tile(self.stack),
            "assumptions": ASSUMPTIONS,
            "vector_counts": VECTOR_COUNTS,
        }
        return {
            "schema_version": SCHEMA_VERSION,
            **found,
            "measured_on_npu": self.device == "npu",
            "cost_model": msgspec.to_builtins(model),
        }


def scores_of(kernel: str) -> ScoreType:
    """What holds a tile kernel's scores."""
    scores = find(kernel).scores
    assert scores is not None, kernel
    return scores
