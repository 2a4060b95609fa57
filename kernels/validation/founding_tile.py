"""How near each kernel comes to FP32 attention on the test data of the report that the legacy kernels come from.

One tile of 64 x 64 random integers is a check that a kernel computes what it should. It says nothing about words: the
report's own kernel passes its targets here, and fails as a Whisper encoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from kernels import backends, legacy
from kernels import contract as c
from kernels.device import Device
from kernels.npu.program.plan import SINGLE_TILE, SINGLE_TILE_KEY_MULTIPLIER, SINGLE_TILE_LOGIT
from kernels.validation.accuracy import (
    INT8_STEP,
    Accuracy,
    Float,
    ScoreRange,
    accuracy,
    natural_scores,
    score_range,
)
from kernels.validation.batch import TILES, BatchResult, Progress, run_batch
from kernels.workers import Workers

SCHEMA_VERSION = 1


REPORT_SEED = 42
REPORT_CORRELATION = 0.70
"""The report's target."""
REPORT_BASELINE = 0.123
"""The correlation that the report gives for the kernel before; its second target is twice that."""
CORRELATION = 0.999
"""This project's target for `int32` on the same data."""

Int8 = npt.NDArray[np.int8]


@runtime_checkable
class SingleTile(Protocol):
    """A device with a run of its own for one tile."""

    def run_single(self, scores: c.ScoreType, q: Int8, k: Int8, v: Int8) -> Int8:
        """The report's run: INT8, shape (64, 64), from INT8 of that shape."""
        ...


@dataclass(frozen=True)
class Target:
    """A limit and what came out.

    Attributes:
        name: what is measured.
        wanted: the limit, in words.
        found: the measurement, in words.
        passed: whether it was met.
    """

    name: str
    wanted: str
    found: str
    passed: bool


@dataclass(frozen=True)
class TileResult:
    """One kernel on the report's tile.

    Attributes:
        kernel: its name.
        shift: of the scores, where it is a legacy kernel.
        device: what ran it: `emulator` or `npu`.
        accuracy: against FP32.
        scores: their range, and what INT8 clips.
        report_targets: the report's.
        targets: this project's. `int8` has none: it is not made for scores of this size.
        output: float64, shape (64, 64).
        reference: float64, shape (64, 64).
        natural_scores: float64, shape (64, 64), before any clipping.
    """

    kernel: str
    shift: int | None
    device: str
    accuracy: Accuracy
    scores: ScoreRange
    report_targets: tuple[Target, ...]
    targets: tuple[Target, ...]
    output: Float = field(repr=False, compare=False)
    reference: Float = field(repr=False, compare=False)
    natural_scores: Float = field(repr=False, compare=False)

    @property
    def label(self) -> str:
        """The kernel's name, with its shift where it is not the documented one."""
        return f"{self.kernel}, shift {self.shift}" if self.shift not in (None, legacy.SHIFT) else self.kernel

    @property
    def passed(self) -> bool:
        """Whether the kernel's own targets are met: this project's, or of the legacy kernels the report's."""
        judged = self.report_targets if self.kernel.startswith("legacy-") else self.targets
        return all(target.passed for target in judged)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, without the arrays."""
        return {
            "kernel": self.kernel,
            "shift": self.shift,
            "device": self.device,
            **vars(self.accuracy),
            "scores": vars(self.scores),
            "report_targets": [vars(target) for target in self.report_targets],
            "targets": [vars(target) for target in self.targets],
            "passed": self.passed,
        }


@dataclass(frozen=True)
class Validation:
    """What was found about kernels on a device.

    Attributes:
        device: what ran `int32` and `int8`: `emulator` or `npu`.
        device_reason: why it was that device.
        tiles: each kernel on the report's tile.
        batch: many tiles against the reference; None where no kernel was asked for that has one.
    """

    device: str
    device_reason: str
    tiles: tuple[TileResult, ...]
    batch: BatchResult | None

    @property
    def passed(self) -> bool:
        """Whether this project's kernels passed; the legacy kernels are shown, not judged."""
        return all(self.passed_by(t.kernel) for t in self.tiles if not t.kernel.startswith("legacy-"))

    def passed_by(self, kernel: str) -> bool:
        """Whether one kernel met its targets, and every bit of the batch where it has a reference."""
        met = all(
            tile.passed for tile in self.tiles if tile.kernel == kernel and tile.shift in (None, legacy.SHIFT)
        )
        return met and (kernel.startswith("legacy-") or self.batch is None or self.batch.passed)

    def detail(self, kernel: str) -> str:
        """One kernel's findings in a line."""
        tile = next(tile for tile in self.tiles if tile.kernel == kernel)
        line = f"correlation {tile.accuracy.correlation:.4f} with FP32 on the report's tile"
        if kernel.startswith("legacy-") or self.batch is None:
            return line
        return f"{line}; {self.batch.summary()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "schema_version": SCHEMA_VERSION,
            "passed": self.passed,
            "device": self.device,
            "device_reason": self.device_reason,
            "report_tile": [tile.to_dict() for tile in self.tiles],
            "batch": self.batch.to_dict() if self.batch else None,
        }


def validate_kernel(
    device: Device,
    reason: str = "",
    *,
    kernels: Sequence[str] = backends.INTEGER_BACKENDS,
    tiles: int = TILES,
    tile_sizes: Sequence[int] = c.TILE_SIZES,
    random_seed: int = 0,
    host: Device | None = None,
    host_missing: str = "",
    on_progress: Progress | None = None,
) -> Validation:
    """Validate kernels: the report's tile against FP32, and many tiles bit for bit against the reference.

    Args:
        device: runs `int32` and `int8`.
        reason: why it is that device.
        kernels: which; a device without a program for one of them refuses.
        tiles: in the batch; 300 take some seconds.
        tile_sizes: in the batch.
        random_seed: of the batch.
        host: the compiled AIE2 source, where there is one, to compare with as well.
        host_missing: why there is none.
        on_progress: called with the batch's tiles done and in all.

    Raises:
        kernels.device.DeviceError: the device cannot run a kernel.
    """
    found = [validate_tile(kernel, device) for kernel in kernels]
    if "legacy-int32" in kernels:
        found.append(validate_tile("legacy-int32", device, legacy.BUILT_SHIFT))
    scores = [score for score in c.SCORE_TYPES if score in kernels]
    batch = None
    if scores:
        batch = run_batch(
            device,
            tiles=tiles,
            tile_sizes=tile_sizes,
            scores=scores,
            seed=random_seed,
            host=host,
            host_missing=host_missing,
            on_progress=on_progress,
        )
    return Validation(device.name, reason, tuple(found), batch)


def report_tile(number: int = REPORT_SEED) -> tuple[Int8, Int8, Int8]:
    """The report's test data: Q, K and V, int8, shape (64, 64), -64..63, from numpy's legacy generator."""
    random = np.random.RandomState(number)
    shape = (SINGLE_TILE, c.HEAD_DIM)
    q, k, v = (random.randint(-64, 64, shape, dtype=np.int8) for _ in range(3))
    return q, k, v


def reference(q: Int8, k: Int8, v: Int8) -> Float:
    """softmax(Q K^T / 8) V in float64, of one head: shape (rows, 64)."""
    scores = q.astype(np.float64) @ k.astype(np.float64).T / math.sqrt(c.HEAD_DIM)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: npt.NDArray[Any] = weights @ v.astype(np.float64) / weights.sum(axis=1, keepdims=True)
    return result


def tile_operands(scores: c.ScoreType, q: Int8, k: Int8, v: Int8) -> c.Operands:
    """The contract's operands of a raw tile: integers without scales, their logits Q K^T / 8."""
    multiplier, shift = SINGLE_TILE_LOGIT[scores]
    return c.Operands(
        q=q[None],
        k=k[None],
        v=v[None],
        key_multiplier=np.full((1, len(k)), SINGLE_TILE_KEY_MULTIPLIER, np.uint8),
        multiplier=np.full((1, len(q)), multiplier, np.uint16),
        shift=np.full(1, shift, np.int32),
        valid_keys=len(k),
    )


def validate_tile(kernel: str, device: Device, shift: int = legacy.SHIFT) -> TileResult:
    """Run one kernel on the report's tile, with the report's INT8 output.

    Args:
        kernel: which.
        device: runs `int32` and `int8`; the legacy kernels exist only as emulation.
        shift: of the legacy kernels' scores.
    """
    q, k, v = report_tile()
    expected = reference(q, k, v)
    output: npt.NDArray[Any]
    natural: Float
    chosen = backends.find(kernel)
    scores = chosen.scores
    if scores is None:
        raise c.ContractError(f"{kernel} is no integer kernel")
    if chosen.kernel == "tile":
        operands = tile_operands(scores, q, k, v)
        if device.name == "npu" and isinstance(device, SingleTile):
            output = device.run_single(scores, q, k, v)
        else:
            output = device.run(operands, scores=scores, tile_size=SINGLE_TILE, output_bits=8)[0]
        natural = natural_scores(operands, 0, scores)
        step = INT8_STEP if scores == "int8" else None
        of_shift, ran = None, device.name
    else:
        output = legacy.LegacyKernel(scores, Workers(1), shift).run(q[None], k[None], v[None])[0]
        of_shift, ran = shift, "emulator"
        # A shift of 3 counts in units of Q K^T / 8.
        unit = 2.0 ** (shift - 3)
        natural = np.multiply(legacy.raw_scores(q, k, shift), unit, dtype=np.float64)
        step = unit if scores == "int8" else None
    measured = accuracy(output, expected)
    return TileResult(
        kernel=kernel,
        shift=of_shift,
        device=ran,
        accuracy=measured,
        scores=score_range(natural, step),
        report_targets=_report_targets(measured),
        targets=_targets(measured) if kernel == backends.DEFAULT else (),
        output=output.astype(np.float64),
        reference=expected,
        natural_scores=natural,
    )


def _report_targets(found: Accuracy) -> tuple[Target, ...]:
    r = found.correlation
    return (
        Target("correlation", f">= {REPORT_CORRELATION:.2f}", f"{r:.4f}", r >= REPORT_CORRELATION),
        Target(
            "improvement",
            f"> 2 x {REPORT_BASELINE}",
            f"{r / REPORT_BASELINE:.1f} x",
            r > 2 * REPORT_BASELINE,
        ),
        Target(
            "output range",
            "within INT8",
            f"{found.output_min:.0f}..{found.output_max:.0f}",
            -128 <= found.output_min and found.output_max <= 127,
        ),
    )


def _targets(found: Accuracy) -> tuple[Target, ...]:
    r = found.correlation
    return (Target("correlation", f">= {CORRELATION}", f"{r:.4f}", r >= CORRELATION),)
