"""`tilescribe models`: list, fetch and verify Whisper's weights."""

from typing import Annotated

import typer

from app.console import LACKING, USAGE, say
from app.output.tables import aligned

models_app = typer.Typer(help="List, fetch and verify Whisper's weights.", no_args_is_help=True)


@models_app.command("list")
def list_models() -> None:
    """Show every model: name, size, where it comes from, and where it is on this machine (unchecked)."""
    from models.weights import loading as weights

    rows = [("NAME", "PARAMETERS", "SOURCE", "ON THIS MACHINE")]
    for name in weights.model_names():
        path = weights.cached_path(name)
        rows.append((name, f"{weights.parameters(name)} M", weights.source(name), str(path) if path else "-"))
    typer.echo("\n".join(aligned(rows, left=4)))


@models_app.command("fetch")
def fetch_models(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models, as `list` names them.")],
) -> None:
    """Get models that are not on this machine yet, and replace damaged ones."""
    from models.weights import loading as weights

    _require_known(names)
    failed = False
    for name in names:
        try:
            path = weights.fetch(name)
            say(f"{name}: ready in {path}")
        except weights.WeightsError as error:
            say(f"error: {error}")
            failed = True
    if failed:
        raise typer.Exit(LACKING)


@models_app.command("verify")
def verify_models(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Models; all that are present by default.")
    ] = None,
) -> None:
    """Compare the files of models on this machine with their SHA-256."""
    from models.weights import loading as weights

    _require_known(names or [])
    chosen = names or [name for name in weights.model_names() if weights.cached_path(name)]
    rows, failed = [("NAME", "STATE", "SHA-256", "FILE")], False
    for name in chosen:
        try:
            result = weights.verify(name)
        except weights.WeightsError as error:
            say(f"error: {error}")
            failed = True
            continue
        rows.append((name, result.state, result.found_sha256 or "-", str(result.path)))
        if result.problem:
            say(f"error: {result.problem}")
            failed = True
    if chosen:
        typer.echo("\n".join(aligned(rows, left=4)))
    else:
        say("no model is on this machine yet: `tilescribe models fetch base` gets the default one")
    if failed:
        raise typer.Exit(LACKING)


def _require_known(names: list[str]) -> None:
    """Check every name before anything is done with the first."""
    from models.weights import loading as weights

    for name in names:
        try:
            weights.location(name)
        except weights.UnknownModelError as error:
            say(f"error: {error}")
            raise typer.Exit(USAGE) from None
