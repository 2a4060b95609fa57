"""The stand-in for pyxrt refuses what the real one refuses, and hides what the real one hides."""

from __future__ import annotations

import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from standins import pyxrt
from standins.machine import Machine, write_program

from kernels.npu.build.store import Program
from kernels.npu.program.plan import Plan

TO = pyxrt.xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE
FROM = pyxrt.xclBOSyncDirection.XCL_BO_SYNC_BO_FROM_DEVICE
State = pyxrt.ert_cmd_state


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Without the programs, and without what the fixture of that name holds at the end."""
    return pyxrt.install(monkeypatch)


@pytest.fixture
def loaded(machine: Machine, tmp_path: Path) -> SimpleNamespace:
    """A program for one head, with synced buffers of the right sizes."""
    plan = Plan()
    path, instructions_of = write_program(tmp_path, Program(plan), (1,))
    device = pyxrt.device(0)
    uuid = device.register_xclbin(pyxrt.xclbin(str(path)))
    context = pyxrt.hw_context(device, uuid)
    kernel = pyxrt.kernel(context, "MLIR_AIE")
    words = instructions_of[1].read_bytes()
    instructions = pyxrt.bo(device, len(words), pyxrt.bo.flags.cacheable, kernel.group_id(1))
    instructions.map()[:] = words
    instructions.sync(TO)
    sizes = enumerate(plan.buffer_bytes(1), 3)
    data = [pyxrt.bo(device, n, pyxrt.bo.host_only, kernel.group_id(i)) for i, n in sizes]
    machine.cores = "nothing"
    arguments = [3, instructions, len(words), *data]
    return SimpleNamespace(
        device=device, uuid=uuid, context=context, kernel=kernel, data=data, arguments=arguments
    )


def buffer(loaded: SimpleNamespace, size: Any, flags: Any = pyxrt.bo.host_only) -> Any:
    return pyxrt.bo(loaded.device, size, flags, 1)


def started(loaded: SimpleNamespace, changes: dict[int, Any] | None = None) -> Any:
    """A run with its arguments, some of them replaced, or left out by None."""
    made = pyxrt.run(loaded.kernel)
    for index, argument in (dict(enumerate(loaded.arguments)) | (changes or {})).items():
        if argument is not None:
            made.set_arg(index, argument)
    made.start()
    return made


def state_of(loaded: SimpleNamespace, changes: dict[int, Any] | None = None) -> str:
    name: str = started(loaded, changes).state().name
    return name.removeprefix("ERT_CMD_STATE_")


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
    other = pyxrt.bo(loaded.device, loaded.arguments[2], pyxrt.bo.cacheable, loaded.kernel.group_id(1))
    other.map()[:] = loaded.arguments[1].map()
    assert state_of(loaded, {1: other}) == "ERROR"


def test_a_buffer_of_another_bank_is_refused(loaded: SimpleNamespace) -> None:
    astray = pyxrt.bo(loaded.device, loaded.data[2].size(), pyxrt.bo.host_only, loaded.kernel.group_id(1))
    for index in (0, 2, 5):
        with pytest.raises(RuntimeError, match=r"^No host side buffer in destination buffer: Invalid arg"):
            state_of(loaded, {index: astray})


def test_group_ids_are_a_contexts(loaded: SimpleNamespace) -> None:
    kernels = loaded.kernel, pyxrt.kernel(pyxrt.hw_context(loaded.device, loaded.uuid), "MLIR_AIE")
    ids = [[kernel.group_id(index) for index in (0, 1, 2, 3, 7, 8, -1)] for kernel in kernels]
    assert ids[0] == [196607, 131073, 196607, 131072, 131072, 196607, 196607]
    assert ids[1] == [number + 131072 for number in ids[0]]


def test_a_buffer_that_is_too_small_is_no_success(loaded: SimpleNamespace) -> None:
    small = pyxrt.bo(loaded.device, 4096, pyxrt.bo.host_only, loaded.kernel.group_id(5))
    assert state_of(loaded, {5: small}) == "TIMEOUT"


def test_a_context_that_timed_out_is_of_no_more_use(machine: Machine, loaded: SimpleNamespace) -> None:
    machine.faults = {1: "timeout"}
    assert [state_of(loaded) for _ in range(2)] == ["TIMEOUT"] * 2


def test_a_run_dropped_at_work_would_end_the_process(machine: Machine, loaded: SimpleNamespace) -> None:
    machine.faults = {1: "hang"}
    run = started(loaded)
    assert run.state() is State.ERT_CMD_STATE_NEW
    with pytest.raises(RuntimeError, match="bad command state, can't launch"):
        run.start()
    del run
    gc.collect()
    assert machine.aborted == ["xrt::run destructed while command is still in progress"]


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
        (lambda s: pyxrt.device(1), "RuntimeError:  No such device with index '1'"),
        (lambda s: pyxrt.device("0"), "TypeError: __init__(): incompatible constructor arguments."),
        (lambda s: pyxrt.xclbin("/no"), "RuntimeError: No such file '/no'"),
        (lambda s: pyxrt.xclbin(__file__), "RuntimeError: Invalid xclbin"),
        (lambda s: pyxrt.xclbin(Path("/no")), "TypeError: incompatible constructor arguments."),
        (lambda s: pyxrt.hw_context(s.device, pyxrt.uuid("7")), "RuntimeError: No xclbin with uuid '7': Inv"),
        (lambda s: pyxrt.kernel(s.context, "DPU"), "RuntimeError: No such kernel 'DPU': Invalid argument"),
        (
            lambda s: pyxrt.kernel(s.device, "MLIR_AIE"),
            "TypeError: incompatible constructor arguments.",
        ),
        (
            lambda s: buffer(s, 64.0),
            "TypeError: incompatible constructor arguments.",
        ),
        (lambda s: buffer(s, -1), "TypeError: incompatible constructor arguments"),
        (lambda s: buffer(s, 64, 1 << 29), "TypeError: incompatible constructor arguments"),
        (
            lambda s: buffer(s, 64, pyxrt.bo.normal),
            "RuntimeError: unsupported buffer type: none flag (err=95): Op",
        ),
        (lambda s: buffer(s, 0), "RuntimeError: (err=-22): Invalid argument"),
        (
            lambda s: buffer(s, 2 << 30),
            "RuntimeError: CREATE_BO IOCTL failed (err=-12): Cannot allocate memory",
        ),
        (lambda s: s.data[0].sync(0), "TypeError: sync(): incompatible function arguments."),
        (lambda s: pyxrt.run(s.kernel).set_arg(0, 3.0), "TypeError: set_arg(): incompatible function arg"),
        (
            lambda s: pyxrt.run(s.kernel).set_arg(2, 1 << 31),
            "TypeError: set_arg(): incompatible function arg",
        ),
        (
            lambda s: pyxrt.run(s.kernel).set_arg(8, 1),
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
    more = [pyxrt.hw_context(loaded.device, loaded.uuid) for _ in range(5)]
    with pytest.raises(
        RuntimeError, match=r"CREATE_HWCTX IOCTL failed \(err=-2\): No such file or directory"
    ):
        pyxrt.hw_context(loaded.device, loaded.uuid)
    more.pop()
    pyxrt.hw_context(loaded.device, loaded.uuid)


def test_a_device_that_is_gone_refuses_all_but_syncs(machine: Machine, loaded: SimpleNamespace) -> None:
    machine.lost_from = 0
    loaded.data[0].sync(FROM)
    pyxrt.device(0)  # opened already, and counted
    for what, name in (
        (lambda: pyxrt.hw_context(loaded.device, loaded.uuid), "CREATE_HWCTX"),
        (lambda: buffer(loaded, 64), "CREATE_BO"),
        (lambda: started(loaded), "EXEC_CMD"),
    ):
        with pytest.raises(RuntimeError, match=rf"{name}.* failed \(err=-19\): No such device"):
            what()
