# ruff: noqa: N801
"""A stand-in for pyxrt, as strict as the real one, for machines without an NPU: `install` puts it in its place.

Read in Xilinx/XRT 963c58e (August 2026): src/python/pybind11/src/pyxrt.cpp (names, overloads);
src/runtime_src/core/common/api/xrt_kernel.cpp (runs, states, argument checks), xrt_bo.cpp, xrt_xclbin.cpp;
core/common/device.h and error.h (texts: `message: system's text`); core/pcie/linux/system_linux.cpp. And in
amd/xdna-driver 856409c: src/shim/shim_debug.h (`(err=%d)` before the system's text; negative for what the kernel
returns, positive for what the shim itself refuses), buffer.cpp, hwq.cpp, host/platform_host.cpp;
drivers/accel/amdxdna/aie2_ctx.c.

What it refuses, group ids, banks, states and texts are those of XRT 2.25 as Debian 13 has it, before the driver that
pretends (amdxdna.cc; test_debian_xrt.py holds both against each other). Where it is stricter, or assumes something:

- A buffer has a host and a device side that differ until it is synced, and start as random bytes. (Real ones are
  one memory behind caches, so a missing sync is wrong only sometimes.)
- What a view reads once its buffer is gone is 0xDD. (Really unmapped memory: the process ends.)
- What would end the process is noted in `Machine.aborted`: a run that is dropped unfinished (`run_impl::~run_impl`),
  and a buffer as an argument that there is not.
- After a timeout every further run in the context times out as well. (Really the driver destroys the context in
  firmware and makes it anew; nothing says that what it had loaded is good.)
- Syncs do not fail once the device is gone: in the shim they are cache flushes of the process's own memory.
- A context cannot be used after its end, here as there: kernels, runs and buffers keep what they were made of.
- Sizes need no alignment: the shim rounds them up to pages.
- What the project does not use is not here: nobody waits, since `run.wait` holds the interpreter's lock.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from standins.machine import Machine
from standins.xclbin import MAGIC, read

machine = Machine()


def install(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Put the stand-in in the place of pyxrt, before a new machine."""
    global machine
    machine = Machine()
    monkeypatch.setitem(sys.modules, "pyxrt", sys.modules[__name__])
    return machine


class ert_cmd_state(enum.Enum):
    # The binding leaves RUNNING (3) out; pybind11 would show it as "???".
    ERT_CMD_STATE_NEW = 1
    ERT_CMD_STATE_QUEUED = 2
    ERT_CMD_STATE_COMPLETED = 4
    ERT_CMD_STATE_ERROR = 5
    ERT_CMD_STATE_ABORT = 6
    ERT_CMD_STATE_SUBMITTED = 7
    ERT_CMD_STATE_TIMEOUT = 8
    ERT_CMD_STATE_NORESPONSE = 9
    ERT_CMD_STATE_SKERROR = 10
    ERT_CMD_STATE_SKCRASHED = 11


class xrt_info_device(enum.Enum):
    name = 3


class xclBOSyncDirection(enum.Enum):
    XCL_BO_SYNC_BO_TO_DEVICE = 0
    XCL_BO_SYNC_BO_FROM_DEVICE = 1


def _integer(low: int, high: int) -> Any:
    """pybind11's caster of an integer type: ints and what has `__index__` within its range, but no floats."""

    def cast(value: Any) -> int:
        if isinstance(value, float) or not hasattr(value, "__index__"):
            raise TypeError
        number = value.__index__()
        if not low <= number <= high:
            raise TypeError
        return int(number)

    return cast


_int32 = _integer(-(1 << 31), (1 << 31) - 1)
_uint32 = _integer(0, (1 << 32) - 1)
_size_t = _integer(0, (1 << 64) - 1)


Overloads = list[list[Any]]


def _resolve(name: str, overloads: Overloads, arguments: tuple[Any, ...]) -> Any:
    """The first overload that takes the arguments, and what they become; else TypeError."""
    for number, overload in enumerate(overloads):
        if len(overload) != len(arguments):
            continue
        with contextlib.suppress(TypeError):
            return number, [_cast(wanted, value) for wanted, value in zip(overload, arguments, strict=True)]
    kind = "constructor" if name == "__init__" else "function"
    raise TypeError(f"{name}(): incompatible {kind} arguments.")


def _cast(wanted: Any, value: Any) -> Any:
    if not isinstance(wanted, type):
        return wanted(value)
    if not isinstance(value, wanted):
        raise TypeError
    return value


def _driver(what: str, number: int, text: str) -> RuntimeError:
    return RuntimeError(f"{what} (err={number}): {text}")


def _ioctl(name: str) -> None:
    if machine.lost:
        raise _driver(f"DRM_IOCTL_{name} IOCTL failed", -19, "No such device")


class uuid:
    def __init__(self, text: str) -> None:
        self._text = text


class xclbin:
    class xclbinkernel:
        def __init__(self, program: dict[str, Any]) -> None:
            self.get_name = lambda: program["kernel"]
            self.get_num_args = lambda: program["arguments"]

    def __init__(self, *arguments: Any) -> None:
        _, (filename,) = _resolve("__init__", [[str]], arguments)
        if not filename:
            raise RuntimeError("No xclbin specified")
        if not Path(filename).is_file():
            raise RuntimeError(f"No such file '{filename}'")
        data = Path(filename).read_bytes()
        if not data.startswith(MAGIC):
            raise RuntimeError("Invalid xclbin")
        self._program = read(data)
        self._uuid = hashlib.sha256(data).hexdigest()[:32]
        machine.track(self)

    def get_kernels(self) -> list[xclbinkernel]:
        return [self.xclbinkernel(self._program)]


class device:
    def __init__(self, *arguments: Any) -> None:
        _, (index,) = _resolve("__init__", [[_uint32]], arguments)
        if not machine.present or index != 0:
            raise RuntimeError(f" No such device with index '{index}'")
        if machine.lost and not machine.alive["device"]:  # its node is opened once, and counted
            raise _driver("Open /dev/accel/accel0 failed", -19, "No such device")
        self._registered: dict[str, xclbin] = {}
        machine.track(self)

    def get_info(self, *arguments: Any) -> str:
        _resolve("get_info", [[xrt_info_device]], arguments)
        return "stand-in"

    def register_xclbin(self, *arguments: Any) -> uuid:
        _, (loaded,) = _resolve("register_xclbin", [[xclbin]], arguments)
        self._registered[loaded._uuid] = loaded
        return uuid(loaded._uuid)


class hw_context:
    def __init__(self, *arguments: Any) -> None:
        overloads: Overloads = [[device, uuid]]
        _, (self._device, what) = _resolve("__init__", overloads, arguments)
        loaded = self._device._registered.get(what._text)
        if loaded is None:
            raise RuntimeError(f"No xclbin with uuid '{what._text}': Invalid argument")
        _ioctl("AMDXDNA_CREATE_HWCTX")
        if machine.alive["hw_context"] >= machine.contexts:
            raise _driver("DRM_IOCTL_AMDXDNA_CREATE_HWCTX IOCTL failed", -2, "No such file or directory")
        self._program = loaded._program
        self._timed_out = False
        machine.track(self)
        self._handle = 2 * machine.made["hw_context"]  # the driver's


class kernel:
    def __init__(self, *arguments: Any) -> None:
        _, (self._context, name) = _resolve("__init__", [[hw_context, str]], arguments)
        if name != self._context._program["kernel"]:
            raise RuntimeError(f"No such kernel '{name}': Invalid argument")
        self._arguments = self._context._program["arguments"]
        machine.track(self)

    def group_id(self, *arguments: Any) -> int:
        _, (index,) = _resolve("group_id", [[_int32]], arguments)
        bank = _NO_BANK if index in (0, 2) or not 0 <= index < self._arguments else int(index == 1)
        return int(self._context._handle << 16 | bank)


_NO_BANK = 0xFFFF


class bo:
    class flags(enum.Enum):
        normal = 0
        cacheable = 1 << 24
        host_only = 1 << 29

    normal, cacheable, host_only = flags  # type: ignore[misc]

    def __init__(self, *arguments: Any) -> None:
        overloads: Overloads = [[device, _size_t, bo.flags, _uint32]]
        _, (self._owner, size, flags, self._group) = _resolve("__init__", overloads, arguments)
        if flags not in (bo.flags.host_only, bo.flags.cacheable):
            raise _driver("unsupported buffer type: none flag", 95, "Operation not supported")
        if size == 0:
            raise _driver("mmap_range(len=0) failed", -22, "Invalid argument")
        if flags is bo.flags.cacheable and size > 64 << 20:  # the device heap
            raise _driver("DRM_IOCTL_AMDXDNA_CREATE_BO IOCTL failed", -22, "Invalid argument")
        _ioctl("AMDXDNA_CREATE_BO")
        if machine.taken + size > machine.memory:
            raise _driver("DRM_IOCTL_AMDXDNA_CREATE_BO IOCTL failed", -12, "Cannot allocate memory")
        self._size, self._flags = size, flags
        self._host, self._memory = (bytearray(machine.random.bytes(size)) for _ in range(2))
        machine.taken += size
        machine.track(self)
        weakref.finalize(self, _free, machine, self._host)

    def size(self) -> int:
        return self._size

    def map(self) -> memoryview:
        return memoryview(self._host)

    def sync(self, *arguments: Any) -> None:
        _, (way,) = _resolve("sync", [[xclBOSyncDirection]], arguments)
        if way is xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE:
            self._memory[:] = self._host
        else:
            self._host[:] = self._memory


def _free(owner: Machine, host: bytearray) -> None:
    owner.taken -= len(host)
    host[:] = b"\xdd" * len(host)


class run:
    def __init__(self, *arguments: Any) -> None:
        _, (self._kernel,) = _resolve("__init__", [[kernel]], arguments)
        _ioctl("AMDXDNA_CREATE_BO")  # of its command
        self._set: dict[int, Any] = {}
        self._state = ert_cmd_state.ERT_CMD_STATE_NEW
        self._in_flight = self._never_ends = False
        self._looks = 0  # until XRT sees that it is over
        self._machine = machine
        machine.track(self)

    def set_arg(self, *arguments: Any) -> None:
        number, (index, value) = _resolve("set_arg", [[_int32, bo], [_int32, _int32]], arguments)
        count = self._kernel._arguments
        if number == 0 and index >= count:
            machine.aborted.append(f"argument {index} of {count} set to a buffer")
            return
        if not 0 <= index < count:
            raise IndexError(
                f"vector::_M_range_check: __n (which is {index % (1 << 64)}) >= this->size() (which is {count})"
            )
        if number == 0 and (value._group ^ self._kernel.group_id(index)) & 0xFFFF:
            raise RuntimeError("No host side buffer in destination buffer: Invalid argument")
        # A number also where a buffer belongs: it becomes its address.
        self._set[index] = value._memory if number == 0 else value

    def start(self) -> None:
        if self._in_flight:
            raise RuntimeError("bad command state, can't launch")
        machine.runs += 1
        self._state = ert_cmd_state.ERT_CMD_STATE_NEW
        _ioctl("AMDXDNA_EXEC_CMD")
        self._in_flight = True
        context = self._kernel._context
        fault = machine.faults.get(machine.runs)
        if fault == "lost while waiting":
            machine.lost_from, self._never_ends = machine.runs, True
        elif fault == "hang":
            self._never_ends = context._timed_out = True
        elif fault == "timeout" or context._timed_out:
            self._end("TIMEOUT")
        elif fault in ("error", "abort"):
            self._end(fault.upper())
        else:
            self._looks = 3 * (fault == "slow")
            memory = [
                value if isinstance(value, bytearray) else None
                for value in (self._set.get(i) for i in range(self._kernel._arguments))
            ]
            self._end(machine.execute(context._program, self._set.get(0), memory[1], memory[3:]))

    def _end(self, state: str) -> None:
        self._kernel._context._timed_out |= state == "TIMEOUT"
        self._state = ert_cmd_state[f"ERT_CMD_STATE_{state}"]

    def state(self) -> ert_cmd_state:
        """Also how XRT learns that a run is over."""
        if self._looks:
            self._looks -= 1
            return ert_cmd_state.ERT_CMD_STATE_NEW
        self._in_flight &= self._never_ends
        return self._state

    def end(self) -> None:
        """What the driver does with a run that hangs, in its time."""
        self._never_ends = False
        self._end("TIMEOUT")

    def __del__(self) -> None:
        if getattr(self, "_in_flight", False):
            self._machine.aborted.append("xrt::run destructed while command is still in progress")
