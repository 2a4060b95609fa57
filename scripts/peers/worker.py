"""A side in a process of its own: the threads and the memory of one never meet those of another."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from peers import sides

__all__ = ["Worker", "WorkerFailed"]

# Threads of OpenMP wait for work in a loop for a while; the other side is not to be measured against them.
_SETTLE_SECONDS = 0.3


class WorkerFailed(RuntimeError):  # noqa: N818
    """A side could not do its work: its traceback."""


class Worker:
    """Runs methods of one side, and times them inside its process."""

    def __init__(self, side: str, *arguments: Any, **options: Any) -> None:
        """Start a process that makes `peers.sides.<side>(*arguments, **options)`."""
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, side, arguments, options), daemon=True, name=side
        )
        self._process.start()
        theirs.close()
        self._receive()

    def call(self, method: str, *arguments: Any) -> Any:
        """What a method returns."""
        return self._run(method, arguments)[1]

    def seconds(self, method: str, *arguments: Any) -> float:
        """The seconds that a method takes."""
        time.sleep(_SETTLE_SECONDS)
        return self._run(method, arguments)[0]

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(10)
        self._process.terminate()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, method: str, arguments: tuple[Any, ...]) -> tuple[float, Any]:
        self._connection.send((method, arguments))
        return self._receive()

    def _receive(self) -> tuple[float, Any]:
        try:
            failure, seconds, result = self._connection.recv()
        except EOFError:
            raise WorkerFailed(f"the process of {self._process.name} ended on its own") from None
        if failure:
            raise WorkerFailed(failure)
        return seconds, result


def _serve(connection: Connection, side: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    try:
        served = getattr(sides, side)(*arguments, **options)
        connection.send((None, 0.0, None))
        while True:
            method, given = connection.recv()
            start = time.perf_counter()
            result = getattr(served, method)(*given)
            connection.send((None, time.perf_counter() - start, result))
    except EOFError:
        return
    except Exception:
        connection.send((traceback.format_exc(), 0.0, None))
