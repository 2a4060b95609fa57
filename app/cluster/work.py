"""The work itself, at a worker."""

from __future__ import annotations

import faulthandler
import hashlib
import os
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from app.audio.containers import AudioError
from kernels.device import DeviceError

_HEAD = 1 << 16


class WorkLostError(Exception):
    """Work that ended every worker that it was given to; the text says so in a few words."""


class Loaded(Protocol):
    """What a job came to in a process.

    Attributes:
        facts: what decides its results, by name: they have to be the same everywhere.
    """

    facts: dict[str, str]

    def run(self, *task: Any) -> Any:
        """Do one piece of work."""


class Job(Protocol):
    """What is sent to every worker, once."""

    def load(self, threads: int) -> Loaded:
        """Load it, to compute with so many threads."""


LOADED: dict[str, Loaded] = {}
"""By the name of the run; see `app.cluster.admission`."""


def work(run: str, time_limit: float, task: bytes) -> Any:
    """Do a pickled piece of work. A process that takes longer than allowed, or whose device fails, ends itself.

    Dask then has the work done by another, and the process begun anew.
    """
    # Not by a thread of ours, which would wait for whoever hangs and holds the interpreter's lock.
    faulthandler.dump_traceback_later(time_limit, exit=True, file=2)
    try:
        return LOADED[run].run(*pickle.loads(task))
    except DeviceError as error:
        os.write(2, f"error: {error}\n".encode())
        os._exit(1)
    finally:
        faulthandler.cancel_dump_traceback_later()


@dataclass(frozen=True)
class SharedFile:
    """A recording's file as it is where the work is given out.

    Attributes:
        path: there; it is read at the same path here, unless it is sent along.
        size: in bytes; None where nothing is to be checked.
        head: SHA-256 of its first 64 KiB.
        data: all of it, where it is sent.
    """

    path: str
    size: int | None = None
    head: bytes = b""
    data: bytes | None = None

    @classmethod
    def of(cls, path: str, *, send: bool) -> SharedFile:
        """A file as it is now; what can't be read is left to whoever reads it, who says why."""
        try:
            with open(path, "rb") as file:
                head = file.read(_HEAD)
                data = head + file.read() if send else None
                return cls(path, os.fstat(file.fileno()).st_size, hashlib.sha256(head).digest(), data)
        except OSError:
            return cls(path)

    @contextmanager
    def at_hand(self) -> Iterator[str]:
        """A path to read it at.

        Raises:
            AudioError: what is at the path here is another file, or nothing.
        """
        if self.data is not None:
            with tempfile.NamedTemporaryFile(prefix="tilescribe-") as file:
                file.write(self.data)
                file.flush()
                yield file.name
            return
        if self.size is not None:
            here = SharedFile.of(self.path, send=False)
            if here != self:
                what = "is not there" if here.size is None else f"is another file ({here.size:,} bytes)"
                raise AudioError(
                    self.path, f"{what} on worker {os.uname().nodename}: share its folder, or --send-audio"
                )
        yield self.path
