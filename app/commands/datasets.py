"""`tilescribe datasets`: list, fetch and verify the data sets that have a name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from app.console import Attempts, edge, say
from app.output.tables import aligned

if TYPE_CHECKING:
    from datasets.librispeech import NamedSet

datasets_app = typer.Typer(help="List, fetch and verify LibriSpeech's test sets.", no_args_is_help=True)

DataDir = Annotated[
    Path | None,
    Option(
        metavar="DIR",
        help="A set's own folder, the LibriSpeech folder or the one above it, instead of the user's cache.",
    ),
]


@datasets_app.command("list")
def list_datasets(data_dir: DataDir = None) -> None:
    """Show every data set: name, utterances, hours, size of the archive, and where it is on this machine."""
    from datasets.librispeech import CATALOGUE

    rows = [("NAME", "UTTERANCES", "HOURS", "ARCHIVE", "ON THIS MACHINE")]
    for entry in CATALOGUE.values():
        size, where = f"{entry.archive_bytes / 1e6:.0f} MB", _whereabouts(entry, data_dir)
        rows.append((entry.name, f"{entry.utterances:,}", f"{entry.hours:.1f}", size, where))
    typer.echo("\n".join(aligned(rows, left=5)))


@datasets_app.command("fetch")
def fetch_datasets(
    names: Annotated[list[str], Argument(metavar="NAME...", help="Data sets, as `list` names them.")],
    data_dir: DataDir = None,
) -> None:
    """Get data sets that are not on this machine yet; a download that broke off goes on."""
    from datasets import storing

    attempts = Attempts()
    for entry in _known(names):
        goes_on = "what has arrived is kept, and the same command goes on from there"
        with edge(f"{entry.name}: interrupted: {goes_on}"), attempts.one():
            say(f"{entry.name}: ready in {storing.fetch(entry, data_dir)}")
    attempts.end()


@datasets_app.command("verify")
def verify_datasets(
    names: Annotated[
        list[str] | None, Argument(metavar="[NAME...]", help="Data sets; all that are present by default.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Count utterances and speakers, match transcripts with audio, and decode every recording."""
    from datasets import storing
    from datasets.librispeech import CATALOGUE, verify

    headings = (
        "NAME",
        "STATE",
        "UTTERANCES",
        "SPEAKERS",
        "HOURS",
        "NO AUDIO",
        "NO TEXT",
        "DAMAGED",
        "FOLDER",
    )
    rows: list[tuple[str, ...]] = []
    attempts = Attempts()
    present = (entry for entry in CATALOGUE.values() if storing.located(entry, data_dir))
    entries = _known(names) if names else list(present)
    for entry in entries:
        with edge(), attempts.one():
            folder = storing.located(entry, data_dir)
            if folder is None:
                raise storing.absent(entry, data_dir)
            found = verify(entry, folder)
            contents = found.contents
            count = f"{len(contents.utterances):,} of {entry.utterances:,}"
            speakers = f"{len(contents.speakers)} of {len(entry.speakers)}"
            misfits = (contents.without_audio, contents.without_text, found.damaged)
            wrong = (f"{len(files):,}" for files in misfits)
            hours = f"{found.seconds / 3600:.2f}"
            rows.append((entry.name, found.state, count, speakers, hours, *wrong, str(folder)))
            remedy = f"remove {folder}, and `tilescribe datasets fetch {entry.name}` gets the whole"
            if data_dir is not None:
                remedy = "copy the set again, or give another --data-dir"
            for problem in found.problems:
                attempts.fail(f"{entry.name}: {problem}: {remedy}")
    if rows:
        typer.echo("\n".join(aligned([headings, *rows], left=len(headings))))
    elif not entries:
        say("no data set is on this machine yet: `tilescribe datasets fetch librispeech-test-clean` gets one")
    attempts.end()


def _known(names: list[str]) -> list[NamedSet]:
    """Check every name before anything is done with the first."""
    from datasets.librispeech import named_set

    with edge():
        return [named_set(name) for name in names]


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
