"""Dask clusters for tests: a scheduler and workers in processes of their own, over TCP on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from places import ROOT


def _dask(command: str, *arguments: str, **how: Any) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "dask", command, *arguments]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, text=True, **how)


def worker(address: str, *arguments: str) -> subprocess.Popen[str]:
    """A worker that finds the tests' own modules."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    how: Any = {"env": os.environ | {"PYTHONPATH": paths}, "stderr": subprocess.DEVNULL}
    return _dask("worker", address, "--no-dashboard", "--nthreads", "1", *arguments, **how)


@contextmanager
def scheduler() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A scheduler on a free port, with its address; it is killed at the end, and its workers end with it."""
    where = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    process = _dask("scheduler", *where, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"Scheduler at: *(tcp://\S+)", line):
                break
        else:
            raise AssertionError("no scheduler came up")
        yield found[1], process
    finally:
        process.kill()
        process.communicate()
