"""Checks of the system around the NPU: kernel, processor, virtualisation, limits."""

from __future__ import annotations

import re

from kernels.npu.diagnosis.finding import Finding
from kernels.npu.diagnosis.machine import Machine

DRIVER_SOURCE = "github.com/amd/xdna-driver"
HEAP = 64 << 20
"""Bytes that XRT's plugin maps and locks at one go when it opens the device (AIE2_DEVM_SIZE of the driver)."""


def system(machine: Machine) -> Finding:
    """Operating system and kernel. amdxdna is in Linux since 6.14; its own repository supports 6.10 and later."""
    name = "system"
    if not machine.platform.startswith("linux"):
        return Finding(
            name,
            "wrong",
            f"the NPU is used through Linux; this is {machine.platform}",
            "use Linux 6.14 or later",
        )
    release = machine.text("proc/sys/kernel/osrelease")
    pretty = re.search(r'^PRETTY_NAME="?(.*?)"?$', machine.text("etc/os-release") or "", re.MULTILINE)
    found = f"{pretty[1] if pretty else 'Linux'}, kernel {release or 'unknown'}"
    numbers = re.match(r"(\d+)\.(\d+)", release or "")
    if not numbers:
        return Finding(name, "unknown", found)
    version = int(numbers[1]), int(numbers[2])
    if version >= (6, 14) or machine.exists("sys/module/amdxdna"):
        return Finding(name, "ok", found)
    if version >= (6, 10):
        return Finding(
            name,
            "warning",
            f"{found}, which has no amdxdna driver of its own (6.14 has)",
            f"boot Linux 6.14 or later, or install the driver of {DRIVER_SOURCE}",
        )
    return Finding(
        name, "wrong", f"{found}, which is too old for the NPU's driver", "boot Linux 6.14 or later"
    )


def processor(machine: Machine) -> Finding:
    """Processor model. Family 25, models 0x70 to 0x7f are Phoenix and Hawk Point; some of them have no NPU."""
    fields = dict(
        re.findall(r"^(model name|cpu family|model)\s*:\s*(.*)$", _first_core(machine), re.MULTILINE)
    )
    found = fields.get("model name", "").strip()
    if not found:
        return Finding("processor", "unknown", "its model cannot be read from /proc/cpuinfo")
    if is_phoenix(machine):
        return Finding("processor", "ok", f"{found} (Phoenix or Hawk Point)")
    return Finding("processor", "note", found)


def host(machine: Machine) -> Finding:
    """Signs of a virtual machine or container, where a device has to be passed on to be seen."""
    signs = []
    if in_virtual_machine(machine):
        product = "WSL" if _in_wsl(machine) else machine.text("sys/class/dmi/id/product_name")
        signs.append("a virtual machine" + (f" ({product})" if product else ""))
    if in_container(machine):
        signs.append("a container")
    if not signs:
        return Finding("host", "ok", "no sign of a virtual machine or container")
    return Finding("host", "note", ", ".join(signs))


def locked_memory(machine: Machine) -> Finding:
    """The limit of locked memory. Opening the device maps and locks 64 MiB; XRT's documentation asks for no limit."""
    name = "locked memory"
    if machine.memlock is None:
        return Finding(name, "unknown", "this system has no such limit")
    soft, hard = machine.memlock
    if soft is None:
        return Finding(name, "ok", "no limit")
    found = f"limit {soft >> 10} KiB"
    if _may_lock_anything(machine):
        return Finding(name, "ok", f"{found}, from which this user is exempt")
    remedy = (
        "write `* - memlock unlimited` into /etc/security/limits.d/99-amdxdna.conf and log in again "
        "(Fedora: also LimitMEMLOCK=infinity for user@.service)"
    )
    if hard is None or hard > 2 * HEAP:
        remedy = f"run `ulimit -l {'unlimited' if hard is None else hard >> 10}` in this shell; to keep it, {remedy}"
    if in_container(machine):
        remedy += "; of a container: --ulimit memlock=-1"
    if soft < HEAP:
        return Finding(name, "wrong", f"{found} of locked memory, where the NPU needs {HEAP >> 10}", remedy)
    if soft < 2 * HEAP:
        return Finding(
            name, "warning", f"{found}, hardly more than the {HEAP >> 10} KiB of an open NPU", remedy
        )
    return Finding(name, "ok", found)


def _first_core(machine: Machine) -> str:
    return (machine.text("proc/cpuinfo") or "").partition("\n\n")[0]


def is_phoenix(machine: Machine) -> bool:
    """Whether the processor is of the family that can have an XDNA1 NPU."""
    core = _first_core(machine)
    family = re.search(r"^cpu family\s*:\s*(\d+)$", core, re.MULTILINE)
    model = re.search(r"^model\s*:\s*(\d+)$", core, re.MULTILINE)
    return bool(family and model and int(family[1]) == 25 and 0x70 <= int(model[1]) <= 0x7F)


def in_virtual_machine(machine: Machine) -> bool:
    """Whether the processor or the kernel says that this is a virtual machine."""
    return _in_wsl(machine) or bool(
        re.search(r"^flags\s*:.*\bhypervisor\b", _first_core(machine), re.MULTILINE)
    )


def in_container(machine: Machine) -> bool:
    """Whether container engines have left their marks."""
    marks = (".dockerenv", "run/.containerenv", "run/systemd/container")
    groups = machine.text("proc/1/cgroup") or ""
    return any(map(machine.exists, marks)) or bool(re.search(r"docker|kubepods|lxc|libpod", groups))


def _in_wsl(machine: Machine) -> bool:
    return "microsoft" in (machine.text("proc/sys/kernel/osrelease") or "").lower()


def _may_lock_anything(machine: Machine) -> bool:
    """Whether the process has CAP_IPC_LOCK (bit 14), as root has."""
    capabilities = re.search(
        r"^CapEff:\s*([0-9a-fA-F]+)$", machine.text("proc/self/status") or "", re.MULTILINE
    )
    return bool(capabilities and int(capabilities[1], 16) >> 14 & 1)
