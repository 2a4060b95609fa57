"""`tilescribe validate`: what each kernel computes, against FP32, the reference and the AIE2 source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec
import torch

from app.audio.reading import open_audio
from app.configuration import Configuration
from app.console import progress_bar
from app.evaluation.report.metrics import TILES
from app.output import tables as t
from app.output.tables import Metric
from datasets.sample import sample
from kernels.backends import DEFAULT, INTEGER_BACKENDS, REFERENCE, TILE_BACKENDS, find
from kernels.device import Device, DeviceError
from kernels.npu.build.host_kernel import HostKernel
from kernels.opening import open_device
from kernels.validation import REPORTED, TileResult, Validation, validate_kernel
from kernels.validation.batch import BatchResult
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


LAYERS: tuple[Metric[LayerResult], ...] = (
    Metric("kernel, layer", lambda x: f"{x.kernel}, {x.layer}"),
    Metric("correlation", lambda x: t.correlation(x.accuracy.correlation, 6)),
    Metric("error", lambda x: t.percent(x.accuracy.relative_error)),
    Metric("max error", lambda x: t.number(x.accuracy.max_error, 3)),
    Metric("scores", lambda x: t.span(*x.score_limits, 1)),
    Metric("INT8 clips", lambda x: t.share(x.clipped) if x.heads[0].scores.held else t.NONE),
    Metric("worst head", lambda x: str(x.worst.head)),
    Metric("its error", lambda x: t.percent(x.worst.accuracy.relative_error)),
)
"""Of a kernel in one layer of a real encoder."""


def text(validation: Validation, captured: Captured | None = None) -> str:
    """The tables, and at the end the verdict."""
    return "\n".join(_lines(validation, captured)) + "\n"


def ran_on(validation: Validation) -> str:
    """What ran where."""
    return f"{' and '.join(TILE_BACKENDS)} on {_where(validation)}"


def _where(validation: Validation) -> str:
    """Emulator work is never called the NPU's."""
    emulated = validation.device == "emulator"
    return "the emulator on the CPU" if emulated else f"the {validation.device.upper()}"


def _lines(validation: Validation, captured: Captured | None) -> Iterator[str]:
    yield f"{ran_on(validation)}: {validation.device_reason}. The legacy kernels are emulated."
    yield ""
    yield "One tile of 64 x 64 random integers, the test data of the founding report, against FP32"
    yield "softmax(Q K^T / 8) V; scores in units of Q K^T / 8:"
    yield ""
    tiles = [{**tile.to_dict(), "kernel": tile.label, "shift": None} for tile in validation.tiles]
    yield from t.console(TILES, [*tiles, REPORTED])
    yield ""
    yield from _target_lines(validation.tiles)
    yield ""
    yield "One tile is no evidence about words."
    for tile in validation.tiles:
        if tile.legacy and tile.documented and tile.passed:
            name = tile.kernel
            yield f"{name} passes every target of the founding report here; what it does to the word error rate:"
            yield f"    evaluate --dataset librispeech-test-clean --backends {REFERENCE},{DEFAULT},{name}"
    yield ""
    if validation.batch:
        yield from _batch(validation.batch)
        yield ""
    if captured:
        heard = f"{captured.audio}, {captured.seconds:.1f} s in its window"
        yield f"Queries, keys and values of {captured.model}'s encoder ({heard}), each layer given what FP32"
        yield "gives it; scores in units of Q K^T / 8; errors relative to the norm of FP32's output:"
        yield ""
        yield from t.console(
            LAYERS, sorted(captured.layers, key=lambda x: (find(x.kernel).position, x.layer))
        )
        yield ""
    yield from _verdict(validation)


def _target_lines(tiles: Sequence[TileResult]) -> list[str]:
    named = [f"{target.name} {target.wanted}" for target in tiles[0].report_targets]
    own = next((f"ours: {target.name} {target.wanted}" for tile in tiles for target in tile.targets), "")
    rows = [["the founding report's targets:", *named, own]]
    for tile in tiles:
        judged = ["pass" if target.passed else "FAIL" for target in (*tile.report_targets, *tile.targets[:1])]
        rows.append([tile.label, *judged, *([] if tile.targets else [t.NONE])])
    return t.aligned(rows)


def _batch(batch: BatchResult) -> Iterator[str]:
    *some, last = map(str, batch.tile_sizes)
    sizes = f"{', '.join(some)} or {last}" if some else last
    yield (
        f"{batch.tiles} tiles of 64 rows and {sizes} keys, random and extreme, seed {batch.seed}, "
        f"{' and '.join(batch.scores)}: {batch.outputs} outputs, bit for bit against"
    )
    width = max(len(c.name) for c in batch.comparisons) + 1
    for c in batch.comparisons:
        counts = f"{c.tiles} tiles, {c.rows} rows, {c.outputs} outputs: {c.mismatch or 'identical'}"
        yield f"  the {f'{c.name}:':{width}} {f'not compared: {c.missing}' if c.missing else counts}"


def _verdict(validation: Validation) -> Iterator[str]:
    if validation.passed:
        yield f"passed on {_where(validation)}: {DEFAULT} {validation.detail(DEFAULT)}"
        return
    yield f"FAILED on {_where(validation)}:"
    for tile in validation.tiles:
        for target in tile.targets:
            if not target.passed:
                yield f"  {tile.label}: {target.name} {target.found}, wanted {target.wanted}"
    if validation.batch and not validation.batch.passed:
        yield f"  {validation.batch.summary()}"
