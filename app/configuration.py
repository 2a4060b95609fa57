"""What a run computes with: filled by the commands, and taken whole by everything else."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kernels import backends
from kernels.contract import DEFAULT_TILE_SIZE, TILE_SIZES
from kernels.device import DeviceName
from models.compute import ComputeType, Context


class ConfigurationError(ValueError):
    """A configuration that contradicts itself; the text is one line."""


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
        audio_context: what the encoder is given of a window: 30 s, or `auto`: the audio and some silence. The NPU's
            programs are for 30 s.
        threads: PyTorch's too; as many as there are processors where it is None.

    Raises:
        kernels.backends.UnknownBackendError: there is no such backend.
        ConfigurationError: the others contradict it, or are no number that they can be.
    """

    model: str = "base"
    backend: str = backends.DEFAULT
    device: DeviceName = "auto"
    tile_size: int = DEFAULT_TILE_SIZE
    compute_type: ComputeType = "auto"
    audio_context: Context = "full"
    threads: int | None = None

    def __post_init__(self) -> None:
        devices = backends.find(self.backend).devices
        if self.device == "npu" and "npu" not in devices:
            raise ConfigurationError(f"device npu: backend {self.backend} has no program for it")
        if self.tile_size not in TILE_SIZES:
            raise ConfigurationError(
                f"tile_size {self.tile_size}: choose from {', '.join(map(str, TILE_SIZES))}"
            )
        if self.threads is not None and self.threads < 1:
            raise ConfigurationError(f"threads {self.threads}: at least 1")

    def with_backend(self, name: str) -> Configuration:
        """The same with another backend, on the emulator where that has no program for the NPU.

        The reference has the whole context, whatever the others have.
        """
        device = self.device if "npu" in backends.find(name).devices else "emulator"
        context: Context = "full" if name == backends.REFERENCE else self.audio_context
        return replace(self, backend=name, device=device, audio_context=context)
