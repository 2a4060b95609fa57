"""What the engine itself costs: short pieces of work of known cost through a scheduler and workers over TCP.

    python scripts/scale.py --items 100000 --workers 2

prints, ten times on the way, pieces a second, seconds of CPU a piece (the work's own apart), and the memory of this
process (which gives the work out) and of the scheduler.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psutil

from app.cluster.engine import Place, shared_out
from app.machine import processor


class Stub:
    """Spends so many seconds of CPU on a piece; its own job."""

    def __init__(self, cost: float) -> None:
        self.facts: dict[str, str] = {}
        self.cost = cost

    def load(self, threads: int) -> Stub:
        """Nothing has to be loaded."""
        return self

    def run(self, number: int) -> int:
        """Spend it."""
        end = time.thread_time() + self.cost
        while time.thread_time() < end:
            pass
        return number


def started(stack: ExitStack, *words: str, until: str = "") -> tuple[psutil.Process, str]:
    """A process of Dask's that is ended at the end, and what it said that fits."""
    command = [sys.executable, "-m", "dask", *words]
    process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    stack.callback(process.kill)
    assert process.stderr is not None
    found = next((m[1] for line in process.stderr if (m := re.search(until, line))), "")
    # What it says from now on has to go somewhere.
    stack.enter_context(subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL))
    return psutil.Process(process.pid), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cost", type=float, default=0.0, help="seconds of CPU a piece")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the processes that it started end with it
    with ExitStack() as stack:
        local = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
        scheduler, address = started(
            stack, "scheduler", *local, "--port", "0", until=r"Scheduler at: *(tcp\S+)"
        )
        common = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
        workers = [
            started(stack, "worker", address, *common, until="(Registered)")[0]
            for _ in range(options.workers)
        ]
        every = [psutil.Process(), scheduler, *workers]

        def spent() -> float:
            return sum(sum(process.cpu_times()[:2]) for process in every)

        def tasks() -> Iterator[tuple[int]]:
            for number in range(options.items):
                yield (number,)

        stub, step = Stub(options.cost), max(1, options.items // 10)
        print(f"{processor()}; {options.workers} workers; {options.cost:g} s of work a piece")
        for done, _ in enumerate(
            shared_out(Place(None, address, 1, 600.0), stub, stub.facts, tasks()), start=1
        ):
            if done == 1:
                begun, cpu = time.monotonic(), spent()
            if done % step == 0:
                here, there = (process.memory_info().rss / 2**20 for process in every[:2])
                rate = (done - 1) / (time.monotonic() - begun)
                own = (spent() - cpu) / done - options.cost
                print(
                    f"{done:9,} pieces: {rate:5.0f} a second, {own * 1000:.1f} ms of CPU beside the work; "
                    f"client {here:.0f} MB, scheduler {there:.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
