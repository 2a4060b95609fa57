"""What this machine has and lacks for the NPU: checks that only read, and never fail on what they read.

`Host` roots the checks at a path, so that a laid-out folder can stand for a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from kernels.npu.diagnosis import npu, system, xrt
from kernels.npu.diagnosis.host import STATES, Finding, Host, State

__all__ = ["STATES", "Finding", "Host", "State", "diagnose", "npu_obstacle"]

Checks = dict[str, Callable[[Host], Finding]]

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
    host: Host | None = None, kernel_check: Callable[[], Finding] = system.built_kernel
) -> dict[str, Finding]:
    """Check everything that the NPU needs, in the order in which it is needed, then what building a kernel needs.

    Where there is no NPU that the kernel runs on, what is missing for one is reported as a note, without a
    remedy: there is nothing to remedy. The host is this machine by default.
    """
    return dict(_checked(host or Host.here(), kernel_check))


def npu_obstacle(findings: Mapping[str, Finding] | None = None) -> Finding | None:
    """The first of `findings` (of `diagnose`) that keeps the NPU from being used, or None.

    Without any this machine is checked up to there: where there is no NPU, nobody is asked for XRT.
    """
    found = findings.items() if findings is not None else _checked(Host.here(), system.built_kernel)
    return next((finding for _, finding in found if finding.obstructs), None)


def _checked(host: Host, kernel_check: Callable[[], Finding]) -> Iterator[tuple[str, Finding]]:
    around = {name: check(host) for name, check in AROUND.items()}
    absent = around["NPU"].obstructs
    if absent and host.platform.startswith("linux"):
        around["system"] = around["system"].moot
    yield from around.items()
    for name, check in (NEEDED | {"xclbin": lambda _: kernel_check()}).items():
        finding = check(host)
        yield name, finding.moot if absent else finding
    for name, check in TOOLS.items():
        yield name, check(host)
