"""One NPU opened through XRT: a context for each program in use, and in it a run for each number of heads.

Objects are let go of in the order runs, buffers, contexts, device. XRT shares their ownership, so that a run which
may still be at work, and is therefore kept, keeps its context and its device as well.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from kernels.device import DeviceError
from kernels.npu.runtime.launch import FIRST_BUFFER, Launch, XrtError, xrt_call

KERNEL_NAME = "MLIR_AIE"
"""What mlir-aie calls the kernel of every xclbin that it packs."""


def binding() -> Any:
    """The module pyxrt; it is compiled for one minor version of Python.

    Raises:
        DeviceError: it cannot be imported.
    """
    try:
        import pyxrt
    except ImportError as error:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise DeviceError(
            f"pyxrt cannot be imported ({' '.join(str(error).split())}): install XRT's Python binding for "
            f"Python {version}, or put the folder of its pyxrt module on PYTHONPATH"
        ) from error
    return pyxrt


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


class Session:
    """The opened device: one context for each xclbin in use, one `Launch` for each number of heads."""

    def __init__(self, xrt: Any, index: int = 0) -> None:
        """Open the device.

        Args:
            xrt: the module pyxrt.
            index: of the device.

        Raises:
            XrtError: there is no such device, or it cannot be opened.
        """
        self._xrt = xrt
        with xrt_call(f"opening device {index}"):
            self._device = xrt.device(index)
        self._contexts: dict[Path, _Context] = {}

    def launch(
        self, xclbin: Path, instructions: Path, heads: int, inputs: tuple[int, ...], output: int
    ) -> Launch:
        """The run of a program, made at the first call.

        Args:
            xclbin: the program.
            instructions: its instruction stream for this number of heads.
            heads: how many.
            inputs: sizes of the input buffers in bytes.
            output: size of the output buffer in bytes.

        Raises:
            XrtError: a file is not what it should be, or XRT refuses it.
        """
        context = self._contexts.get(xclbin) or self._load(xclbin)
        key = (instructions, heads)
        if key not in context.launches:
            needed = FIRST_BUFFER + len(inputs) + 1
            if context.arguments < needed:
                raise XrtError(
                    f"{xclbin}: its kernel takes {context.arguments} arguments, where a run has {needed}"
                )
            context.launches[key] = Launch(
                self._xrt, self._device, context.kernel, _words(instructions), inputs, output
            )
        return context.launches[key]

    def close(self) -> None:
        """Let go of runs, buffers, contexts and the device, in this order."""
        self._close_contexts()
        self._device = None

    def _load(self, xclbin: Path) -> _Context:
        context = None
        if self._contexts:
            # The driver has few contexts, for all processes together: where there is none left, give back our others.
            with suppress(XrtError):
                context = _Context(self._xrt, self._device, xclbin)
            if context is None:
                self._close_contexts()
        self._contexts[xclbin] = context or _Context(self._xrt, self._device, xclbin)
        return self._contexts[xclbin]

    def _close_contexts(self) -> None:
        for context in self._contexts.values():
            context.close()
        self._contexts.clear()


def _words(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise XrtError(f"{path}: {error.strerror or error}") from error
    if not data or len(data) % 4:
        raise XrtError(f"{path}: {len(data)} bytes are no instructions, which are 32-bit words")
    return data
