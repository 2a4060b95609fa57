"""What a run computes with: filled by the commands, and taken whole by everything else."""

from __future__ import annotations

from dataclasses import dataclass

from kernels import backends
from kernels.contract import DEFAULT_TILE_SIZE
from kernels.device import DeviceName
from models.compute import ComputeType


@dataclass(frozen=True)
class Configuration:
    """Model, attention and compute type.

    Attributes:
        model: a name (`tilescribe models list`), or a path to a `.pt` file or a CTranslate2 folder.
        backend: of the encoder's attention; see `kernels.backends`.
        device: where the integer kernels run: `auto` takes the NPU where it works, else the emulator.
        tile_size: keys per tile of the integer kernels: 64, 128 or 256.
        compute_type: of all that is not integer attention: `float32`, `bfloat16`, `int8`, or `auto`, the fastest that
            leaves the word error rate as it is. A processor without the instructions computes in float32.
        threads: PyTorch's too; as many as there are processors where it is None.

    Raises:
        kernels.backends.UnknownBackendError: there is no such backend.
    """

    model: str = "base"
    backend: str = backends.DEFAULT
    device: DeviceName = "auto"
    tile_size: int = DEFAULT_TILE_SIZE
    compute_type: ComputeType = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        backends.find(self.backend)
