"""One NPU opened through XRT: a context for each program in use, and in it a run, with its buffers, that is made once
and started again and again.

What the binding does was read in Xilinx/XRT (src/python/pybind11/src/pyxrt.cpp, src/runtime_src/core/common/api/
xrt_kernel.cpp) and amd/xdna-driver (src/shim, drivers/accel/amdxdna), August 2026. What shapes this file:

- `kernel(...)` ignores every argument that it cannot convert, and the run starts without it; `run.set_arg` raises. So a
  run is made once, its arguments are set and checked, and it is started again and again.
- `run.wait(ms)` keeps the interpreter's lock while it waits, takes a signal for a failure, and never returns from a run
  that was not started. `run.state()` reads the command's packet, which the driver writes: it is asked until a deadline.
  Beside `wait`, on runs of 12 ms before a driver that pretends: the same latency, 0.25 ms more of the processor's time
  a run, and 1,400 turns a second for another thread, where it has 60.
- A run that is dropped while the device still works on it aborts the whole process (`run_impl::~run_impl`). One that
  may still be at work is never dropped: it is kept, with its buffers, until it is over or the process ends.
- A buffer in another memory bank than the argument's is refused; one for an argument that there is not ends the
  process. So each buffer is made in its own argument's group, which is another in every context.
- `bo.map()` gives a view that does not keep the buffer alive. No view leaves this file's objects.
- Objects are let go of in the order runs, buffers, contexts, device. XRT shares their ownership, so that a run which
  may still be at work, and is therefore kept, keeps its context and its device as well. The device's node is opened
  once for a process, and counted: while anything is kept, opening the device again gives the same one.
"""

from __future__ import annotations

import ctypes
import errno
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from operator import call
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.arrays import Bytes
from kernels.device import DeviceError
from kernels.npu.build.store import Build

KERNEL_NAME = "MLIR_AIE"  # of every xclbin that mlir-aie packs
OPCODE = 3  # the first argument of a run whose instructions are a transaction
FIRST_BUFFER = 3  # index of the first data argument: after the opcode, the instructions and their length

_FINAL_STATES = frozenset(
    f"ERT_CMD_STATE_{name}"
    for name in ("COMPLETED", "ERROR", "ABORT", "TIMEOUT", "NORESPONSE", "SKERROR", "SKCRASHED")
)
"""States that a command does not leave; SUBMITTED has a higher number than COMPLETED, but is not one of them."""

_FAILURES = (RuntimeError, ValueError, IndexError, TypeError, OverflowError, MemoryError)
"""What pybind11 makes of the C++ exceptions that XRT throws."""


SHORTEST_SLEEP, LONGEST_SLEEP = 50e-6, 2e-3
"""Seconds between two looks at a run's state: a sixteenth of the time that it has taken until then, within these."""


class XrtError(Exception):
    """XRT refused a call, or a run did not complete; the text is one line."""

    @property
    def number(self) -> int:
        """What Linux calls the driver's error (errno); 0 where there is none."""
        found = re.search(r"\(err=-?(\d+)\)", str(self))
        return int(found[1]) if found else 0

    @property
    def gone(self) -> bool:
        """Whether the driver has let go of the device."""
        return self.number == errno.ENODEV

    @property
    def no_room(self) -> str | None:
        """What is used up, where the device itself is well, and what helps; None for any other error."""
        if self.number == errno.ENOMEM:
            return "there is not enough memory for its buffers"
        if self.number == errno.EAGAIN:
            return "this process may not lock as much memory as its buffers take (tilescribe doctor)"
        # The driver's own number, and what the owner of a Hawk Point met
        if "CREATE_HWCTX" in str(self) and self.number in (errno.ENOENT, errno.EINVAL):
            return "it has six contexts for all processes: end what else uses it"
        return None


class xrt_call:  # noqa: N801  # used as a function is
    """Turn what pyxrt raises into `XrtError`: what was being done, and XRT's own words, on one line.

    The driver's errors carry `(err=-N)` with the number that Linux gives them, before the system's text for it. No
    generator's context manager: on Python 3.13 the errors that pass through one are part of a reference cycle, and
    keep the frames that hold buffers, contexts and the device.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None: ...

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _FAILURES):
            text = " ".join(str(error).split()) or type(error).__name__
            raise XrtError(f"{self._doing}: {text}") from error


def binding() -> Any:
    """The module pyxrt, compiled for one minor version of Python. Raises `DeviceError` where it cannot be imported."""
    try:
        import pyxrt
    except ImportError as error:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise DeviceError(
            f"pyxrt cannot be imported ({' '.join(str(error).split())}): install XRT's Python binding for "
            f"Python {version}, or put the folder of its pyxrt module on PYTHONPATH"
        ) from error
    return pyxrt


class Session:
    """The opened device: one context for each xclbin in use, one `Launch` for each number of heads."""

    def __init__(self, xrt: Any) -> None:
        """Open the device, with the module pyxrt. Raises `XrtError`."""
        self._xrt = xrt
        self._device: Any = None
        self._contexts: dict[Path, _Context] = {}
        self.open()

    def open(self, patience: float = 0) -> None:
        """Open the device, unless it is open; for so many seconds it may be gone. Raises `XrtError`."""
        until = time.monotonic() + patience
        while self._device is None:
            try:
                with xrt_call("opening device 0"):
                    self._device = self._xrt.device(0)
            except XrtError:
                if time.monotonic() >= until:
                    raise
                time.sleep(min(patience, 0.1))

    @property
    def name(self) -> str:
        """What XRT calls the device."""
        try:
            return str(self._device.get_info(self._xrt.xrt_info_device.name))
        except _FAILURES:
            return "unknown"

    def launch(self, build: Build, heads: int, sizes: Sequence[int]) -> Launch:
        """The run of a program for a number of heads, made at the first call; see `Launch`. Raises `XrtError`."""
        if build.xclbin not in self._contexts:
            self._load(build.xclbin)
        context, key = self._contexts[build.xclbin], (build.instructions, heads)
        if key not in context.launches:
            needed = FIRST_BUFFER + len(sizes)
            if context.arguments < needed:
                raise XrtError(
                    f"{build.xclbin}: its kernel takes {context.arguments} arguments, where a run has {needed}"
                )
            words = _words(build.instructions)
            context.launches[key] = Launch(self._xrt, self._device, context.kernel, words, sizes)
        return context.launches[key]

    def close(self) -> None:
        """Let go of runs, buffers, contexts and the device, in this order."""
        self.give_back()
        self._device = None

    def give_back(self) -> None:
        """Let go of runs, buffers and contexts: of all but the device, and what it may still be at work on."""
        contexts = tuple(self._contexts.values())
        self._contexts.clear()  # before Ctrl-C can leave one half closed
        for context in contexts:
            context.close()
        for launch in tuple(_at_work):
            if launch.closed:
                launch.close()

    @property
    def held(self) -> bool:
        """Whether something that the device may still be at work on keeps it open, whoever closes it."""
        return any(launch.closed for launch in _at_work)

    def _load(self, xclbin: Path) -> None:
        self.open()
        # The driver has few contexts, for all processes together: where there is none left, give back our others.
        if self._contexts:
            with suppress(XrtError):
                self._contexts[xclbin] = _Context(self._xrt, self._device, xclbin)
                return
            self.give_back()
        self._contexts[xclbin] = _Context(self._xrt, self._device, xclbin)


class _Context:
    """An xclbin on the device."""

    def __init__(self, xrt: Any, device: Any, path: Path) -> None:
        with xrt_call(f"loading {path}"):
            xclbin = xrt.xclbin(str(path))
            kernels = {kernel.get_name(): kernel.get_num_args() for kernel in xclbin.get_kernels()}
            if KERNEL_NAME not in kernels:
                raise XrtError(f"loading {path}: it has no kernel {KERNEL_NAME}, but {sorted(kernels)}")
            self.arguments: int = kernels[KERNEL_NAME]
            self.context = xrt.hw_context(device, device.register_xclbin(xclbin))
            self.kernel = xrt.kernel(self.context, KERNEL_NAME)
        self.launches: dict[tuple[Path, int], Launch] = {}

    def close(self) -> None:
        for launch in self.launches.values():
            launch.close()
        self.launches.clear()
        self.kernel = self.context = None


def _words(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise XrtError(f"{path}: {error.strerror or error}") from error
    if not data or len(data) % 4:
        raise XrtError(f"{path}: {len(data)} bytes are no instructions, which are 32-bit words")
    return data


class Launch:
    """A program's run for one number of heads, with its buffers: written, run and read over and over.

    Attributes:
        inputs: uint8, the input buffers in the host's memory: write operands there.
        output: uint8, the output buffer in the host's memory: read the result there after `run`.
        closed: whether it was closed, also where it has to be kept.
    """

    def __init__(self, xrt: Any, device: Any, kernel: Any, instructions: bytes, sizes: Sequence[int]) -> None:
        """Make the buffers and the run, on a `pyxrt.device` and of a `pyxrt.kernel`; instructions are 32-bit words.

        The sizes, in bytes, are those of the input buffers in the order of the arguments, and then of the output.

        Raises:
            XrtError: XRT has no room for a buffer, or refuses it as an argument.
        """
        self._xrt = xrt
        self.closed = False
        flags = xrt.bo.flags
        with xrt_call("making the instruction buffer"):
            self._instructions = xrt.bo(device, len(instructions), flags.cacheable, kernel.group_id(1))
        self._view(self._instructions, len(instructions))[:] = np.frombuffer(instructions, np.uint8)
        self._sync(self._instructions, "TO")
        self._buffers = []
        for index, size in enumerate(sizes, FIRST_BUFFER):
            with xrt_call(f"making a buffer of {size} bytes"):
                self._buffers.append(xrt.bo(device, size, flags.host_only, kernel.group_id(index)))
        *views, self.output = map(self._view, self._buffers, sizes)
        self.inputs: tuple[Bytes, ...] = tuple(views)
        with xrt_call("making a run"):
            self._run = xrt.run(kernel)
        # mlir-aie's Python runtime gives the instructions' length in bytes (python/utils/hostruntime/xrtruntime/
        # hostruntime.py), its C++ examples in words; both run on its hardware tests, so it only bounds them.
        self._set((OPCODE, self._instructions, len(instructions), *self._buffers))

    def run(self, timeout_ms: int) -> None:
        """Give the device what the inputs hold, run, and fetch the output; other threads go on meanwhile.

        Ctrl-C and what else a signal raises comes once the run is over, or its time.

        Raises:
            XrtError: the run did not complete in time, or ended in an error; the context is not to be used again.
        """
        if self in _at_work:  # after a second Ctrl-C
            self._wait(timeout_ms)
        for buffer in self._buffers[:-1]:
            self._sync(buffer, "TO")
        try:
            self._start()
            state = self._wait(timeout_ms)
        except XrtError:
            raise
        except BaseException:
            if self in _at_work:
                with suppress(XrtError):
                    self._wait(timeout_ms)
            raise
        if state != self._xrt.ert_cmd_state.ERT_CMD_STATE_COMPLETED:
            raise XrtError(f"the run ended as {state.name}")
        self._sync(self._buffers[-1], "FROM")

    def close(self) -> None:
        """Let go of the run and then of the buffers, unless the device may still be at work on them."""
        self.closed = True
        if self in _at_work and self._state().name not in _FINAL_STATES:
            return
        _at_work.discard(self)
        self.inputs, self.output = (), np.empty(0, np.uint8)
        self._run = None
        self._buffers.clear()
        self._instructions = None

    def _start(self) -> None:
        started: list[None] = []
        try:
            _at_work.add(self)
            with xrt_call("starting a run"):
                # Ctrl-C cannot come between the call and the note of it: no bytecode runs in between.
                started.extend(map(call, (self._run.start,)))
        finally:
            if not started:
                _at_work.discard(self)

    def _wait(self, timeout_ms: int) -> Any:
        """The state that the run ends in."""
        began = time.monotonic()
        while (state := self._state()).name not in _FINAL_STATES:
            passed = time.monotonic() - began
            if passed * 1000 >= timeout_ms:
                raise XrtError(f"the run did not complete within {timeout_ms} ms")
            time.sleep(min(max(passed / 16, SHORTEST_SLEEP), LONGEST_SLEEP))
        _at_work.discard(self)
        return state

    def _state(self) -> Any:
        with xrt_call("asking for a run's state"):
            return self._run.state()

    def _set(self, arguments: tuple[Any, ...]) -> None:
        """Set each argument of the run, once it is what the kernel takes there: the binding does not always check."""
        for index, argument in enumerate(arguments):
            wants_integer = index in (0, FIRST_BUFFER - 1)
            if wants_integer and not (type(argument) is int and 0 <= argument < 1 << 31):
                raise XrtError(f"argument {index} of a run has to be a 32-bit integer, not {argument!r}")
            if not wants_integer and not isinstance(argument, self._xrt.bo):
                raise XrtError(f"argument {index} of a run has to be a buffer, not {argument!r}")
            with xrt_call(f"setting argument {index} of a run"):
                self._run.set_arg(index, argument)

    def _sync(self, buffer: Any, direction: str) -> None:
        with xrt_call("handing a buffer over"):
            buffer.sync(getattr(self._xrt.xclBOSyncDirection, f"XCL_BO_SYNC_BO_{direction}_DEVICE"))

    def _view(self, buffer: Any, size: int) -> npt.NDArray[np.uint8]:
        with xrt_call("mapping a buffer"):
            view = np.frombuffer(buffer.map(), np.uint8)
        if view.size != size:
            raise XrtError(f"a buffer of {size} bytes was asked for, and has {view.size}")
        return view


_at_work: set[Launch] = set()
"""Those that were started and are not known to be over."""
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_at_work))  # for ever: also past the interpreter's end
