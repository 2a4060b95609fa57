"""Where the contract's integers are worked on: the NPU, or the emulator on the CPU."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.workers import Workers

DeviceName = Literal["auto", "npu", "emulator"]
DEVICE_NAMES: tuple[DeviceName, ...] = ("auto", "npu", "emulator")


class DeviceError(Exception):
    """The device that was asked for cannot be used; the text says why and what to do."""


class Device(Protocol):
    """Runs the contract. Every device gives the same bits for the same operands."""

    name: str

    def run(
        self,
        operands: c.Operands,
        *,
        scores: c.ScoreType = "int32",
        tile_size: int = 64,
        output_bits: int = 16,
    ) -> npt.NDArray[np.int16]:
        """Attention of every head: int16, shape (n, rows, 64 or 128)."""
        ...


@dataclass(frozen=True)
class Opened:
    """A device, and in a few words why it is this one."""

    device: Device
    reason: str


def npu_obstacle() -> str:
    """Why the NPU cannot be used by this version on this machine."""
    if not glob.glob("/dev/accel/accel*"):
        return "there is no NPU here (/dev/accel/accel* is absent)"
    return "this version has no NPU runtime yet"


def open_device(name: DeviceName = "auto", workers: Workers | None = None) -> Opened:
    """Open a device.

    Args:
        name: `auto` takes the NPU where it works, else the emulator; `npu` never falls back.
        workers: threads for the emulator.

    Raises:
        DeviceError: the NPU was asked for and cannot be used.
    """
    obstacle = npu_obstacle()
    if name == "npu":
        raise DeviceError(f"{obstacle}; --device emulator computes the same bits on the CPU")
    from kernels.emulator import Emulator

    emulator = Emulator(workers)
    _check_against_reference(emulator)
    return Opened(emulator, "asked for" if name == "emulator" else obstacle)


def _check_against_reference(device: Device) -> None:
    """Compare two rows with the reference: compiled code is kept on disk, and may be another version's."""
    from kernels import reference

    random = np.random.default_rng(0)
    operands = c.Operands(
        q=random.integers(-128, 128, (1, 2, c.HEAD_DIM)).astype(np.int8),
        k=random.integers(-128, 128, (1, 72, c.HEAD_DIM)).astype(np.int8),
        v=random.integers(-128, 128, (1, 72, c.HEAD_DIM)).astype(np.int8),
        key_multiplier=random.integers(1, 256, (1, 72)).astype(np.uint8),
        multiplier=np.array([[700, 900]], np.uint16),
        shift=np.array([16], np.int32),
        valid_keys=70,
    )
    for scores in ("int32", "int8"):
        expected = reference.attention(operands, scores=scores)
        if not np.array_equal(device.run(operands, scores=scores), expected):
            raise DeviceError(
                f"the {device.name} disagrees with the reference; if this is not a defect of it, numba's cache is "
                "stale: remove __pycache__ beside kernels/emulator.py"
            )
