"""Checks of the NPU and what the kernel makes of it: PCI device, IOMMU, firmware, driver, device node.

Device ids, names of firmware files and sysfs attributes are those of the amdxdna driver
(github.com/amd/xdna-driver: amdxdna_pci_drv.c, aie2_pci.c, amdxdna_sysfs.c, npu1_regs.c).
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from kernels.npu.diagnosis.host import Finding, Host, files, missing, ok, unknown, warning, wrong
from kernels.npu.diagnosis.system import DRIVER_SOURCE, NEWER_LINUX

PCI = "sys/bus/pci/devices"
AMD = 0x1022
PHOENIX = 0x1502
XDNA2 = 0x17F0
XDNA2_MODELS = {0x10: "Strix", 0x11: "Strix Halo", 0x20: "Krackan"}
"""By revision."""
LATER = {0x17F1, 0x17F2, 0x17F3, 0x1B0A, 0x1B0B, 0x1B0C}
FIRMWARE = ("lib/firmware/amdnpu/1502_00/npu*.sbin*", "lib/firmware/updates/amdnpu/1502_00/npu*.sbin*")
OLDEST_FIRMWARE = (1, 5, 5, 391)
"""The first that its owners' reports find well."""
SHIM_NEEDS = (6, 18)
"""The first Linux whose own driver XRT's current plugin can use."""
MODULES = ("kernel/drivers/accel/amdxdna/amdxdna.ko*", "*/amdxdna.ko*", "*/*/amdxdna.ko*")
"""Where a driver module is, beneath the folder of its kernel: the kernel's own, updates/ or extra/, updates/dkms/."""


def npu(host: Host) -> Finding:
    """The NPU among the PCI devices: XDNA1 (Phoenix, Hawk Point) is what the kernel is for."""
    try:
        os.listdir(host.root / PCI)
    except FileNotFoundError:
        return missing(f"there is no NPU here (/{PCI} is absent)", _why_no_npu(host))
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        return missing(
            f"there is no NPU here that this user can see (/{PCI}: {reason})", "make /sys readable"
        )
    found = _devices(host, PHOENIX) or _devices(host, XDNA2, *LATER)
    if not found:
        return missing("there is no NPU here (none among the PCI devices)", _why_no_npu(host))
    folder, device = found[0]
    revision = host.number(folder / "revision")
    shown = "unknown" if revision is None else f"{revision:02x}"
    identity = f"{AMD:04x}:{device:04x} revision {shown} at {folder.name}"
    if device == PHOENIX:
        phoenix = f"Phoenix or Hawk Point (XDNA1), {identity}"
        if revision == 0:
            return ok(phoenix)
        return warning(
            f"{phoenix}: a revision that amdxdna does not know", "compare `sudo dmesg | grep amdxdna`"
        )
    model = "later than XDNA2"
    if device == XDNA2:
        model = f"XDNA2 ({XDNA2_MODELS.get(revision or 0, 'unknown model')})"
    return wrong(
        f"the NPU here is {model}, {identity}; the kernel is for XDNA1 (Phoenix, Hawk Point)",
        "none on this machine; the emulator computes the same bits",
    )


def iommu(host: Host) -> Finding:
    """The NPU's IOMMU group. The driver shares the process's address space with the device through it (SVA)."""
    device = _npu(host)
    group = host.link(device / "iommu_group")
    if group:
        kind = host.text(f"sys/kernel/iommu_groups/{group}/type")
        if kind == "identity":
            return warning(
                f"group {group} passes addresses through (identity), which amdxdna before mid-2026 cannot use",
                "where the device cannot be opened, restart with iommu.passthrough=0 on the kernel's command line",
            )
        return ok(f"group {group}" + (f" ({kind})" if kind else ""))
    option = host.search("proc/cmdline", r"\b(?:amd_)?iommu=off\b")
    if option:
        return wrong(
            f"the IOMMU is off ({option[0]} on the kernel's command line)",
            f"take {option[0]} off the kernel's command line and restart",
        )
    there = host.exists(device)
    if not there and host.matches("sys/class/iommu/*"):
        return ok("on")
    return missing(
        "the IOMMU is off, or leaves the NPU out" if there else "no IOMMU",
        "switch the IOMMU on in the firmware set-up (BIOS) and restart",
    )


def firmware(host: Host) -> Finding:
    """The NPU's firmware: the version that runs, else the files that the driver would load."""
    version = host.text(_npu(host) / "fw_version")
    if version:
        numbers = tuple(int(part) for part in re.findall(r"\d+", version))
        if numbers and numbers < OLDEST_FIRMWARE:
            return warning(
                f"version {version}, older than {'.'.join(map(str, OLDEST_FIRMWARE))}: runs may end as "
                "ERT_CMD_STATE_ABORT (err=-22)",
                "update your distribution's linux-firmware, then restart",
            )
        return ok(f"version {version}")
    found = host.matches(*FIRMWARE)
    if found:
        return ok(f"{host.shown(found[0].parent)}: {', '.join(file.name for file in found)}; not loaded")
    if _driver(host).startswith("amdxdna"):
        return unknown("in use, but neither its version nor its files can be seen here")
    return missing(
        "the NPU's firmware is missing (/lib/firmware/amdnpu/1502_00/npu.sbin)",
        "install or update your distribution's linux-firmware, then restart",
    )


def driver(host: Host) -> Finding:
    """The amdxdna driver: loaded, and bound to the device."""
    bound, modules = _driver(host), [f"lib/modules/{host.release}/{pattern}" for pattern in MODULES]
    if bound.startswith("amdxdna"):  # its repository also ships amdxdna_legacy
        version, board = host.text("sys/module/amdxdna/version"), host.text(_npu(host) / "vbnv")
        found = " ".join(part for part in (bound, version, board and f"({board})") if part)
        if host.linux and host.linux < SHIM_NEEDS and not host.matches(*modules[1:]):
            major, minor = host.linux
            return warning(
                f"{found}, of Linux {major}.{minor} itself, which XRT's current plugin cannot use",
                f"{NEWER_LINUX}, or install {DRIVER_SOURCE}",
            )
        return ok(found)
    if bound:
        return wrong(
            f"the NPU belongs to the driver {bound}, not to amdxdna",
            f"release it from {bound} and run `sudo modprobe amdxdna`",
        )
    if host.exists("sys/module/amdxdna"):
        return wrong(
            "amdxdna is loaded, but has not taken the NPU",
            "`sudo dmesg | grep amdxdna` says why; often the firmware is missing or does not fit the driver",
        )
    if host.release and host.matches(*modules):
        return missing("the driver amdxdna is not loaded", "run `sudo modprobe amdxdna`")
    return missing(
        "the driver amdxdna is not installed for this kernel",
        f"{NEWER_LINUX}, with DRM_ACCEL_AMDXDNA, or install {DRIVER_SOURCE}",
    )


def node(host: Host) -> Finding:
    """The device node, and whether this user can open it for reading and writing."""
    known = files(_npu(host), "accel/accel*") or host.matches("dev/accel/accel*")
    names = [path.name for path in known]
    present = [name for name in names if host.exists(f"dev/accel/{name}")]
    if not present:
        remedy = "it appears once the driver has taken the NPU"
        if host.in_container:
            remedy += "; into a container, pass it on (--device /dev/accel/accel0)"
        return missing(f"/dev/accel/{names[0] if names else 'accel*'} is absent", remedy)
    path = f"/dev/accel/{present[0]}"
    file = host.root / path[1:]
    try:
        status = os.stat(file)
    except OSError as error:
        return unknown(f"{path}: {(error.strerror or 'unreadable').lower()}")
    group = _name(host, "etc/group", status.st_gid)
    owner = _name(host, "etc/passwd", status.st_uid)
    found = f"{path} ({owner}:{group}, mode {stat.S_IMODE(status.st_mode):04o})"
    # The kernel's own answer counts access lists and capabilities; nothing is opened.
    effective = os.access in os.supports_effective_ids
    if os.access(file, os.R_OK | os.W_OK, effective_ids=effective):
        return ok(found)
    return wrong(f"this user may not open {found}", _how_to_open(host, status, group))


def _devices(host: Host, *ids: int) -> list[tuple[Path, int]]:
    """PCI folder and device id of AMD's devices with these ids."""
    found = []
    for folder in host.matches(f"{PCI}/*"):
        device = host.number(folder / "device")
        if device in ids and host.number(folder / "vendor") == AMD:
            found.append((folder, device))
    return found


def _npu(host: Host) -> Path:
    """The PCI folder of the NPU that the kernel is for; where there is none, a path at which nothing is."""
    return next((folder for folder, _ in _devices(host, PHOENIX)), host.root / PCI / "none")


def _driver(host: Host) -> str:
    return host.link(_npu(host) / "driver") or ""


def _why_no_npu(host: Host) -> str:
    if host.is_virtual:
        return "a virtual machine sees an NPU only where its host passes it on; run this on the host"
    if host.is_phoenix:
        return "this processor's family can have one: switch the NPU (IPU) on in the firmware set-up (BIOS)"
    return "the kernel is for processors with an XDNA1 NPU: most Ryzen 7040 and 8040 (Phoenix, Hawk Point)"


def _how_to_open(host: Host, status: os.stat_result, group: str) -> str:
    if status.st_gid == 0 or status.st_mode & 0o060 != 0o060:
        return (
            'write `KERNEL=="accel*", DRIVERS=="amdxdna", GROUP="render", MODE="0660"` into '
            "/etc/udev/rules.d/99-amdxdna.rules, run `sudo usermod -aG render $USER` and restart"
        )
    if host.in_container:
        return f"start the container with --group-add {status.st_gid}"
    members = host.search("etc/group", rf"^{re.escape(group)}:[^:]*:\d+:(.*)$")
    user = _name(host, "etc/passwd", host.user)
    if members and user in members[1].split(",") and status.st_gid not in host.groups:
        return f"{user} is in the group {group}, but this session began before: log in again"
    return f"run `sudo usermod -aG {group} $USER` and log in again"


def _name(host: Host, table: str, number: int | None) -> str:
    """The name of a user or group; its number where it has none."""
    entry = host.search(table, rf"^([^:]+):[^:]*:{number}:")
    return entry[1] if entry else str(number)
