"""`tilescribe models` and `tilescribe datasets`: list, fetch and verify what is kept on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from typer import Argument, Option

from app.console import Attempts, edge, say
from app.output.tables import aligned

if TYPE_CHECKING:
    from datasets.librispeech import NamedSet

models_app = typer.Typer(help="List, fetch and verify Whisper's weights.", no_args_is_help=True)
datasets_app = typer.Typer(help="List, fetch and verify LibriSpeech's test sets.", no_args_is_help=True)

Found = TypeVar("Found")
Row = tuple[str, ...]

DataDir = Annotated[
    Path | None,
    Option(
        metavar="DIR",
        help="Folder of the set, LibriSpeech or the one above it, instead of the user's cache.",
    ),
]


def _known(names: Sequence[str], find: Callable[[str], Found]) -> list[Found]:
    """What has these names: every one is looked up before anything is done with the first."""
    with edge():
        return [find(name) for name in names]


def _print(heading: Row, rows: Sequence[Row]) -> None:
    typer.echo("\n".join(aligned([heading, *rows], left=len(heading))))


@models_app.command("list")
def list_models() -> None:
    """Show every model: name, sizes, where it comes from, and where it is on this machine (unchecked)."""
    from models.weights import loading as weights

    rows = []
    for name in weights.model_names():
        path = weights.cached_path(name) or "-"
        size = f"{2 * weights.parameters(name):,} MB"  # float16
        rows.append((name, f"{weights.parameters(name)} M", size, weights.origin_of(name).kind, str(path)))
    _print(("NAME", "PARAMETERS", "DOWNLOAD", "SOURCE", "ON THIS MACHINE"), rows)


@models_app.command("fetch")
def fetch_models(
    names: Annotated[list[str], Argument(metavar="NAME...", help="Models to get, as `list` names them.")],
) -> None:
    """Get models that are not on this machine yet, and replace damaged ones."""
    from models.weights import loading as weights

    _known(names, weights.origin_of)
    attempts = Attempts()
    for name in names:
        with attempts.one():
            say(f"{name}: ready in {weights.fetch(name)}")
    attempts.end()


@models_app.command("verify")
def verify_models(
    names: Annotated[
        list[str] | None,
        Argument(metavar="[NAME...]", help="Models to verify; all that are present unless given."),
    ] = None,
) -> None:
    """Compare the files of models on this machine with their SHA-256."""
    from models.weights import loading as weights

    _known(names or (), weights.origin_of)
    chosen = names or [name for name in weights.model_names() if weights.cached_path(name)]
    rows, attempts = [], Attempts()
    for name in chosen:
        with attempts.one():
            result = weights.verify(name)
            rows.append((name, result.state, result.found_sha256 or "-", str(result.path)))
            if result.problem:
                attempts.fail(result.problem)
    if chosen:
        _print(("NAME", "STATE", "SHA-256", "FILE"), rows)
    else:
        say("no model is on this machine yet: `tilescribe models fetch base` gets the default one")
    attempts.end()


@datasets_app.command("list")
def list_datasets(data_dir: DataDir = None) -> None:
    """Show every data set: name, utterances, hours, size of the archive, and where it is on this machine."""
    from datasets.librispeech import CATALOGUE

    rows = []
    for entry in CATALOGUE.values():
        size, where = f"{entry.archive_bytes / 1e6:.0f} MB", _whereabouts(entry, data_dir)
        rows.append((entry.name, f"{entry.utterances:,}", f"{entry.hours:.1f}", size, where))
    _print(("NAME", "UTTERANCES", "HOURS", "ARCHIVE", "ON THIS MACHINE"), rows)


def _whereabouts(entry: NamedSet, data_dir: Path | None) -> str:
    from datasets import storing
    from datasets.librispeech import read
    from datasets.utterance import DatasetError

    folder = storing.located(entry, data_dir)
    if folder is None:
        return "-"
    try:
        contents = read(folder)
    except DatasetError:
        return f"damaged: {folder}"
    if entry.is_whole(contents):
        return str(folder)
    return f"{len(contents.utterances):,} of {entry.utterances:,}: {folder}"


@datasets_app.command("fetch")
def fetch_datasets(
    names: Annotated[list[str], Argument(metavar="NAME...", help="Data sets to get, as `list` names them.")],
    data_dir: DataDir = None,
) -> None:
    """Get data sets that are not on this machine yet; a download that broke off goes on."""
    from datasets import storing
    from datasets.librispeech import named_set

    attempts = Attempts()
    for entry in _known(names, named_set):
        goes_on = "what has arrived is kept, and the same command goes on from there"
        with edge(f"{entry.name}: interrupted: {goes_on}"), attempts.one():
            say(f"{entry.name}: ready in {storing.fetch(entry, data_dir)}")
    attempts.end()


@datasets_app.command("verify")
def verify_datasets(
    names: Annotated[
        list[str] | None,
        Argument(metavar="[NAME...]", help="Data sets to verify; all that are present unless given."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Count utterances and speakers, match transcripts with audio, and decode every recording."""
    from datasets import storing
    from datasets.librispeech import CATALOGUE, named_set, verify

    heading = ("NAME", "STATE", "UTTERANCES", "SPEAKERS", "HOURS", "NO AUDIO", "NO TEXT", "DAMAGED", "FOLDER")
    rows: list[Row] = []
    attempts = Attempts()
    present = (entry for entry in CATALOGUE.values() if storing.located(entry, data_dir))
    entries = _known(names, named_set) if names else list(present)
    for entry in entries:
        with edge(), attempts.one():
            folder = storing.located(entry, data_dir)
            if folder is None:
                raise storing.absent(entry, data_dir)
            found = verify(entry, folder)
            contents = found.contents
            count = f"{len(contents.utterances):,} of {entry.utterances:,}"
            speakers = f"{len(contents.speakers)} of {len(entry.speakers)}"
            hours = f"{found.seconds / 3600:.2f}"
            misfits = (contents.without_audio, contents.without_text, found.damaged)
            wrong = (f"{len(files):,}" for files in misfits)
            rows.append((entry.name, found.state, count, speakers, hours, *wrong, str(folder)))
            remedy = f"remove {folder}, and `tilescribe datasets fetch {entry.name}` gets the whole"
            if data_dir is not None:
                remedy = "copy the set again, or give another --data-dir"
            for problem in found.problems:
                attempts.fail(f"{entry.name}: {problem}: {remedy}")
    if rows:
        _print(heading, rows)
    elif not entries:
        say("no data set is on this machine yet: `tilescribe datasets fetch librispeech-test-clean` gets one")
    attempts.end()
