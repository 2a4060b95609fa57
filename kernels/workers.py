"""Threads for work that is cut by heads: each takes a head at a time and calls BLAS on its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import ThreadpoolController


class Workers:
    """A pool of threads.

    Attributes:
        threads: how many.
    """

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
