from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from standins.machine import Machine, build_programs
from standins.pyxrt import install

from kernels import opening
from kernels.npu.runtime import xrt


@pytest.fixture(scope="session", autouse=True)
def _collections_that_leave_modules_alone() -> Iterator[None]:
    """Tests of what is let go of collect often; what PyTorch and numba have loaded by then need not be looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    """A machine with an NPU behind the stand-in for pyxrt, that nothing obstructs, and builds of all its programs."""
    monkeypatch.setattr(opening, "npu_obstacle", lambda: None)
    made = install(monkeypatch)
    build_programs(monkeypatch, tmp_path / "programs")
    yield made
    gc.collect()
    assert made.aborted == []
    for launch in tuple(xrt._at_work):  # hung runs end with their machine
        launch._run.end()
        launch.close()
