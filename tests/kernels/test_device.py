from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from standins.machine import Machine

from kernels import opening
from kernels.device import DeviceError
from kernels.emulator import Emulator
from kernels.npu.diagnosis import Finding, npu_obstacle
from kernels.opening import open_device


def test_without_an_npu_auto_is_the_emulator_and_says_why() -> None:
    opened = open_device("auto")
    if opened.device.name == "npu":
        pytest.skip("this machine has an NPU that works")
    finding = npu_obstacle()
    assert finding is not None
    assert (opened.device.name, opened.reason) == ("emulator", finding.found)


def test_what_the_diagnosis_finds_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Finding("missing", "no driver", "load it")
    monkeypatch.setattr("kernels.npu.diagnosis._checked", lambda *_: iter([("driver", missing)]))
    opened = open_device("auto")
    assert (opened.device.name, opened.reason) == ("emulator", "no driver")
    with pytest.raises(
        DeviceError, match=r"^no driver: load it; --device emulator computes the same bits on the CPU"
    ):
        open_device("npu")


def test_npu_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "npu_obstacle", lambda: Finding("missing", "something is lacking"))
    with pytest.raises(DeviceError, match="--device emulator computes the same bits on the CPU"):
        open_device("npu")


@pytest.mark.parametrize(("name", "reason"), [("npu", "asked for"), ("auto", "it agrees with the reference")])
def test_an_npu_that_works_is_taken(machine: Machine, name: Any, reason: str) -> None:
    opened = open_device(name, scores="int8", tile_size=128)
    assert (opened.device.name, opened.reason) == ("npu", f"XRT names it stand-in; {reason}")
    opened.device.close()  # type: ignore[attr-defined]


def test_the_emulator_is_taken_where_it_is_asked_for(machine: Machine) -> None:
    opened = open_device("emulator")
    assert (opened.device.name, opened.reason, machine.runs) == ("emulator", "asked for", 0)


OTHER_BITS = (
    r"the NPU's program int32_t64_c4 disagrees with the reference in 1 of 3072 values \(row 0, column 0: "
    r"-?\d+ instead of -?\d+\); build the kernels again"
)


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("present", False, "the NPU cannot be opened: opening device 0: No such device with index '0'"),
        ("contexts", 0, r"loading .*program\.xclbin: .* \(err=-2\): No such file or directory"),
        ("memory", 1 << 20, r"making a buffer of \d+ bytes: .* \(err=-12\): Cannot allocate memory"),
        ("faults", {1: "timeout", 2: "error"}, "the run ended as ERT_CMD_STATE_ERROR"),
        ("corrupt_from", 1, OTHER_BITS),
    ],
)
def test_an_npu_that_does_not_work_is_not_taken(
    machine: Machine, attribute: str, value: Any, said: str
) -> None:
    setattr(machine, attribute, value)
    with pytest.raises(DeviceError, match=said):
        open_device("npu")
    machine.runs = 0
    opened = open_device("auto")
    assert opened.device.name == "emulator"
    assert "\n" not in opened.reason
    assert not any(machine.alive.values())


def test_without_the_binding_the_message_names_the_python(
    monkeypatch: pytest.MonkeyPatch, machine: Machine
) -> None:
    monkeypatch.setitem(sys.modules, "pyxrt", None)
    with pytest.raises(DeviceError, match=r"pyxrt cannot be imported .* for Python 3\.\d+, .* PYTHONPATH"):
        open_device("npu")


def test_an_emulator_that_is_not_the_reference_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Emulator.run

    def off_by_one(self: Emulator, *arguments: Any, **options: Any) -> Any:
        result = honest(self, *arguments, **options)
        result[0, 0, 0] += np.int16(1)
        return result

    monkeypatch.setattr(Emulator, "run", off_by_one)
    with pytest.raises(
        DeviceError,
        match=r"the emulator disagrees with the reference in 1 of 128 values .*; which is a defect of it",
    ):
        open_device("emulator")
