"""What every command has in common: exit codes, and one line on standard error for what a user should know."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

FAILED = 1
"""Some input failed, the rest is done."""
USAGE = 2
"""Wrong usage."""
LACKING = 5
"""The environment lacks something; the message has the remedy."""
INTERRUPTED = 130
"""Ctrl-C."""


def say(text: str) -> None:
    """Write a line to standard error."""
    print(text, file=sys.stderr, flush=True)


def stop(message: str, code: int) -> NoReturn:
    """Say what is wrong and end the command."""
    say(f"error: {message}")
    raise typer.Exit(code)


@contextmanager
def progress_bar(name: str, unit: str, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, moved by what is done and what there is in all."""
    from tqdm import tqdm

    with tqdm(desc=name, unit=unit, disable=not shown, leave=False) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield on_progress
