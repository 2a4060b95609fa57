"""The edge of every command: exit codes, and one line on standard error for what a user should know."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
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


# By name, as a command that starts, or whose arguments are wrong, waits for no package that it does not need.
CODES = {
    "app.audio.containers.AudioError": FAILED,
    "app.configuration.ConfigurationError": USAGE,
    "app.evaluation.worker.WorkerLostError": LACKING,
    "app.evaluation.records.EvidenceError": USAGE,
    "datasets.utterance.DatasetError": LACKING,
    "datasets.utterance.UnknownDatasetError": USAGE,
    "kernels.device.DeviceError": LACKING,
    "models.decoding.options.OptionsError": USAGE,
    "models.weights.loading.UnknownModelError": USAGE,
    "models.weights.loading.WeightsError": LACKING,
}


def say(text: str) -> None:
    """Write a line to standard error."""
    print(text, file=sys.stderr, flush=True)


def stop(message: str, code: int) -> NoReturn:
    """Say what is wrong and end the command."""
    say(f"error: {message}")
    raise typer.Exit(code)


def exit_code(error: BaseException, others: Mapping[type[Exception], int] = {}) -> int | None:
    """The exit code for an error that is not a fault of ours; None for any other.

    Args:
        error: what a command ended with.
        others: errors beside the packages' own that tell this command of wrong input, with their codes.
    """
    for kind in type(error).__mro__:
        code = CODES.get(f"{kind.__module__}.{kind.__qualname__}", others.get(kind))
        if code is not None:
            return code
    return None


@contextmanager
def edge(
    interrupted: str = "interrupted", others: Mapping[type[Exception], int] = {}, place: object = ""
) -> Iterator[None]:
    """End a command with one line and an exit code where an error or Ctrl-C comes; our own faults keep their traceback.

    Args:
        interrupted: what to say at Ctrl-C, such as how to go on.
        others: as `exit_code` takes them.
        place: what an OSError is about that names no file.
    """
    try:
        yield
    except KeyboardInterrupt:
        stop(interrupted, INTERRUPTED)
    except Exception as error:
        code = exit_code(error, others)
        if code is None:
            raise
        if isinstance(error, OSError):
            stop(f"{error.filename or place}: {error.strerror or error}", code)
        stop(str(error), code)


class Attempts:
    """The same with several inputs: one that fails is said and does not stop the others."""

    def __init__(self) -> None:
        self._failed = False

    @contextmanager
    def one(self) -> Iterator[None]:
        """Say what goes wrong with one of them."""
        try:
            yield
        except Exception as error:
            if exit_code(error) is None:
                raise
            self.fail(str(error))

    def fail(self, text: str) -> None:
        """Say what is wrong with one of them."""
        say(f"error: {text}")
        self._failed = True

    def end(self) -> None:
        """End the command where one failed, as something is lacking."""
        if self._failed:
            raise typer.Exit(LACKING)


@contextmanager
def progress_bar(name: str, unit: str, shown: bool) -> Iterator[Callable[..., None]]:
    """A bar on standard error, moved by what is done, what there is in all, and what comes next where it has a name."""
    from tqdm import tqdm

    with tqdm(desc=name, unit=unit, disable=not shown, leave=False) as bar:

        def on_progress(done: int, total: int, following: str = "") -> None:
            bar.total = total
            bar.update(done - bar.n)
            if following:
                bar.set_description(following)

        yield on_progress
