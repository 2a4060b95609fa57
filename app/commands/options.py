"""Options that several commands have, with the values that the registries know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from typer import Option

from app.console import FAILED, LACKING, USAGE, stop
from app.output.writers import check_folder, write_whole
from kernels.backends import BACKEND_NAMES
from kernels.contract import TILE_SIZES
from kernels.device import DeviceName
from models.compute import Context

if TYPE_CHECKING:
    from app.cluster.engine import Place
    from models.voice import VadOptions

if TYPE_CHECKING:  # mypy takes no computed values for a type
    BackendName = str
    TileSize = int
    TileSizeItem = str
else:
    BackendName = Literal[BACKEND_NAMES]
    TileSize = Literal[TILE_SIZES]
    # Typer has no lists of literals.
    TileSizeItem = StrEnum("TileSizeItem", [(str(size), str(size)) for size in TILE_SIZES])

# Ends of ranges: nobody needs more, and more ends in tracebacks of whoever is short of memory.
MOST = 1_000_000
MOST_AT_ONCE = 256
MOST_BEAMS = 100
MOST_THREADS = 1024
LAST_SEED = 2**32 - 1


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("tilescribe"))
        raise typer.Exit


DeviceOption = Annotated[
    DeviceName, Option(help="auto: the NPU where it works, else the emulator on the CPU.")
]
JsonFileOption = Annotated[
    str | None, Option("--json", metavar="FILE", help="Write JSON; - prints it instead of the tables.")
]
ContextOption = Annotated[
    Context,
    Option(
        "--context",
        help="How much is encoded: full, 30 s; auto, the audio and 8 s, and 30 s where the text is doubtful.",
    ),
]
ModelOption = Annotated[
    str,
    Option(
        "--model",
        "-m",
        help="A name from `tilescribe models list`, or a path to a .pt file or CTranslate2 folder.",
    ),
]
ProgressOption = Annotated[
    bool | None,
    Option(
        help="Show a progress bar; by default on a terminal, and elsewhere a line about every ten seconds."
    ),
]
ThreadsOption = Annotated[
    int | None, Option(min=1, max=MOST_THREADS, help="Processor threads to use; all of them unless given.")
]

TileSizeOption = Annotated[TileSize, Option(help="Keys per tile.")]

VersionOption = Annotated[
    bool, Option("--version", is_eager=True, callback=_print_version, help="Show the version.")
]

WorkersOption = Annotated[
    int | None,
    Option(
        min=1, max=MOST_THREADS, help="Processes of this machine that do the work; they share the threads."
    ),
]
SchedulerOption = Annotated[
    str | None,
    Option(metavar="ADDRESS", help="A Dask scheduler, such as tcp://host:8786, whose workers do it."),
]
TimeLimitOption = Annotated[
    float,
    Option(
        min=1,
        max=MOST,
        help="Seconds for a worker's piece of work; who takes longer is ended, another does it.",
    ),
]
SendAudioOption = Annotated[
    bool, Option("--send-audio", help="Recordings go to the workers; else each reads them at the same paths.")
]
TIME_LIMIT = 3600.0

SMALLEST_STEP = 0.01
"""Between temperatures: a hundred of them."""

Kind = TypeVar("Kind")


def filled(kind: type[Kind], given: Mapping[str, Any], **others: Any) -> Kind:
    """A dataclass from a command's options: each field from the option of its name, where there is one."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in given.items() if name in names} | others)


def voice_activity(vad: bool, given: Mapping[str, Any]) -> VadOptions | None:
    """The options of voice activity, whose fields have the prefix `vad_` on the command line; None where it is off."""
    from models.voice import VadOptions

    if vad:
        return filled(VadOptions, {name.removeprefix("vad_"): value for name, value in given.items()})
    return None


def temperatures(first: float, step: float | None) -> float | tuple[float, ...]:
    """The first temperature and those that follow it up to 1, as openai-whisper's command has them."""
    if not step:
        return first
    if step < SMALLEST_STEP:
        raise ValueError(f"temperature_increment_on_fallback must be 0 or {SMALLEST_STEP} or more")
    count = max(0, int((1.0 - first) / step + 1e-6))
    return tuple(round(first + i * step, 6) for i in range(count + 1))


def place_of(
    workers: int | None, scheduler: str | None, threads: int | None, time_limit: float
) -> Place | None:
    """The cluster that is asked for; None where none is.

    Raises:
        ValueError: two are.
    """
    if workers is None and scheduler is None:
        return None
    if workers is not None and scheduler is not None:
        raise ValueError(
            "--workers are processes of this machine, --scheduler has workers of its own: give one"
        )
    if find_spec("distributed") is None:
        stop(
            "--workers and --scheduler need a package that is not here: pip install 'tilescribe[cluster]'",
            LACKING,
        )
    from app.cluster.engine import Place
    from app.machine import available_threads

    each = max(1, (threads or available_threads()) // (workers or 1))
    return Place(workers, scheduler, each, time_limit)


def check_folders(files: Mapping[str, str | None]) -> None:
    """End the command where a file that it is to write, by its option, can't be; `-` is standard output."""
    for option, file in files.items():
        if file in (None, "-"):
            continue
        path = Path(file or "")
        if not path.absolute().parent.is_dir():
            stop(f"{option} {file}: there is no such folder", USAGE)
        if path.is_dir():
            stop(f"{option} {file}: is a folder", USAGE)
        try:
            check_folder(path.absolute().parent)
        except OSError as error:
            stop(f"{option} {file}: {error.strerror}", USAGE)


def write_file(name: str, text: str) -> None:
    """Write a whole file, or end the command with the reason why it cannot be."""
    try:
        write_whole(Path(name), text)
    except OSError as error:
        stop(f"{name}: {error.strerror or error}", FAILED)
