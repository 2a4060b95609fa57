"""What this machine has and lacks for the NPU: checks that only read, and never fail on what they read.

`diagnose` runs every check; `npu_obstacle` picks what is in the way. `Machine` roots the checks at a
path, so that a laid-out folder can stand for a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from kernels.npu.diagnosis import bindings, npu, system, toolchain, xrt
from kernels.npu.diagnosis.finding import STATES, Finding, State
from kernels.npu.diagnosis.machine import Machine
from kernels.npu.diagnosis.toolchain import built_kernel

__all__ = ["STATES", "Finding", "Machine", "State", "diagnose", "npu_obstacle"]

KernelCheck = Callable[[], Finding]


def diagnose(machine: Machine | None = None, kernel_check: KernelCheck = built_kernel) -> tuple[Finding, ...]:
    """Check everything that the NPU needs, in the order in which it is needed, then what building a kernel needs.

    Where there is no NPU that the kernel runs on, what is missing for one is reported as a note, without a
    remedy: there is nothing to remedy.

    Args:
        machine: where to look; this machine by default.
        kernel_check: finds the built kernel (xclbin) and compares it with the source.
    """
    machine = machine or Machine.here()
    device = npu.npu(machine)
    kernel = system.system(machine)
    needed: Iterable[Finding] = (
        npu.iommu(machine),
        npu.firmware(machine),
        npu.driver(machine),
        npu.node(machine),
        system.locked_memory(machine),
        xrt.xrt(machine),
        xrt.xrt_plugin(machine),
        bindings.pyxrt(machine),
        kernel_check(),
    )
    if device.obstructs:
        needed = map(_moot, needed)
        kernel = _moot(kernel) if machine.platform.startswith("linux") else kernel
    return (
        kernel,
        system.processor(machine),
        system.host(machine),
        device,
        *needed,
        toolchain.host_compiler(machine),
        toolchain.mlir_aie(machine),
        toolchain.peano(machine),
    )


def npu_obstacle(findings: Sequence[Finding] | None = None) -> Finding | None:
    """The first finding that keeps the NPU from being used, or None.

    Args:
        findings: of `diagnose`, which is called where they are left out.
    """
    found = diagnose() if findings is None else findings
    return next((finding for finding in found if finding.obstructs), None)


def _moot(finding: Finding) -> Finding:
    """The same without an NPU to use it: nothing to worry about, nothing to remedy."""
    return finding if finding.state == "ok" else replace(finding, state="note", remedy=None)
