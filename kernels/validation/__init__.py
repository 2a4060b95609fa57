"""Whether kernels compute what they should: the founding report's tile against FP32, many against the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from kernels import backends, legacy
from kernels import contract as c
from kernels.device import Device
from kernels.validation.batch import BatchOptions, BatchResult, run_batch
from kernels.validation.founding_tile import CORRELATION, FOUNDING_CORRELATION, TileResult, validate_tile

__all__ = ["TileResult", "Validation", "validate_kernel", "validate_tile"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Validation:
    """What was found about kernels on a device.

    Attributes:
        device: what ran `int32` and `int8`: `emulator` or `npu`.
        tiles: each kernel on the founding report's tile.
        batch: None where no kernel was asked for that has a reference.
    """

    device: str
    device_reason: str
    tiles: tuple[TileResult, ...]
    batch: BatchResult | None

    @property
    def passed(self) -> bool:
        """Whether this project's kernels passed; the legacy kernels are shown, not judged."""
        return all(self.passed_by(tile.kernel) for tile in self.tiles if not tile.legacy)

    def passed_by(self, kernel: str) -> bool:
        """Whether one kernel met its targets, and every bit of the batch where it has a reference."""
        batch = self._batch_of(kernel)
        return self._tile(kernel).passed and (batch is None or batch.passed)

    def detail(self, kernel: str) -> str:
        """One kernel's findings in a line."""
        tile, batch = self._tile(kernel), self._batch_of(kernel)
        target = f"target {CORRELATION}" if tile.targets else "no target: its scores are beyond INT8"
        if tile.legacy:
            target = f"target {FOUNDING_CORRELATION:.2f}"
        line = (
            f"correlation {tile.accuracy.correlation:.4f} with FP32 on the founding report's tile, {target}"
        )
        return f"{batch.summary()}; {line}" if batch else line

    def _tile(self, kernel: str) -> TileResult:
        return next(tile for tile in self.tiles if tile.kernel == kernel and tile.documented)

    def _batch_of(self, kernel: str) -> BatchResult | None:
        return None if backends.find(kernel).legacy else self.batch

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
    **batch: Unpack[BatchOptions],
) -> Validation:
    """Validate kernels: the founding report's tile against FP32, and many tiles bit for bit against the reference.

    Args:
        device: runs `int32` and `int8`.
        reason: why it is that device.
        kernels: which; a device without a program for one of them refuses.
        batch: as `run_batch` takes it; 300 tiles take some seconds.

    Raises:
        kernels.device.DeviceError: the device cannot run a kernel.
    """
    found = [validate_tile(kernel, device) for kernel in kernels]
    if "legacy-int32" in kernels:
        found.append(validate_tile("legacy-int32", device, legacy.BUILT_SHIFT))
    result = None
    if scores := [score for score in c.SCORE_TYPES if score in kernels]:
        result = run_batch(device, scores=scores, **batch)
    return Validation(device.name, reason, tuple(found), result)
