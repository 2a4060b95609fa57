"""Threads for work that is cut by heads: each takes a head at a time and calls BLAS on its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import Generic, TypeVar

from threadpoolctl import ThreadpoolController

T = TypeVar("T")


class Workers:
    """A pool of threads."""

    def __init__(self, threads: int | None = None) -> None:
        """Make `threads` workers: as many as the processors that this process may use, unless given."""
        self.threads = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="head")
        # Threads inside BLAS would compete with the workers for the same processors.
        self._blas = ThreadpoolController().select(internal_api="openblas")

    def each(self, work: Callable[[int], None], count: int) -> None:
        """Call `work` with 0..count-1; returns when all are done, and raises what any of them raised."""
        with self._blas.limit(limits=1):
            for _ in self._pool.map(work, range(count)):
                pass


class WorkSpace(Generic[T]):
    """What each thread works in: made when it is first asked for, kept while it is asked for in the same shape."""

    def __init__(self, make: Callable[..., T]) -> None:
        """Let `make` make it from its shape."""
        self._make = make
        self._kept = local()

    def __call__(self, *shape: Hashable) -> T:
        """This thread's own, in this shape."""
        kept: dict[tuple[Hashable, ...], T] = self._kept.__dict__.setdefault("kept", {})
        if shape not in kept:
            kept.clear()
            kept[shape] = self._make(*shape)
        return kept[shape]
