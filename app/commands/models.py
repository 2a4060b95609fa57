"""`tilescribe models`: list, fetch and verify Whisper's weights."""

from typing import Annotated

import typer
from typer import Argument

from app.console import Attempts, edge, say
from app.output.tables import aligned

models_app = typer.Typer(help="List, fetch and verify Whisper's weights.", no_args_is_help=True)


@models_app.command("list")
def list_models() -> None:
    """Show every model: name, size, where it comes from, and where it is on this machine (unchecked)."""
    from models.weights import loading as weights

    rows = [("NAME", "PARAMETERS", "SOURCE", "ON THIS MACHINE")]
    for name in weights.model_names():
        path = weights.cached_path(name) or "-"
        rows.append((name, f"{weights.parameters(name)} M", weights.origin_of(name).kind, str(path)))
    typer.echo("\n".join(aligned(rows, left=4)))


@models_app.command("fetch")
def fetch_models(
    names: Annotated[list[str], Argument(metavar="NAME...", help="Models, as `list` names them.")],
) -> None:
    """Get models that are not on this machine yet, and replace damaged ones."""
    from models.weights import loading as weights

    _require_known(names)
    attempts = Attempts()
    for name in names:
        with attempts.one():
            say(f"{name}: ready in {weights.fetch(name)}")
    attempts.end()


@models_app.command("verify")
def verify_models(
    names: Annotated[
        list[str] | None, Argument(metavar="[NAME...]", help="Models; all that are present by default.")
    ] = None,
) -> None:
    """Compare the files of models on this machine with their SHA-256."""
    from models.weights import loading as weights

    _require_known(names or [])
    chosen = names or [name for name in weights.model_names() if weights.cached_path(name)]
    rows, attempts = [("NAME", "STATE", "SHA-256", "FILE")], Attempts()
    for name in chosen:
        with attempts.one():
            result = weights.verify(name)
            rows.append((name, result.state, result.found_sha256 or "-", str(result.path)))
            if result.problem:
                attempts.fail(result.problem)
    if chosen:
        typer.echo("\n".join(aligned(rows, left=4)))
    else:
        say("no model is on this machine yet: `tilescribe models fetch base` gets the default one")
    attempts.end()


def _require_known(names: list[str]) -> None:
    """Check every name before anything is done with the first."""
    from models.weights import loading as weights

    with edge():
        for name in names:
            weights.origin_of(name)
