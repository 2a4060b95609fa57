"""What a worker does before it gets any work: it loads what the work needs, and says what that is.

This module goes to the workers as code and not by its name: one that lacks Tilescribe, or has another version of it,
has to be able to say so. Only what is in every Dask worker may be imported at its top.
"""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

from distributed import Status, WorkerPlugin


class Admission(WorkerPlugin):  # type: ignore[misc]
    """Admits a worker to a run, by giving it a resource of the run's name that the run's work asks for.

    What becomes of the worker is told in events of that topic: it loads, is ready, or is refused for a reason.
    """

    def __init__(self, run: str, versions: dict[str, str], job: bytes, facts: dict[str, str]) -> None:
        """Name the run, the versions that it is for, its pickled `app.cluster.work.Job`, and the job's facts here."""
        self.name = self.run = run
        self._versions, self._job, self._facts = versions, job, facts
        self._loading: Any = None

    async def setup(self, worker: Any) -> None:
        """Load in another thread, as the worker has to answer its scheduler meanwhile."""
        self._loading = asyncio.create_task(self._admit(worker))

    async def _admit(self, worker: Any) -> None:
        def tell(state: str, reason: str = "") -> None:
            worker.log_event(self.run, {"name": str(worker.name), "state": state, "reason": reason})

        tell("loading")
        try:
            await asyncio.to_thread(self._load, worker.state.nthreads)
        except Exception as error:
            tell("refused", " ".join(f"{error or type(error).__name__}".split()))
            return
        # One piece of work at a time, whatever number of threads the worker has: they are the work's.
        await worker.set_resources(**{self.run: 1})
        if worker.status == Status.running:
            # The scheduler looks at work that had no worker when one begins to run, not when one has more to offer.
            worker.status = Status.paused
            worker.status = Status.running
        tell("ready")

    def _load(self, threads: int) -> None:
        import platform
        from importlib.metadata import PackageNotFoundError, version

        for name, here in self._versions.items():
            try:
                there = platform.python_version() if name == "python" else version(name)
            except PackageNotFoundError:
                raise ValueError(f"it lacks {name}") from None
            if there != here:
                raise ValueError(f"it has {name} {there}, not {here}")
        from app.cluster import work
        from app.machine import share_one_heap

        share_one_heap()
        loaded = pickle.loads(self._job).load(threads)
        for name, here in self._facts.items():
            if (there := loaded.facts.get(name)) != here:
                raise ValueError(f"{name} is {there} there, and {here} here")
        work.LOADED[self.run] = loaded

    def teardown(self, worker: Any) -> None:
        """Forget what was loaded."""
        from app.cluster import work

        work.LOADED.pop(self.run, None)
