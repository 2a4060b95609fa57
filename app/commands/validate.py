"""`tilescribe validate`: what each attention kernel computes, against FP32, the reference and the AIE2 source."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer import Option

from app.commands.options import (
    LAST_SEED,
    MOST,
    DeviceOption,
    JsonFileOption,
    ProgressOption,
    ThreadsOption,
    TileSizeItem,
    check_folders,
    write_file,
)
from app.configuration import Configuration
from app.console import FAILED, LACKING, USAGE, edge, exit_code, pass_on, say, stop
from kernels.contract import TILE_SIZES, ContractError


def validate(
    device: DeviceOption = Configuration.device,
    tiles: Annotated[int, Option(min=1, max=MOST, help="Tiles to compare bit for bit.")] = 1000,
    tile_size: Annotated[
        list[TileSizeItem] | None,
        Option(help="Keys per tile, all sizes unless given; several by several such options."),
    ] = None,
    seed: Annotated[int, Option(min=0, max=LAST_SEED, help="Seed to draw those tiles' operands by.")] = 0,
    capture: Annotated[
        bool, Option(help="Also try the kernels on a real encoder's queries, keys and values.")
    ] = True,
    model: Annotated[
        str, Option(help="Model whose encoder it is: a name from `tilescribe models list`, or a path.")
    ] = "base",
    audio: Annotated[
        str | None,
        Option(metavar="FILE", help="Recording whose first 30 s it hears; the sample unless given."),
    ] = None,
    threads: ThreadsOption = None,
    json_file: JsonFileOption = None,
    picture: Annotated[
        str | None, Option(metavar="FILE.svg", help="Draw errors, outputs and scores on one tile.")
    ] = None,
    progress: ProgressOption = None,
) -> None:
    """Say how near each kernel comes to FP32, and whether the device computes what the contract says, bit for bit.

    Exit codes: 0 our kernels pass; 1 one fails; 2 wrong usage; 5 something is lacking (an NPU, weights).
    """
    if audio is not None and not capture:
        stop("--audio has no use with --no-capture", USAGE)
    if picture is not None and not picture.lower().endswith(".svg"):
        stop(f"--picture {picture}: it is an SVG; give a name that ends in .svg", USAGE)
    check_folders({"--json": json_file, "--picture": picture})
    sizes = tuple(dict.fromkeys(int(size) for size in tile_size or TILE_SIZES))
    configuration = Configuration(model, device=device, tile_size=sizes[0], threads=threads)
    with edge("interrupted: nothing was written"):
        pass_on()
        from app.evaluation.validation.measuring import run, to_json
        from app.evaluation.validation.picture import render
        from app.evaluation.validation.text import text
        from models.weights.loading import WeightsError

        try:
            validation, captured = run(
                configuration,
                tiles=tiles,
                tile_sizes=sizes,
                seed=seed,
                capture=capture,
                audio=audio,
                progress=progress,
            )
        except WeightsError as error:
            if exit_code(error) == USAGE:
                raise
            stop(f"{error}; --no-capture does without", LACKING)
        except ContractError as error:
            stop(f"{audio or model}: {error}", FAILED)
        document = to_json(validation, captured)
        sys.stdout.write(document if json_file == "-" else text(validation, captured))
        sys.stdout.flush()
        files = {picture: render(validation)} if picture else {}
        if json_file and json_file != "-":
            files[json_file] = document
        for name, content in files.items():
            write_file(name, content)
            say(f"wrote {name}")
    if not validation.passed:
        raise typer.Exit(FAILED)
