"""Giving work out to a Dask cluster and taking its results in.

As much work is under way as keeps every worker busy, and no more: neither the scheduler nor this process has a list
of all of it.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count, islice
from multiprocessing import resource_tracker
from queue import SimpleQueue
from typing import Any

import cloudpickle
import dask
from distributed import Client, Future, KilledWorker, LocalCluster
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError
from distributed.utils import LoopRunner

from app.cluster import admission
from app.cluster.work import Job, WorkLostError, work
from app.console import say
from app.machine import versions

cloudpickle.register_pickle_by_value(admission)
for _name in ("distributed", "distributed.client"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_AHEAD = 2
"""Pieces of work a worker: one that is done, and one that waits there."""
_LOADS = 3
"""How often a worker may end while it loads."""
_RETRIES = 2
_KEYS = 1000
"""Of pieces that are done, before the first of them is used again."""
_CONNECT = 10
"""Seconds for a scheduler to answer."""

_QUIET: dict[str, Any] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
"""Without a dashboard to show there is nothing to be served over HTTP."""
_CONFIGURATION = {
    # A worker that ended is begun anew however long that takes: Dask would let go of it after 15 s.
    "distributed.deploy.lost-worker-timeout": "1000d",
    "distributed.worker.profile.enabled": False,
    # What Dask sets for others: a work's threads are as many as it was given, and memory is kept for the next piece.
    "distributed.nanny.pre-spawn-environ": {},
}
_NO_WARNING = "ignore::UserWarning:multiprocessing.resource_tracker"
"""What multiprocessing says of semaphores where this process is ended by a signal."""


class ClusterError(Exception):
    """A cluster that cannot be had, or is gone; the text is one line with the remedy."""


@dataclass(frozen=True)
class Place:
    """Where work is done.

    Attributes:
        workers: processes of this machine, in a cluster of its own.
        scheduler: address of one that is there already, whose workers take part, whenever they join.
        threads: of each process of this machine; other workers have as many as they were started with.
        time_limit: seconds for a piece of work; who takes longer is ended, and another does it.
    """

    workers: int | None
    scheduler: str | None
    threads: int
    time_limit: float


def shared_out(
    place: Place, job: Job, facts: dict[str, str], tasks: Iterable[tuple[Any, ...]]
) -> Iterator[Any]:
    """Have tasks done by a cluster.

    Args:
        place: the cluster.
        job: what its workers load.
        facts: of the same here; workers where they are others are refused.
        tasks: arguments of the job's `run`, which are taken when there is room for more.

    Yields:
        Each task with its result, or with `WorkLostError`, in the order in which they are done.

    Raises:
        ClusterError: there is no cluster, or it is gone, or refuses all of its workers.
        Exception: what the work raised, again and again.
    """
    with _connected(place) as client:
        try:
            yield from _Run(client, place, job, facts).results(tasks)
        except (CommClosedError, FutureCancelledError) as error:
            raise ClusterError(f"scheduler {place.scheduler}: is gone") from error


@contextmanager
def _connected(place: Place) -> Iterator[Client]:
    with ExitStack() as stack:
        address: Any = place.scheduler
        dashboard = address is not None
        if address is None:
            dashboard = find_spec("bokeh") is not None
            stack.enter_context(dask.config.set(_CONFIGURATION | ({} if dashboard else _QUIET)))
            try:
                address = stack.enter_context(_local(place, stack.enter_context(_uninterrupted_loop())))
            except (OSError, RuntimeError, TimeoutError) as error:
                raise ClusterError(f"no workers could be started: {error}") from error
        try:
            client = stack.enter_context(Client(address, timeout=_CONNECT, set_as_default=False))
        except (OSError, TimeoutError, ValueError) as error:
            raise ClusterError(f"scheduler {address}: does not answer: {error}") from error
        if dashboard:
            say(f"dashboard: {client.dashboard_link}")
        yield client


@contextmanager
def _uninterrupted_loop() -> Iterator[Any]:
    """A loop for Dask whose processes get no Ctrl-C, from their first moment on.

    In a terminal it comes to all processes; it is the first one's, which ends the others.
    """
    os.environ.setdefault("PYTHONWARNINGS", _NO_WARNING)
    resource_tracker.ensure_running()  # or a worker's start would start it, and then take signals again
    runner: Any = LoopRunner()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        runner.start()  # a thread, which passes the mask on
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield runner.loop
    finally:
        runner.stop()


def _local(place: Place, loop: Any) -> LocalCluster:
    """Processes that end with this one, however it ends.

    Nobody else can give them work: they listen to this machine alone, and to who has a key that is made for the run.
    """
    return LocalCluster(
        loop=loop,
        n_workers=place.workers,
        threads_per_worker=place.threads,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
        security=True,
        silence_logs=logging.CRITICAL,
    )


class _Run:
    """One job on one cluster."""

    def __init__(self, client: Client, place: Place, job: Job, facts: dict[str, str]) -> None:
        self._client, self._place = client, place
        self._name = f"tilescribe-{uuid.uuid4().hex}"
        self._plugin = admission.Admission(self._name, versions(), cloudpickle.dumps(job), facts)
        self._ready: set[str] = set()
        self._refused: dict[str, str] = {}
        self._loads: Counter[str] = Counter()
        self._numbers, self._used = count(), deque[int]()
        # Futures that are done; None where the number of workers changed.
        self._done: SimpleQueue[Future | None] = SimpleQueue()

    def results(self, tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Each task with what became of it."""
        self._client.subscribe_topic(self._name, self._told)
        self._client.register_plugin(self._plugin)
        try:
            if not self._client.nthreads():
                say(f"scheduler {self._place.scheduler}: has no workers yet; waiting for one")
            suspects = []
            for task, result in self._each(tasks, lambda: _AHEAD * max(1, len(self._ready))):
                if isinstance(result, WorkLostError):
                    suspects.append(task)
                else:
                    yield task, result
            # What waited at workers that ended is suspected with what ended them: alone, each shows what it does.
            yield from self._each(suspects, lambda: 1)
        finally:
            with suppress(Exception):  # whatever is wrong with a scheduler that is gone
                self._client.unregister_worker_plugin(self._name)

    def _each(self, tasks: Iterable[tuple[Any, ...]], at_once: Callable[[], int]) -> Iterator[Any]:
        left, under_way = iter(tasks), dict[Future, Any]()
        while True:
            for task in islice(left, max(0, at_once() - len(under_way))):
                under_way[self._submit(task)] = task
            if not under_way:
                return
            future = self._done.get()
            if future is None:
                self._check()
            else:
                task = under_way.pop(future)
                yield task, self._result(future)

    def _submit(self, task: tuple[Any, ...]) -> Future:
        # A scheduler remembers the last 100,000 keys that it has met: old ones are used again.
        number = self._used.popleft() if len(self._used) > _KEYS else next(self._numbers)
        future = self._client.submit(
            work,
            self._name,
            self._place.time_limit,
            pickle.dumps(task),
            key=(self._name, number),
            resources={self._name: 1},
            retries=_RETRIES,
        )
        future.add_done_callback(self._done.put)
        return future

    def _result(self, future: Future) -> Any:
        try:
            result = future.result()
        except KilledWorker as error:
            return WorkLostError(
                f"ended {error.allowed_failures + 1} workers: for want of memory, or in more than "
                f"{self._place.time_limit:g} s"
            )
        self._used.append(future.key[1])
        return result

    def _told(self, event: tuple[float, dict[str, str]]) -> None:
        """Note what a worker says of itself, in a thread of Dask's."""
        worker, state, reason = (event[1][key] for key in ("name", "state", "reason"))
        self._loads[worker] = self._loads[worker] + 1 if state == "loading" else 0
        if self._loads[worker] > _LOADS:
            state, reason = "refused", f"it ended {_LOADS} times while it loaded, perhaps for want of memory"
        if state == "ready":
            self._refused.pop(worker, None)
            self._ready.add(worker)
        if state == "refused":
            self._ready.discard(worker)
            if self._refused.get(worker) != reason:
                say(f"worker {worker} is refused: {reason}")
            self._refused[worker] = reason
        self._done.put(None)

    def _check(self) -> None:
        """Give up where no worker of this machine is of use: no others will come."""
        if self._place.scheduler is None and len(self._refused) == self._place.workers:
            raise ClusterError(f"no worker can be used: {next(iter(self._refused.values()))}")
