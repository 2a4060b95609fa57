"""Opening a device: the NPU where it works, else the emulator on the CPU."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from kernels import contract as c
from kernels.device import Device, DeviceError, DeviceName
from kernels.npu.diagnosis import Finding, npu_obstacle
from kernels.workers import Workers


@dataclass(frozen=True)
class Opened:
    """A device, and in a few words why it is this one."""

    device: Device
    reason: str


def open_device(
    name: DeviceName = "auto",
    workers: Workers | None = None,
    *,
    scores: c.ScoreType = "int32",
    tile_size: int = c.DEFAULT_TILE_SIZE,
) -> Opened:
    """Open a device, and compare what it computes with the reference.

    Args:
        name: `auto` takes the NPU where it works, else the emulator; `npu` never falls back.
        workers: threads for the emulator.
        scores: of the program that the NPU has to have: `int32` or `int8`.
        tile_size: keys per tile of that program.

    Raises:
        DeviceError: the NPU was asked for and cannot be used, or the device computes other bits than the contract's.
    """
    reason = "asked for"
    if name != "emulator":
        obstacle = npu_obstacle()
        if obstacle is None:
            from kernels.npu.runtime.device import open_npu

            try:
                npu = open_npu(scores, tile_size)
                why = "asked for" if name == "npu" else "it agrees with the reference"
                return Opened(npu, f"XRT names it {npu.board}; {why}")
            except DeviceError as error:
                obstacle = Finding("wrong", str(error))
        if name == "npu":
            raise DeviceError(f"{obstacle}; --device emulator computes the same bits on the CPU")
        reason = obstacle.found
    from kernels.emulator import Emulator

    emulator = Emulator(workers)
    _check(emulator)
    return Opened(emulator, reason)


def _check(emulator: Device) -> None:
    # Compiled code is kept on disk, and may be another version's.
    from kernels.self_check import compare, random_operands

    for scores in c.SCORE_TYPES:
        compare(
            functools.partial(emulator.run, scores=scores),
            random_operands(2, 72),
            (0, 1),
            scores=scores,
            tile_size=c.DEFAULT_TILE_SIZE,
            name=emulator.name,
            remedy="which is a defect of it, or of what compiled it",
        )
