"""Whether kernels compute what they should: the founding report's tile against FP32, many against the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from kernels import backends, legacy
from kernels.device import Device
from kernels.validation.batch import BatchOptions, BatchResult, run_batch
from kernels.validation.founding_tile import CORRELATION, FOUNDING_CORRELATION, TileResult, validate_tile

__all__ = ["TileResult", "Validation", "validate_kernel", "validate_tile"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Validation:
    """What was found about kernels on a device.

    Attributes:
        device: what ran this project's kernels: `emulator` or `npu`.
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
        tile = self._tile(kernel)
        return tile.passed and (tile.legacy or self.batch is None or self.batch.passed)

    def detail(self, kernel: str) -> str:
        """One kernel's findings in a line."""
        tile = self._tile(kernel)
        target = f"target {CORRELATION}" if tile.targets else "no target: its scores are beyond INT8"
        if tile.legacy:
            target = f"target {FOUNDING_CORRELATION:.2f}"
        line = (
            f"correlation {tile.accuracy.correlation:.4f} with FP32 on the founding report's tile, {target}"
        )
        return line if tile.legacy or self.batch is None else f"{self.batch.summary()}; {line}"

    def _tile(self, kernel: str) -> TileResult:
        return next(tile for tile in self.tiles if tile.kernel == kernel and tile.documented)

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
        device: runs this project's kernels.
        reason: why it is that device.
        kernels: names of backends; a device without a program for one of them refuses.
        batch: as `run_batch` takes it; 300 tiles take some seconds.

    Raises:
        kernels.device.DeviceError: the device cannot run a kernel.
    """
    chosen = [backends.find(kernel) for kernel in kernels]
    tiles = [validate_tile(one.name, device) for one in chosen]
    for one in chosen:
        if one.legacy and one.scores in legacy.BUILT_SHIFT:
            tiles.append(validate_tile(one.name, device, legacy.BUILT_SHIFT[one.scores]))
    scores = [one.scores for one in chosen if one.kernel == "tile" and one.scores]
    result = run_batch(device, scores=scores, **batch) if scores else None
    return Validation(device.name, reason, tuple(tiles), result)
