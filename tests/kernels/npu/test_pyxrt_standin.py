"""The stand-in for pyxrt refuses what the real one refuses, and hides what the real one hides.

`make test-xrt` holds the real one against the same tests.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from material.operands import random_operands
from standins import pyxrt
from standins.amdxdna import SHARED, Pretended
from standins.machine import Machine, write_program

from kernels.npu.build.store import Program
from kernels.npu.program import layout
from kernels.npu.program.plan import Plan

FINAL = ("COMPLETED", "ERROR", "ABORT", "TIMEOUT")
STANDS_IN = pytest.mark.parametrize("machine", ["stand-in"], indirect=True)


@pytest.fixture(params=["stand-in", "XRT"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine | Pretended]:
    """Without the programs, and without what the fixture of that name holds at the end."""
    if request.param == "stand-in":
        made = pyxrt.install(monkeypatch)
        made.cores = "nothing"
        yield made
        return
    if SHARED not in os.environ:
        pytest.skip("make test-xrt runs it, in Debian 13")
    yield Pretended()
    Pretended()  # all is well for those that come after


@pytest.fixture
def loaded(machine: Machine | Pretended, tmp_path: Path) -> SimpleNamespace:
    """A program for one head, with synced buffers of the right sizes."""
    import pyxrt as xrt

    plan = Plan()
    path, instructions_of = write_program(tmp_path, Program(plan), (1,))
    device = xrt.device(0)
    uuid = device.register_xclbin(xrt.xclbin(str(path)))
    context = xrt.hw_context(device, uuid)
    kernel = xrt.kernel(context, "MLIR_AIE")
    words = instructions_of[1].read_bytes()
    instructions = xrt.bo(device, len(words), xrt.bo.flags.cacheable, kernel.group_id(1))
    instructions.map()[:] = words
    instructions.sync(xrt.xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE)
    sizes = enumerate(plan.buffer_bytes(1), 3)
    data = [xrt.bo(device, n, xrt.bo.host_only, kernel.group_id(i)) for i, n in sizes]
    operands = random_operands(np.random.default_rng(1), 1, 8, 64)
    queries, keys = (np.frombuffer(one.map(), np.uint8) for one in data[:2])
    layout.pack_queries(operands, 16, queries)
    layout.pack_keys_and_values(operands, plan.tile_size, keys)
    for one in data:
        one.sync(xrt.xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE)
    arguments = [3, instructions, len(words), *data]
    return SimpleNamespace(
        xrt=xrt, device=device, uuid=uuid, context=context, kernel=kernel, data=data, arguments=arguments
    )


def buffer(loaded: SimpleNamespace, size: Any, flags: Any = None) -> Any:
    bo, group = loaded.xrt.bo, loaded.kernel.group_id(3)
    return bo(loaded.device, size, bo.host_only if flags is None else flags, group)


def started(loaded: SimpleNamespace, changes: dict[int, Any] | None = None) -> Any:
    """A run with its arguments, some of them replaced, or left out by None."""
    made = loaded.xrt.run(loaded.kernel)
    for index, argument in (dict(enumerate(loaded.arguments)) | (changes or {})).items():
        if argument is not None:
            made.set_arg(index, argument)
    made.start()
    return made


def state_of(loaded: SimpleNamespace, changes: dict[int, Any] | None = None) -> str:
    run = started(loaded, changes)
    while (name := str(run.state().name).removeprefix("ERT_CMD_STATE_")) not in FINAL:
        time.sleep(0.001)
    return name


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "COMPLETED"),
        ({0: 4}, "ERROR"),
        ({0: None}, "ERROR"),
        ({1: None}, "ERROR"),
        ({3: None}, "TIMEOUT"),
        ({4: 4096}, "TIMEOUT"),
    ],
)
def test_a_run_completes_with_all_its_arguments(loaded: SimpleNamespace, changes: Any, state: str) -> None:
    assert state_of(loaded, changes) == state


def test_instructions_that_were_not_synced_are_not_seen(loaded: SimpleNamespace) -> None:
    other = loaded.xrt.bo(
        loaded.device, loaded.arguments[2], loaded.xrt.bo.cacheable, loaded.kernel.group_id(1)
    )
    other.map()[:] = loaded.arguments[1].map()
    assert state_of(loaded, {1: other}) == "ERROR"


def test_a_buffer_of_another_bank_is_refused(loaded: SimpleNamespace) -> None:
    astray = loaded.xrt.bo(
        loaded.device, loaded.data[2].size(), loaded.xrt.bo.host_only, loaded.kernel.group_id(1)
    )
    for index in (0, 2, 5):
        with pytest.raises(RuntimeError, match=r"^No host side buffer in destination buffer: Invalid arg"):
            state_of(loaded, {index: astray})


def test_group_ids_are_a_contexts(loaded: SimpleNamespace) -> None:
    kernels = loaded.kernel, loaded.xrt.kernel(loaded.xrt.hw_context(loaded.device, loaded.uuid), "MLIR_AIE")
    ids = [[kernel.group_id(index) for index in (0, 1, 2, 3, 7, 8, -1)] for kernel in kernels]
    none = 0xFFFF
    assert [[number & 0xFFFF for number in one] for one in ids] == [[none, 1, none, 0, 0, none, none]] * 2
    assert len({number >> 16 for number in ids[0]}) == len({number >> 16 for number in ids[1]}) == 1
    assert not set(ids[0]) & set(ids[1])


def test_a_buffer_that_is_too_small_is_no_success(loaded: SimpleNamespace) -> None:
    small = loaded.xrt.bo(loaded.device, 4096, loaded.xrt.bo.host_only, loaded.kernel.group_id(5))
    assert state_of(loaded, {5: small}) == "TIMEOUT"


def test_a_context_that_timed_out_is_of_no_more_use(machine: Any, loaded: SimpleNamespace) -> None:
    machine.faults = {1: "timeout"}
    assert [state_of(loaded) for _ in range(2)] == ["TIMEOUT"] * 2


@STANDS_IN
def test_a_run_dropped_at_work_would_end_the_process(machine: Any, loaded: SimpleNamespace) -> None:
    machine.faults = {1: "hang"}
    run = started(loaded)
    assert run.state() is loaded.xrt.ert_cmd_state.ERT_CMD_STATE_NEW
    with pytest.raises(RuntimeError, match="bad command state, can't launch"):
        run.start()
    del run
    gc.collect()
    assert machine.aborted == ["xrt::run destructed while command is still in progress"]


@STANDS_IN
def test_a_view_does_not_keep_its_buffer(loaded: SimpleNamespace) -> None:
    made = buffer(loaded, 64)
    view = made.map()
    view[0] = 1
    del made
    gc.collect()
    assert set(view) == {0xDD}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda s: s.xrt.device(1), "RuntimeError:  No such device with index '1'"),
        (lambda s: s.xrt.xclbin("/no"), "RuntimeError: No such file '/no'"),
        (lambda s: s.xrt.xclbin(__file__), "RuntimeError: Invalid xclbin"),
        (lambda s: s.xrt.xclbin(Path("/no")), "TypeError: incompatible constructor arguments."),
        (lambda s: s.xrt.hw_context(s.device, s.xrt.uuid("7")), "RuntimeError: No xclbin with uuid"),
        (lambda s: s.xrt.kernel(s.context, "DPU"), "RuntimeError: No such kernel 'DPU': Invalid argument"),
        (
            lambda s: s.xrt.kernel(s.device, "MLIR_AIE"),
            "TypeError: incompatible constructor arguments.",
        ),
        (
            lambda s: buffer(s, 64.0),
            "TypeError: incompatible constructor arguments.",
        ),
        (lambda s: buffer(s, -1), "TypeError: incompatible constructor arguments"),
        (lambda s: buffer(s, 64, 1 << 29), "TypeError: incompatible constructor arguments"),
        (
            lambda s: buffer(s, 64, s.xrt.bo.normal),
            "RuntimeError: unsupported buffer type: none flag (err=95): Op",
        ),
        (lambda s: buffer(s, 0), "RuntimeError: (err=-22): Invalid argument"),
        (
            lambda s: buffer(s, 2 << 30),
            "RuntimeError: CREATE_BO IOCTL failed (err=-12): Cannot allocate memory",
        ),
        (lambda s: s.data[0].sync(0), "TypeError: sync(): incompatible function arguments."),
        (lambda s: s.xrt.run(s.kernel).set_arg(0, 3.0), "TypeError: set_arg(): incompatible function arg"),
        (
            lambda s: s.xrt.run(s.kernel).set_arg(2, 1 << 31),
            "TypeError: set_arg(): incompatible function arg",
        ),
        (
            lambda s: s.xrt.run(s.kernel).set_arg(8, 1),
            "IndexError: __n (which is 8) >= this->size() (which",
        ),
    ],
)
def test_what_it_refuses(loaded: SimpleNamespace, what: Any, said: str) -> None:
    with pytest.raises((RuntimeError, TypeError, IndexError)) as refusal:
        what(loaded)
    kind, _, text = said.partition(": ")
    assert type(refusal.value).__name__ == kind
    assert text in str(refusal.value)


def test_contexts_are_few(loaded: SimpleNamespace) -> None:
    more = [loaded.xrt.hw_context(loaded.device, loaded.uuid) for _ in range(5)]
    with pytest.raises(
        RuntimeError, match=r"CREATE_HWCTX IOCTL failed \(err=-2\): No such file or directory"
    ):
        loaded.xrt.hw_context(loaded.device, loaded.uuid)
    more.pop()
    loaded.xrt.hw_context(loaded.device, loaded.uuid)


def test_a_device_that_is_gone_refuses_all_but_syncs(machine: Any, loaded: SimpleNamespace) -> None:
    made = loaded.xrt.run(loaded.kernel)
    machine.lost_from = 0
    loaded.data[0].sync(loaded.xrt.xclBOSyncDirection.XCL_BO_SYNC_BO_FROM_DEVICE)
    loaded.xrt.device(0)  # opened already, and counted
    for what, name in (
        (lambda: loaded.xrt.hw_context(loaded.device, loaded.uuid), "CREATE_HWCTX"),
        (lambda: buffer(loaded, 64), "CREATE_BO"),
        (lambda: loaded.xrt.run(loaded.kernel), "CREATE_BO"),
        (made.start, "EXEC_CMD"),
    ):
        with pytest.raises(RuntimeError, match=rf"{name}.* failed \(err=-19\): No such device"):
            what()
