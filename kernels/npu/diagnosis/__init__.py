"""What this machine has and lacks for the NPU: checks that only read, and never fail on what they read.

`Host` roots the checks at a path, so that a laid-out folder can stand for a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from kernels.npu.diagnosis import npu, system, xrt
from kernels.npu.diagnosis.host import STATES, Answer, Finding, Host, State

__all__ = ["STATES", "Answer", "Finding", "Host", "State", "diagnose", "npu_obstacle"]

Checks = dict[str, Callable[[Host], Answer]]

AROUND: Checks = {
    "system": system.system,
    "processor": system.processor,
    "host": system.virtualisation,
    "NPU": npu.npu,
}
NEEDED: Checks = {
    "IOMMU": npu.iommu,
    "firmware": npu.firmware,
    "driver": npu.driver,
    "device node": npu.node,
    "locked memory": system.locked_memory,
    "XRT": xrt.xrt,
    "XRT plugin": xrt.xrt_plugin,
    "pyxrt": xrt.pyxrt,
}
"""What an NPU needs, in this order, before a built kernel."""
TOOLS: Checks = {"host compiler": system.host_compiler, "mlir-aie": system.mlir_aie, "Peano": system.peano}
"""What building a kernel needs."""


def diagnose(
    host: Host | None = None, kernel_check: Callable[[], Answer] = system.built_kernel
) -> tuple[Finding, ...]:
    """Check everything that the NPU needs, in the order in which it is needed, then what building a kernel needs.

    Where there is no NPU that the kernel runs on, what is missing for one is reported as a note, without a
    remedy: there is nothing to remedy. The host is this machine by default.
    """
    host = host or Host.here()
    around, needed, tools = (
        [Finding(name, *check(host)) for name, check in checks.items()] for checks in (AROUND, NEEDED, TOOLS)
    )
    needed.append(Finding("xclbin", *kernel_check()))
    if around[-1].obstructs:
        needed = [_moot(finding) for finding in needed]
        if host.platform.startswith("linux"):
            around[0] = _moot(around[0])
    return (*around, *needed, *tools)


def npu_obstacle(findings: Sequence[Finding] | None = None) -> Finding | None:
    """The first of `findings` (of `diagnose`, by default) that keeps the NPU from being used, or None."""
    found = diagnose() if findings is None else findings
    return next((finding for finding in found if finding.obstructs), None)


def _moot(finding: Finding) -> Finding:
    """The same without an NPU to use it: nothing to worry about, nothing to remedy."""
    return finding if finding.state == "ok" else replace(finding, state="note", remedy=None)
