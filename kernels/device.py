"""What runs the contract's integers: the interface that the NPU and the emulator share, and its errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from kernels import contract as c

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DeviceName = Literal["auto", "npu", "emulator"]


class DeviceError(Exception):
    """The device that was asked for cannot be used; the text says why and what to do."""


class DeviceLost(DeviceError):  # noqa: N818  # what has happened, as graphics interfaces call it
    """The device failed in the middle of its work, also after it was opened anew; no later run can succeed."""


class Device(Protocol):
    """Runs the contract. Every device gives the same bits for the same operands."""

    name: str

    def run(
        self,
        operands: c.Operands,
        *,
        scores: c.ScoreType = "int32",
        tile_size: int = c.DEFAULT_TILE_SIZE,
        output_bits: int = 16,
    ) -> npt.NDArray[np.int16]:
        """Attention of every head.

        Args:
            operands: the integers of the run.
            scores: `int32` sums scores up exactly and scales them in 16 bits; `int8` holds them in INT8.
            tile_size: keys per tile: 64, 128 or 256.
            output_bits: 16 for the value's step / 256, 8 for the value's step.

        Returns:
            int16, shape (n, rows, 64 or 128): as many columns as the values have.

        Raises:
            kernels.contract.ContractError: operands outside the contract.
        """
        ...
