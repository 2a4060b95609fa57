"""Work of known cost for a cluster, which needs no model."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Stub:
    """Gives numbers back, and is its own job."""

    facts: dict[str, str] = field(default_factory=lambda: {"weights": "a"})
    cost: float = 0.0
    elsewhere: dict[str, str] | None = None
    """The facts at a worker, where they are others."""

    def load(self, threads: int) -> Stub:
        return Stub(self.elsewhere or self.facts, self.cost)

    def run(self, number: int, what: str = "") -> Any:
        """Do as asked: hang or end the process, always or only the first time, when `what` is a file to be made."""
        end = time.process_time() + self.cost
        while time.process_time() < end:
            pass
        if what == "hang":
            time.sleep(3600)
        if what == "fail":
            raise RuntimeError("as asked")
        if what == "die" or (what and not os.path.exists(what)):
            if what != "die":
                open(what, "x").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return number * 2, os.getpid()
