"""The Python side of the driver that pretends (amdxdna.cc), and of the machine that `debian13` makes around it.

As a program it runs a command with XRT before a pretended NPU: with the driver preloaded, every program built, and one
thing asked of XRT (`xrt.ini`), that it syncs buffers through the driver.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

SHARED = "TILESCRIBE_PRETENDED_NPU"
KINDS = ("device", "hw_context", "bo", "run")
FAULTS = ("", "timeout", "hang", "error", "abort", "slow", "lost while waiting")
CONTROL = np.dtype(
    [
        *((name, "<i4") for name in ("contexts", "lost_from", "corrupt_from", "runs")),
        ("alive", "<i4", len(KINDS)),
        ("made", "<i4", len(KINDS)),
        ("fault_at", "<i4", 8),
        ("fault", "<i4", 8),
        ("owners", "<i4", 16),
        ("memory", "<i8"),
        ("taken", "<i8"),
    ]
)


class Pretended:
    """The pretended NPU, as `machine.Machine` is the stand-in's; shared with every process that uses it."""

    def __init__(self) -> None:
        """Begin anew: all is well, nothing is counted."""
        self._control = np.memmap(os.environ[SHARED], CONTROL, "r+", shape=(1,))
        self._control[:] = np.zeros(1, CONTROL)
        self.contexts, self.memory, self.lost_from, self.corrupt_from = 6, 1 << 30, None, None

    def __getattr__(self, name: str) -> Any:
        value = self._control[name][0]
        if name in ("alive", "made"):
            return dict(zip(KINDS, map(int, value), strict=True))
        return None if name.endswith("_from") and value < 0 else int(value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "faults":
            self._plan(value)
        elif name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self._control[name][0] = -1 if value is None else value

    def _plan(self, faults: Mapping[int, str]) -> None:
        for i, (run, fault) in enumerate(faults.items()):
            self._control["fault_at"][0][i], self._control["fault"][0][i] = run, FAULTS.index(fault)


def prepare(folder: Path) -> dict[str, str]:
    """Make all that a command needs, in an empty folder; returns its environment."""
    from standins.machine import build

    from kernels.npu.build.host_kernel import HostKernel

    here, driver = Path(__file__).parent, folder / "amdxdna.so"
    flags = ("-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")
    subprocess.run(["g++", *flags, here / "amdxdna.cc", "-o", driver], check=True)
    build(folder / "programs")
    (folder / "shared").write_bytes(bytes(CONTROL.itemsize))
    (folder / "xrt.ini").write_text("[Debug]\nforce_driver_sync = true\n")
    environment = {
        SHARED: str(folder / "shared"),
        "TILESCRIBE_HOST_KERNEL": HostKernel()._library._name,
        "TILESCRIBE_KERNELS": str(folder / "programs"),
        "XRT_INI_PATH": str(folder / "xrt.ini"),
    }
    os.environ.update(environment)
    Pretended()
    return environment | {"LD_PRELOAD": str(driver)}


if __name__ == "__main__":
    made = Path("/tmp/pretended-npu")
    made.mkdir()
    print("the NPU here is pretended: the CPU does its work, whatever is said of it below", file=sys.stderr)
    os.execvpe(sys.argv[1], sys.argv[1:], os.environ | prepare(made))
