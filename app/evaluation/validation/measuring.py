"""`tilescribe validate`: what each kernel computes, against FP32, the reference and the AIE2 source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec
import torch

from app.audio.reading import open_audio
from app.configuration import Configuration
from app.console import progress_bar
from datasets.sample import sample
from kernels.backends import INTEGER_BACKENDS
from kernels.device import Device, DeviceError
from kernels.npu.build.host_kernel import HostKernel
from kernels.opening import open_device
from kernels.validation import Validation, validate_kernel
from kernels.workers import Workers
from models.attention import open_attention
from models.capture import LayerResult, measure_layers
from models.features import LogMelFeatures
from models.weights.loading import load

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Captured:
    """Kernels on a real encoder's queries, keys and values: shown, and without a target.

    Attributes:
        audio: the file's name; its first 30 s are the encoder's window.
        seconds: of audio in the window.
    """

    model: str
    model_sha256: str
    audio: str
    seconds: float
    layers: tuple[LayerResult, ...]


def run(
    configuration: Configuration,
    *,
    tiles: int,
    tile_sizes: Sequence[int],
    seed: int,
    capture: bool = True,
    audio: str | None = None,
    progress: bool | None = False,
) -> tuple[Validation, Captured | None]:
    """Validate every kernel. Everything that may be missing is looked for before the long work begins.

    Args:
        configuration: device, tile size and threads; its model's encoder is listened to.
        tiles: to compare bit for bit, of `tile_sizes` and with operands from `seed`.
        tile_sizes: keys per tile.
        seed: of the operands.
        capture: whether to try the kernels on a real encoder as well.
        audio: what it hears; the sample unless given.
        progress: as `app.console.bar` takes it.

    Raises:
        kernels.device.DeviceError: the NPU was asked for and cannot be used.
        kernels.contract.ContractError: the encoder's numbers are not finite.
        models.weights.loading.WeightsError: the weights are missing, damaged or unreachable.
        app.audio.containers.AudioError: the audio cannot be read.
    """
    workers = Workers(configuration.threads)
    opened = open_device(configuration.device, workers, tile_size=configuration.tile_size)
    captured = None
    if capture:
        if configuration.threads is not None:
            torch.set_num_threads(configuration.threads)
        path = audio if audio is not None else sample().audio
        weights = load(configuration.model)
        dims = weights.model.dims
        with open_audio(path) as source, LogMelFeatures(source.blocks(), dims.n_mels) as heard:
            window, seconds = heard.window(0, 2 * dims.n_audio_ctx), min(30.0, heard.duration)
    host: Device | str
    try:
        host = HostKernel()
    except DeviceError as error:
        host = str(error)
    with progress_bar("tiles", "tile", progress) as on_progress:
        validation = validate_kernel(
            opened.device,
            opened.reason,
            tiles=tiles,
            tile_sizes=tile_sizes,
            seed=seed,
            host=host,
            on_progress=on_progress,
        )
    if capture:
        others = [
            open_attention(name, threads=workers.threads, tile_size=configuration.tile_size, opened=opened)
            for name in INTEGER_BACKENDS
        ]
        with progress_bar(f"heads of {weights.name}", "head", progress) as on_progress:
            layers = measure_layers(weights.model, window, others, on_progress)
        captured = Captured(weights.name, weights.sha256, Path(path).name, seconds, layers)
    return validation, captured


def to_json(validation: Validation, captured: Captured | None = None) -> str:
    """JSON, in which a number that is none (the correlation of a constant) is null."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "version": version("tilescribe"),
        "passed": validation.passed,
        "validation": validation.to_dict(),
        "captured": captured and {**vars(captured), "layers": [layer.to_dict() for layer in captured.layers]},
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
