"""What a bench run was asked for and what it found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from app.evaluation.bench import encoders
from app.evaluation.bench.measuring import Machine, Series
from kernels.contract import ScoreType
from kernels.device import DeviceName
from kernels.npu import cost
from kernels.npu.cost_assumptions import ASSUMPTIONS, VECTOR_COUNTS
from kernels.npu.program.plan import Plan

SCHEMA_VERSION = 1

Backend = Literal["int32", "int8", "cpu"]
BACKENDS: tuple[Backend, ...] = ("int32", "int8", "cpu")
KERNELS: tuple[ScoreType, ...] = ("int32", "int8")

What = Literal["host", "tile", "smallest run", "layer", "encoder"]


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        model: a name or path of weights; its heads and layers set the sizes.
        backends: `int32`, `int8`, and `cpu` (FP32, encoder windows alone) to compare with.
        device: where the integer kernels run.
        tile_sizes: keys per tile.
        threads: worker threads; None for as many as there are processors.
        batches: windows at once.
        tiles: tiles that are timed, one by one.
        repeat: how often a layer and a window are timed.
        model_only: measure the host's part alone, and print the cost model.
    """

    model: str = "base"
    backends: tuple[Backend, ...] = ("int32", "int8")
    device: DeviceName = "auto"
    tile_sizes: tuple[int, ...] = (64,)
    threads: tuple[int | None, ...] = (None,)
    batches: tuple[int, ...] = (1,)
    tiles: int = 200
    repeat: int = 5
    model_only: bool = False


@dataclass(frozen=True)
class Measurement:
    """Durations of one piece of work in one setting.

    Attributes:
        what: the host's part of a layer on the array (whatever the device is), a tile (64 rows, one tile of keys, one
            head), the smallest run that there is (NPU alone), a layer (all heads, 1500 tokens), or a window through
            the whole encoder.
        backend: the arithmetic.
        tile_size: keys per tile; None for `cpu`.
        threads: worker threads.
        batch: windows at once.
        phases: durations by name, and those that the device tells of itself as `device: ...`.
        tiles: tiles of 64 rows in one `run`; 0 where they were not run by themselves.
    """

    what: What
    backend: Backend
    tile_size: int | None
    threads: int
    batch: int
    phases: dict[str, Series]
    tiles: int = 0

    @property
    def tiles_per_second(self) -> float | None:
        """At the median duration of `run`."""
        return self.tiles / self.phases["run"].percentile(50) if self.tiles else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "what": self.what,
            "backend": self.backend,
            "tile_size": self.tile_size,
            "threads": self.threads,
            "batch": self.batch,
            "tiles": self.tiles,
            "tiles_per_second": self.tiles_per_second,
            "phases": {name: series.to_dict() for name, series in self.phases.items()},
        }


@dataclass(frozen=True)
class WindowEnergy:
    """Energy of an encoder window.

    Attributes:
        backend: the arithmetic.
        tile_size: keys per tile; None for `cpu`.
        threads: worker threads.
        batch: windows at once.
        windows: that were encoded while it was measured.
        joules: of one window, all that the meter saw.
        joules_over_idle: of one window, less the idle power.
    """

    backend: Backend
    tile_size: int | None
    threads: int
    batch: int
    windows: int
    joules: float
    joules_over_idle: float


@dataclass(frozen=True)
class Energy:
    """What the meter saw.

    Attributes:
        meter: what was read; None where there is none.
        reason: why there is none, or why it stopped.
        idle_watts: before anything ran; None without a meter.
        windows: energy of each setting.
    """

    meter: str | None
    reason: str = ""
    idle_watts: float | None = None
    windows: tuple[WindowEnergy, ...] = ()


@dataclass
class BenchResult:
    """Everything that one bench run found; filled in as it goes, so that an interrupted one holds what there is.

    Attributes:
        options: what was asked for.
        machine: where it ran.
        stack: the encoder's attention.
        device: the device's name; None with `model_only`.
        device_reason: why it is this device.
        measurements: in the order they were made.
        skipped: what was left out, and why, a line each.
        energy: per encoder window; None before it was looked for.
        host: the CPU's part of a run on the array, for the cost model.
        interrupted: whether Ctrl-C ended it.
    """

    options: Options
    machine: Machine
    stack: cost.Stack
    device: str | None = None
    device_reason: str = ""
    measurements: list[Measurement] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    energy: Energy | None = None
    host: cost.HostCost = field(default_factory=cost.HostCost)
    interrupted: bool = False

    @property
    def plan(self) -> Plan:
        """The plan that the cost model is printed for: the first kernel and tile size asked for, all columns."""
        scores = next((b for b in self.options.backends if b in KERNELS), "int32")
        return Plan("int8" if scores == "int8" else "int32", self.options.tile_sizes[0])

    def costs(self) -> tuple[cost.WindowCost, ...]:
        """The cost model of every size of Whisper, with this machine's host costs where they were measured."""
        return tuple(cost.window(stack, self.plan, self.host) for stack in encoders.every())

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "device": self.device,
            "device_reason": self.device_reason,
            "measured_on_npu": self.device == "npu",
            "machine": asdict(self.machine),
            "options": asdict(self.options),
            "interrupted": self.interrupted,
            "measurements": [measurement.to_dict() for measurement in self.measurements],
            "skipped": self.skipped,
            "energy": asdict(self.energy) if self.energy else None,
            "cost_model": {
                "note": cost.WARNING,
                "plan": self.plan.name,
                "host": asdict(self.host),
                "windows": [window.to_dict() for window in self.costs()],
                "plans": [cost.window(self.stack, plan, self.host).to_dict() for plan in cost.plans()],
                "one_dispatch_per_tile": asdict(cost.per_tile(self.stack)),
                "assumptions": [asdict(assumption) for assumption in ASSUMPTIONS],
                "vector_counts": {
                    of: [asdict(count) for count in counts] for of, counts in VECTOR_COUNTS.items()
                },
            },
        }
