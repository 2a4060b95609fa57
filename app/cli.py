"""The console scripts. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from typing import Any

import typer

from app.commands.bench import bench
from app.commands.command_line import Command
from app.commands.doctor import doctor
from app.commands.evaluate import evaluate, report
from app.commands.kept import datasets_app, models_app
from app.commands.options import VersionOption
from app.commands.serve import serve
from app.commands.transcribe import transcribe
from app.commands.validate import validate
from app.console import run

__all__ = ["evaluate_main", "main", "transcribe_main"]


def _application(**kwargs: Any) -> typer.Typer:
    return typer.Typer(
        context_settings={
            "help_option_names": ["-h", "--help"],
            # openai-whisper spells options with underscores; both are accepted.
            "token_normalize_func": lambda name: name.replace("_", "-"),
        },
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode=None,
        **kwargs,
    )


app = _application(help="Whisper transcription with integer tile attention, and the evidence to deploy it.")
app.command("transcribe", no_args_is_help=True, cls=Command)(transcribe)
app.command("evaluate", no_args_is_help=True, cls=Command)(evaluate)
app.command("report", no_args_is_help=True, cls=Command)(report)
app.command("serve", cls=Command)(serve)
app.command("validate", cls=Command)(validate)
app.command("bench", cls=Command)(bench)
app.command("doctor", cls=Command)(doctor)
app.add_typer(models_app, name="models")
app.add_typer(datasets_app, name="datasets")

_transcribe = _application()
_transcribe.command(no_args_is_help=True, cls=Command)(transcribe)

_evaluate = _application()
_evaluate.command(no_args_is_help=True, cls=Command)(evaluate)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: VersionOption = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """`tilescribe`: every command."""
    run(app)


def transcribe_main() -> None:
    """`transcribe`: the command that most people want."""
    run(_transcribe, prog_name="transcribe")


def evaluate_main() -> None:
    """`evaluate`: the command that decides."""
    run(_evaluate, prog_name="evaluate")
