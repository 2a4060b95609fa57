"""The edge of every command: exit codes, and one line on standard error for what a user should know."""

from __future__ import annotations

import codecs
import io
import os
import pwd
import select
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import typer

from app.startup import INTERRUPTED as INTERRUPTED
from app.startup import interrupted, interruptible

FAILED = 1
"""Some input failed, the rest is done."""
USAGE = 2
"""Wrong usage."""
LACKING = 5
"""The environment lacks something; the message has the remedy."""


_BETWEEN = 10
"""Seconds between lines about progress."""

# By name, as a command that starts, or whose arguments are wrong, waits for no package that it does not need.
CODES = {
    "app.audio.containers.AudioError": FAILED,
    "app.cluster.engine.ClusterError": LACKING,
    "app.configuration.ConfigurationError": USAGE,
    "app.evaluation.records.EvidenceError": USAGE,
    "app.live.sources.MicrophoneError": LACKING,
    "datasets.utterance.DatasetError": LACKING,
    "datasets.utterance.UnknownDatasetError": USAGE,
    "kernels.device.DeviceError": LACKING,
    "models.decoding.options.OptionsError": USAGE,
    "models.weights.loading.UnknownModelError": USAGE,
    "models.weights.loading.WeightsError": LACKING,
}


class _Kept(io.FileIO):
    """A standard stream on which what can't be written is lost, not the work.

    That the reader of standard output left is raised once, as there may be nothing more to do.

    Attributes:
        lost: why something could not be written.
    """

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            while (
                written := super().write(data)
            ) is None:  # whoever shares it made it one that does not wait
                select.select([], [self], [])
            return written
        except OSError as error:
            first, self.lost = self.lost is None, self.lost or error
            if first and isinstance(error, BrokenPipeError) and self.fileno() != 2:
                raise
            return len(data)


def run(application: Callable[..., Any], **how: Any) -> None:
    """Run a command on streams that may be closed, full or of any encoding; output that was lost is an error."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # else the next file that is opened takes its place; writing to this one fails
            os.open(os.devnull, os.O_RDONLY)
    _find_home()
    replaced: list[str] = []

    def replace(error: UnicodeError) -> tuple[str | bytes, int]:
        if isinstance(error, UnicodeEncodeError):
            replaced.append(error.object[error.start : error.end])
        return codecs.replace_errors(error)

    codecs.register_error("tilescribe-replace", replace)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    output, errors = _Kept(os.dup(1), "w"), _Kept(2, "w", closefd=False)
    os.dup2(2, 1)  # standard output is the command's own: libraries print to 1, XRT where a device is lost
    sys.stdout = _text(sys.stdout, output, "tilescribe-replace")
    sys.stderr = _text(sys.stderr, errors, "backslashreplace")
    code: Any = 0
    interruptible(True)
    try:
        with edge():
            application(**how)
    except SystemExit as ended:
        code = ended.code
        if isinstance(getattr(ended.__context__, "__cause__", None), KeyboardInterrupt):
            say("error: interrupted")  # in no edge; typer ends the command without a word
    except typer.Exit as ended:
        code = ended.exit_code
    interruptible(False)
    if interrupted():
        code = INTERRUPTED
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    if replaced:
        count = len("".join(replaced))
        say(
            f"note: standard output is in {sys.stdout.encoding}, which lacks {count} of its characters: ? there"
        )
    if output.lost and not isinstance(output.lost, BrokenPipeError):
        say(f"error: standard output: {output.lost.strerror}")
    sys.exit(code or (FAILED if output.lost else 0))


def _find_home() -> None:
    """Give every package the same home, also where HOME is no path and for a user whom the system does not know."""
    if not os.path.isabs(os.environ.get("HOME", "")):
        try:
            os.environ["HOME"] = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            # As Debian has it: nothing is there, and what can't be written there is told with its path.
            os.environ["HOME"] = "/nonexistent"


def _text(given: Any, stream: _Kept, errors: str) -> io.TextIOWrapper:
    """The text stream in the place of one that Python opened, or that it found closed."""
    encoding = given.encoding if given else "utf-8"
    if given and given.errors not in ("strict", "surrogateescape", "backslashreplace"):
        errors = given.errors  # as PYTHONIOENCODING asks for
    buffer = io.BufferedWriter(stream)
    return io.TextIOWrapper(buffer, encoding, errors, line_buffering=stream.isatty() or stream.fileno() == 2)


def say(text: str) -> None:
    """Write a line to standard error."""
    print(text, file=sys.stderr, flush=True)


def pass_on(quiet: bool = False) -> None:
    """Say what packages below log: what goes wrong, and unless it is to be quiet what takes a while."""
    import logging

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(f"note: {record.getMessage()}")

    for name in ("kernels", "models"):
        below = logging.getLogger(name)
        below.handlers, below.propagate = [Said()], False
        below.setLevel(logging.WARNING if quiet else logging.INFO)


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
    if lacking(error):
        return LACKING
    # A path that the system refuses; without a path an OSError may be a fault of ours.
    return LACKING if isinstance(error, OSError) and error.filename is not None else None


# How libraries say it that do not raise MemoryError: C++'s, OpenVINO's, PyTorch's, the loader's, the kernel's.
_NO_MEMORY = (
    "bad_alloc",
    "can't alloc",
    "cannot allocate memory",
    "failed to map segment",
    "not enough memory",
)
_NO_THREADS = ("can't start new thread", "resource temporarily unavailable")
_NO_FILES = ("too many open files",)


def lacking(error: BaseException | None) -> str:
    """What the system gave no more of, in whatever words the error says so, with a remedy; empty for any other."""
    while error is not None:
        text = str(error).lower()
        if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY + _NO_THREADS):
            return "the system has no more memory or threads: a smaller --model, --batch-size or --threads takes less"
        if any(words in text for words in _NO_FILES):
            return "the system lets this program open no more files: `ulimit -n 1024` lets it"
        error = error.__cause__ or error.__context__
    return ""


def line(error: BaseException, place: object = "") -> str:
    """What to say of an error; `place` is what an OSError is about that names no file."""
    if hasattr(error, "remedy"):
        return f"{error} ({error.remedy})" if error.remedy else str(error)
    if lacks := lacking(error):
        return lacks
    if isinstance(error, OSError):
        return f"{error.filename or place}: {error.strerror or error}"
    return str(error)


@contextmanager
def edge(
    at_interrupt: str = "interrupted", others: Mapping[type[Exception], int] = {}, place: object = ""
) -> Iterator[None]:
    """End a command with one line and an exit code where an error or Ctrl-C comes; our own faults keep their traceback.

    Args:
        at_interrupt: what to say at Ctrl-C, such as how to go on.
        others: as `exit_code` takes them.
        place: what an OSError is about that names no file.
    """
    try:
        yield
    except KeyboardInterrupt:
        stop(at_interrupt, INTERRUPTED)
    except Exception as error:
        if interrupted() and not isinstance(error, typer.Exit):  # what a library made of it
            stop(at_interrupt, INTERRUPTED)
        code = exit_code(error, others)
        if code is None:
            raise
        stop(line(error, place), code)


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
            if exit_code(error) is None or interrupted():
                raise
            self.fail(line(error))

    def fail(self, text: str) -> None:
        """Say what is wrong with one of them."""
        say(f"error: {text}")
        self._failed = True

    def end(self) -> None:
        """End the command where one failed, as something is lacking."""
        if self._failed:
            raise typer.Exit(LACKING)


class _Lines:
    """What a bar would draw, a line at a time."""

    def write(self, text: str) -> None:
        if text := text.strip("\r "):
            say(text)

    def flush(self) -> None:
        """Each line has left already."""


def bar(shown: bool | None, **how: Any) -> Any:
    """A `tqdm` on standard error, with these arguments.

    Args:
        shown: False shows nothing; None a bar on a terminal, and a line about every ten seconds anywhere else.
        how: tqdm's.
    """
    from tqdm import tqdm

    if shown is None and not sys.stderr.isatty():
        how["bar_format"] = "{desc}: {n_fmt} of {total_fmt} {unit}, {elapsed} gone, {remaining} left"
        return tqdm(file=_Lines(), delay=_BETWEEN, mininterval=_BETWEEN, leave=False, **how)
    return tqdm(disable=shown is False, leave=False, **how)


@contextmanager
def progress_bar(name: str, unit: str, shown: bool | None) -> Iterator[Callable[..., None]]:
    """A `bar`, moved by what is done, what there is in all, and what comes next where it has a name."""
    with bar(shown, desc=name, unit=unit) as it:

        def on_progress(done: int, total: int, following: str = "") -> None:
            it.total = total
            it.update(done - it.n)
            if following:
                it.set_description_str(following, refresh=False)

        yield on_progress
