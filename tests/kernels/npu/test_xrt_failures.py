"""What goes wrong on an NPU, before a strict stand-in for pyxrt: no part of this has run on an NPU."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from standins import pyxrt as pyxrt_standin
from standins.machine import Machine, write_program
from test_xrt import operands
from typer.testing import CliRunner

from app import DeviceLost, load_model
from app.cli import _transcribe as command
from datasets.utterance import Utterance
from kernels.device import DeviceError
from kernels.emulator import Emulator
from kernels.npu.build.store import Build, Program
from kernels.npu.program.plan import Plan
from kernels.npu.runtime import device, xrt
from kernels.npu.runtime.device import NpuDevice
from kernels.npu.runtime.xrt import Launch, Session, XrtError

PROGRAM = Program(Plan())
LOST = (
    "; see dmesg, load its driver again (sudo rmmod amdxdna; sudo modprobe amdxdna) and ask tilescribe doctor"
)


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "REOPEN_SECONDS", 0.3)


@pytest.fixture
def npu(machine: Machine) -> Iterator[NpuDevice]:
    """Open, its program loaded: one run has been."""
    with NpuDevice(timeout_ms=40) as opened:
        opened.load()
        yield opened


@pytest.mark.parametrize("fault", ["timeout", "hang", "error", "abort"])
def test_a_run_that_fails_is_repeated_once_in_a_context_made_anew(
    machine: Machine, npu: NpuDevice, fault: Any
) -> None:
    machine.faults = {2: fault}
    chosen = operands(6, 20, 100, 90)
    assert np.array_equal(npu.run(chosen), Emulator().run(chosen))
    # the check, the run, the check of the program that was loaded anew, the run
    assert (npu.rebuilds, machine.runs) == (1, 4)
    assert (machine.made["hw_context"], machine.made["device"]) == (2, 1)
    kept = 1 if fault == "hang" else 0  # what may still be at work stays, with all that it holds
    assert (machine.alive["run"], machine.alive["hw_context"]) == (1 + kept, 1 + kept)
    npu.run(chosen)
    assert (npu.rebuilds, machine.runs) == (1, 5)


def test_what_failed_is_let_go_of_before_the_second_try(machine: Machine, npu: NpuDevice) -> None:
    machine.contexts, machine.faults = 1, {2: "timeout"}
    npu.run(operands(6, 20, 100, 90))
    assert (npu.rebuilds, machine.alive["hw_context"], machine.alive["bo"]) == (1, 1, 4)


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ({2: "timeout", 4: "timeout"}, "the run ended as ERT_CMD_STATE_TIMEOUT"),
        ({2: "timeout", 3: "error"}, "the run ended as ERT_CMD_STATE_ERROR"),
        ({2: "hang", 4: "hang"}, "the run did not complete within 40 ms"),
        ({2: "lost while waiting"}, "DRM_IOCTL_AMDXDNA_CREATE_HWCTX IOCTL failed (err=-19): No such device"),
    ],
)
def test_a_run_that_fails_twice_is_a_lost_device(
    machine: Machine, npu: NpuDevice, faults: Any, said: str
) -> None:
    machine.faults = faults
    chosen = operands(6, 20, 100, 90)
    with pytest.raises(DeviceLost) as lost:
        npu.run(chosen)
    assert str(lost.value).startswith("the NPU is lost: ")
    assert str(lost.value).endswith(f"{said}, also after a fresh start{LOST}")
    held = "hang" in faults.values() or "lost while waiting" in faults.values()
    again = "and a run may still be at work: end this process to open it again" if held else "open it again"
    with pytest.raises(DeviceError, match=f"^the NPU was lost[;,] {again}$"):
        npu.run(chosen)


def test_a_device_that_is_gone_says_so(machine: Machine, npu: NpuDevice) -> None:
    machine.lost_from = 2
    with pytest.raises(DeviceLost, match=r"\(err=-19\): No such device, also after a fresh start"):
        npu.run(operands(6, 20, 100, 90))
    machine.lost_from = None
    with NpuDevice() as again:
        again.load()


def test_memory_that_runs_out_is_given_back_and_asked_for_again(machine: Machine, npu: NpuDevice) -> None:
    chosen = operands(12, 20, 100, 90)
    machine.memory = machine.taken + (1 << 20)
    expected = Emulator().run(chosen)
    said = r"making a buffer of \d+ bytes: .*\(err=-12\): Cannot allocate memory: there is not enough memory for "
    with pytest.raises(DeviceError, match=said):
        npu.run(chosen)
    assert (machine.taken, machine.alive["device"]) == (0, 1)
    machine.memory *= 4
    assert np.array_equal(npu.run(chosen), expected)


@pytest.mark.parametrize(
    ("number", "what", "said"),
    [
        (-2, "CREATE_HWCTX", "six contexts for all processes: end what else uses it"),
        (-22, "CREATE_HWCTX", "six contexts for all processes: end what else uses it"),
        (-11, "mmap", r"may not lock as much memory as its buffers take \(tilescribe doctor\)"),
    ],
)
def test_what_is_used_up_is_not_called_lost(
    machine: Machine, npu: NpuDevice, monkeypatch: pytest.MonkeyPatch, number: int, what: str, said: str
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError(f"{what} failed (err={number}): so")

    with monkeypatch.context() as patch:
        patch.setattr(pyxrt_standin, "kernel", refuse)
        with pytest.raises(DeviceError, match=said) as full:
            npu.load("int8")
        with pytest.raises(DeviceError, match=said):
            npu.run(operands(6, 20, 100, 90))
    assert not isinstance(full.value, DeviceLost)
    npu.run(operands(6, 20, 100, 90))


def test_what_hung_is_let_go_of_once_it_is_over(machine: Machine, npu: NpuDevice) -> None:
    machine.faults = {2: "hang"}
    npu.run(operands(6, 20, 100, 90))
    assert machine.alive["hw_context"] == 2
    (hung,) = (launch for launch in xrt._at_work if launch.closed)
    hung._run.end()
    machine.faults = {5: "error"}
    npu.run(operands(6, 20, 100, 90))
    assert (machine.alive["hw_context"], machine.alive["run"], npu.rebuilds) == (1, 1, 2)


def test_a_device_that_comes_back_is_waited_for(
    machine: Machine, npu: NpuDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.lost_from = 2
    monkeypatch.setattr(xrt.time, "sleep", lambda _: setattr(machine, "lost_from", None))
    chosen = operands(6, 20, 100, 90)
    assert np.array_equal(npu.run(chosen), Emulator().run(chosen))
    assert (machine.made["device"], npu.rebuilds) == (2, 1)


def test_other_bits_after_a_device_was_opened_anew_are_no_result(machine: Machine, npu: NpuDevice) -> None:
    machine.faults, machine.corrupt_from = {2: "timeout"}, 3
    with pytest.raises(DeviceError, match="the NPU's program int32_t64_c4 disagrees with the reference"):
        npu.run(operands(6, 20, 100, 90))


@pytest.mark.parametrize("heads", [6, 12])
def test_the_time_of_a_run_grows_with_its_heads(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, heads: int
) -> None:
    monkeypatch.setattr(device, "TIMEOUT_MS", 10)
    monkeypatch.setattr(device, "TIMEOUT_MS_PER_HEAD", 2)
    machine.faults = {2: "hang", 4: "hang"}
    with NpuDevice() as npu, pytest.raises(DeviceLost, match=f"did not complete within {10 + 2 * heads} ms"):
        npu.run(operands(heads, 2, 64, 64))


def test_an_interrupt_waits_for_the_run(
    machine: Machine, npu: NpuDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = pyxrt_standin.run.state

    def interrupted(self: Any) -> Any:
        if self._looks == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return honest(self)

    machine.faults = {2: "slow"}
    chosen = operands(6, 20, 100, 90)
    with monkeypatch.context() as patch:
        patch.setattr(pyxrt_standin.run, "state", interrupted)
        with pytest.raises(KeyboardInterrupt):
            npu.run(chosen)
    assert machine.alive["run"] == 1
    assert np.array_equal(npu.run(chosen), Emulator().run(chosen))
    assert (machine.runs, npu.rebuilds) == (3, 0)


def launch(machine: Machine, folder: Path) -> tuple[Any, Any, Any, bytes]:
    """Device, kernel and instructions of the stand-in's program for 6 heads."""
    path, instructions = write_program(folder, PROGRAM, (6,))
    opened = pyxrt_standin.device(0)
    loaded = pyxrt_standin.xclbin(str(path))
    context = pyxrt_standin.hw_context(opened, opened.register_xclbin(loaded))
    kernel = pyxrt_standin.kernel(context, "MLIR_AIE")
    return opened, kernel, context, instructions[6].read_bytes()


def test_what_the_binding_would_drop_is_refused(machine: Machine, tmp_path: Path) -> None:
    opened, kernel, _, instructions = launch(machine, tmp_path)
    made = Launch(pyxrt_standin, opened, kernel, instructions, (64, 64, 64))
    buffer, words = made._buffers[0], made._instructions
    for arguments, said in (
        ((3.0, buffer), "argument 0 of a run has to be a 32-bit integer, not 3.0"),
        ((True, buffer), "argument 0 of a run has to be a 32-bit integer, not True"),
        ((3, instructions), "argument 1 of a run has to be a buffer, not b"),
        ((3, words, 1 << 31), "argument 2 of a run has to be a 32-bit integer, not 2147483648"),
        ((3, words, -1), "argument 2 of a run has to be a 32-bit integer, not -1"),
        ((3, words, 4, 4096), "argument 3 of a run has to be a buffer, not 4096"),
        ((3, words, 4, np.zeros(64)), "argument 3 of a run has to be a buffer"),
    ):
        with pytest.raises(XrtError, match=said):
            made._set(arguments)


def test_a_buffer_of_another_size_is_refused(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, kernel, _, instructions = launch(machine, tmp_path)
    monkeypatch.setattr(pyxrt_standin.bo, "map", lambda self: memoryview(self._host)[:-1])
    with pytest.raises(XrtError, match=r"a buffer of \d+ bytes was asked for, and has \d+"):
        Launch(pyxrt_standin, opened, kernel, instructions, (64, 64, 64))


@pytest.mark.parametrize(
    ("xclbin", "instructions", "said"),
    [
        ({"kernel": "OTHER"}, None, r"loading .*: it has no kernel MLIR_AIE, but \['OTHER'\]"),
        ({"arguments": 5}, None, "its kernel takes 5 arguments, where a run has 6"),
        ({}, b"", "0 bytes are no instructions, which are 32-bit words"),
        ({}, b"abcde", "5 bytes are no instructions, which are 32-bit words"),
    ],
)
def test_a_program_that_is_none_is_said(
    machine: Machine, tmp_path: Path, xclbin: Any, instructions: bytes | None, said: str
) -> None:
    path, words = write_program(tmp_path, PROGRAM, (6,), **xclbin)
    if instructions is not None:
        words[6].write_bytes(instructions)
    session = Session(pyxrt_standin)
    with pytest.raises(XrtError, match=said):
        session.launch(Build(path, words[6]), 6, (64, 64, 64))
    session.close()


def test_files_that_are_missing_or_foreign_are_said(machine: Machine, tmp_path: Path) -> None:
    path, _ = write_program(tmp_path, PROGRAM, (6,))
    session = Session(pyxrt_standin)
    with pytest.raises(XrtError, match=r"no\.insts: No such file or directory"):
        session.launch(Build(path, tmp_path / "no.insts"), 6, (64, 64))
    with pytest.raises(XrtError, match=r"loading .*no\.xclbin: No such file '.*'"):
        session.launch(Build(tmp_path / "no.xclbin", tmp_path / "no.insts"), 6, (64, 64))
    session.close()


def test_a_device_lost_in_the_middle_ends_the_command_and_keeps_what_is_done(
    machine: Machine, spoken: Utterance, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.flac").write_bytes(spoken.audio.read_bytes())
    inputs = [str(tmp_path / f"{name}.flac") for name in ("a", "b", "c")]
    machine.lost_from = 8  # the check, the four layers of the first file, the second file's third
    out = tmp_path / "out"
    words = ["--model", "tiny.en", "--device", "npu", *inputs, "-o", str(out), "--no-progress"]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 5, result.output
    said = result.stderr.splitlines()
    assert said[0] == "tiny.en: int32 attention on the NPU: XRT names it stand-in; asked for"
    assert said[1] == f"wrote {out / 'a.txt'}"
    assert said[2].startswith(f"error: {inputs[1]}: the NPU is lost: opening device 0: ")
    assert said[2].endswith(LOST)
    assert said[3:] == ["stopped: 1 of 3 done, 2 left; --skip-existing goes on from here"]
    assert [path.name for path in out.iterdir()] == ["a.txt"]
    assert (out / "a.txt").read_text().startswith("The quiet harbor wakes before the sun")


def test_a_lost_device_is_an_error_of_the_python_interface(machine: Machine, spoken: Utterance) -> None:
    machine.faults = {3: "timeout", 5: "timeout"}
    model = load_model("tiny.en", "int32", "npu")
    with pytest.raises(DeviceLost, match="the NPU is lost"):
        model.transcribe(spoken.audio)
