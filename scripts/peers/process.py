"""A side in a process of its own: the threads and the memory of one never meet those of another.

Run as a program it is that process: it makes the side that it is told, and calls what it is told, over pipes.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self


class MeasureError(RuntimeError):
    """A side could not do its work: its traceback, or what it wrote to standard error."""


class Done(NamedTuple):
    """What a method took in its process, and what it returned; `cpu` are seconds of all threads together."""

    seconds: float
    result: Any
    cpu: float


class Worker:
    """A side in its process.

    Attributes:
        load: what making the side took, its imports included.
        said: version and instructions, as the side tells them.
    """

    def __init__(
        self,
        side: str,
        *arguments: Any,
        python: Path | None = None,
        variables: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        """Start a process that makes the side of that name.

        Args:
            side: a class of `peers.sides`.
            arguments: of it.
            python: of an environment of its own; then it finds no package of ours by a PYTHONPATH.
            variables: of its process, beside ours.
            options: of the side.
        """
        self._side = side
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the worker
        environment = {k: v for k, v in os.environ.items() if not (python and k.startswith("PYTHON"))}
        self._process = subprocess.Popen(
            [python or sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**environment, **(variables or {})},
        )
        self.load = self._call("__init__", side, *arguments, **options).seconds
        self.said: dict[str, str] = self._call("said").result

    def call(self, method: str, *arguments: Any) -> Done:
        """The seconds that a method takes in its process, and what it returns."""
        # Threads of OpenMP wait for work in a loop for a while; the other side is not to be measured against them.
        time.sleep(0.3)
        return self._call(method, *arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        self._errors.close()

    def _call(self, method: str, *arguments: Any, **options: Any) -> Done:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump((method, arguments, options), self._process.stdin)
            self._process.stdin.flush()
            done, problem = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip().splitlines()[-3:]
            raise MeasureError(f"the process of {self._side} ended on its own: {' '.join(last)}") from None
        if problem:
            self.__exit__()
            raise MeasureError(problem)
        return Done(*done)


def serve() -> None:
    """Do what is asked for on standard input; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import sides  # beside this file

    made: Any = None
    while True:
        try:
            method, arguments, options = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer: Any
        start, cpu = time.perf_counter(), _cpu()
        try:
            if method == "__init__":
                made, result = getattr(sides, arguments[0])(*arguments[1:], **options), None
            elif method == "megabytes":
                result = sides.peak_megabytes()
            else:
                result = getattr(made, method)(*arguments, **options)
            answer = (time.perf_counter() - start, result, _cpu() - cpu), None
        except Exception:
            answer = None, traceback.format_exc().strip()
        pickle.dump(answer, answers)
        answers.flush()


def _cpu() -> float:
    """Seconds of CPU of this process and of those that it waited for."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    serve()
