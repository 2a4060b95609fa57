"""`tilescribe validate`: what each attention kernel computes, against FP32, the reference and the AIE2 source."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.options import DeviceChoice, TileSize
from app.console import FAILED, INTERRUPTED, LACKING, USAGE, say, stop
from app.output.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from app.evaluation.validate.report import Captured, Report
    from kernels.device import Device
    from kernels.opening import Opened
    from kernels.validation import Validation
    from kernels.workers import Workers
    from models.weights.loading import LoadedWeights

    Progress = Callable[[int, int], None]


def validate(
    device: Annotated[
        DeviceChoice, typer.Option(help="auto: the NPU where it works, else the emulator on the CPU.")
    ] = DeviceChoice.AUTO,
    tiles: Annotated[int, typer.Option(min=1, help="Tiles to compare bit for bit.")] = 1000,
    tile_size: Annotated[
        list[TileSize] | None, typer.Option(help="Keys per tile; all unless given; can be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of those tiles' operands.")] = 0,
    capture: Annotated[
        bool, typer.Option(help="Also try the kernels on a real encoder's queries, keys and values.")
    ] = True,
    model: Annotated[
        str, typer.Option(help="Whose encoder: a name from `tilescribe models list`, or a path.")
    ] = "base",
    audio: Annotated[
        str | None, typer.Option(metavar="FILE", help="What it hears, the first 30 s; else the sample.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; all unless given.")] = None,
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write JSON; - prints it instead of the tables."),
    ] = None,
    picture: Annotated[
        str | None, typer.Option(metavar="FILE.svg", help="Draw errors, outputs and scores on one tile.")
    ] = None,
    progress: Annotated[
        bool | None, typer.Option(help="Show progress bars; by default on a terminal.")
    ] = None,
) -> None:
    """Say how near each kernel comes to FP32, and whether the device computes what the contract says, bit for bit.

    Exit codes: 0 our kernels pass; 1 one fails; 2 wrong usage; 5 something is lacking (an NPU, weights).
    """
    if audio is not None and not capture:
        stop("--audio has no use with --no-capture", USAGE)
    if picture is not None and not picture.lower().endswith(".svg"):
        stop(f"--picture {picture}: it is an SVG; give a name that ends in .svg", USAGE)
    for option, file in (("--json", json_file), ("--picture", picture)):
        if file not in (None, "-") and not Path(file or "").absolute().parent.is_dir():
            stop(f"{option} {file}: there is no such folder", USAGE)
    shown = sys.stderr.isatty() if progress is None else progress
    sizes = tuple(dict.fromkeys(int(size) for size in tile_size or list(TileSize)))
    try:
        report = _report(device, tiles, sizes, seed, model if capture else None, audio, threads, shown)
        _write(report, json_file, picture)
    except KeyboardInterrupt:
        stop("interrupted: nothing was written", INTERRUPTED)
    if not report.passed:
        raise typer.Exit(FAILED)


def _report(
    device: DeviceChoice,
    tiles: int,
    sizes: tuple[int, ...],
    seed: int,
    model: str | None,
    audio: str | None,
    threads: int | None,
    shown: bool,
) -> Report:
    """Everything that may be missing is looked for before the long work begins."""
    from app.evaluation.validate.report import Report
    from kernels.contract import ContractError
    from kernels.device import DeviceError
    from kernels.opening import open_device
    from kernels.workers import Workers

    workers = Workers(threads)
    try:
        opened = open_device(device.value, workers, tile_size=sizes[0])
        loaded = _listen(model, audio, threads) if model is not None else None
        validation = _validate(opened, tiles, sizes, seed, shown)
        captured = _capture(*loaded, opened, workers, sizes[0], shown) if loaded else None
    except DeviceError as error:
        stop(str(error), LACKING)
    except ContractError as error:
        stop(f"{audio or model}: {error}", FAILED)
    return Report(validation, captured)


def _validate(opened: Opened, tiles: int, sizes: tuple[int, ...], seed: int, shown: bool) -> Validation:
    from kernels.validation import validate_kernel

    host, missing = _host()
    with _bar("tiles", "tile", shown) as on_progress:
        return validate_kernel(
            opened.device,
            opened.reason,
            tiles=tiles,
            tile_sizes=sizes,
            random_seed=seed,
            host=host,
            host_missing=missing,
            on_progress=on_progress,
        )


def _host() -> tuple[Device | None, str]:
    from kernels.device import DeviceError
    from kernels.npu.build.host_kernel import HostKernel

    try:
        return HostKernel(), ""
    except DeviceError as error:
        return None, str(error)


def _listen(
    model: str, audio: str | None, threads: int | None
) -> tuple[LoadedWeights, torch.Tensor, str, float]:
    """The weights, and the first window of what their encoder is to hear."""
    import torch

    from app.audio.reading import AudioError, open_audio
    from datasets.sample import sample
    from models.features import LogMelFeatures
    from models.weights.loading import UnknownModelError, WeightsError, load

    if threads is not None:
        torch.set_num_threads(threads)
    path = audio if audio is not None else sample().audio
    try:
        weights = load(model)
        with open_audio(path) as source, LogMelFeatures(source.blocks(), weights.model.dims.n_mels) as heard:
            window = heard.window(0, 2 * weights.model.dims.n_audio_ctx)
            return weights, window, Path(path).name, min(30.0, heard.duration)
    except UnknownModelError as error:
        stop(str(error), USAGE)
    except WeightsError as error:
        stop(f"{error}; --no-capture does without", LACKING)
    except AudioError as error:
        stop(str(error), FAILED)


def _capture(
    weights: LoadedWeights,
    window: torch.Tensor,
    audio: str,
    seconds: float,
    opened: Opened,
    workers: Workers,
    tile_size: int,
    shown: bool,
) -> Captured:
    from app.evaluation.validate.report import Captured
    from kernels.backends import INTEGER_BACKENDS
    from models.attention import open_attention
    from models.capture import measure_layers

    others = [
        open_attention(name, threads=workers.threads, tile_size=tile_size, opened=opened)
        for name in INTEGER_BACKENDS
    ]
    with _bar(f"heads of {weights.name}", "head", shown) as on_progress:
        layers = measure_layers(weights.model, window, others, on_progress)
    return Captured(weights.name, weights.sha256, audio, seconds, layers)


@contextlib.contextmanager
def _bar(name: str, unit: str, shown: bool) -> Iterator[Progress]:
    from tqdm import tqdm

    with tqdm(desc=name, unit=unit, disable=not shown, leave=False) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield on_progress


def _write(report: Report, json_file: str | None, picture: str | None) -> None:
    from app.evaluation.validate import text
    from app.evaluation.validate.picture import render

    sys.stdout.write(report.to_json() if json_file == "-" else text.render(report))
    sys.stdout.flush()
    files = [(picture, render(report.validation))] if picture else []
    if json_file not in (None, "-"):
        files.append((json_file, report.to_json()))
    for name, content in files:
        try:
            write_whole(Path(name or ""), content)
        except OSError as error:
            stop(f"{name}: {error.strerror or error}", FAILED)
        say(f"wrote {name}")
