"""Each check of the diagnosis, on machines laid out as folders: what it finds, and the remedy."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace

import pytest
from standins.linux_tree import (
    CPUINFO,
    NOBODY,
    NPU,
    PYXRT,
    REAL_PYXRT,
    RENDER,
    TAG,
    XRT,
    Tree,
    built,
    ordinary_user,
)

from kernels.npu.diagnosis import NEEDED, Finding, Host, diagnose, npu_obstacle


def check(host: Host, name: str) -> Finding:
    return diagnose(host, built)[name]


def assert_found(findings: Mapping[str, Finding], expected: str) -> None:
    """A check's finding, as the doctor shows it: `state  name  pattern of what is there -> pattern of the remedy`."""
    state, name, words = expected.split("  ")
    found, _, remedy = words.partition(" -> ")
    finding = findings[name]
    assert (finding.state, finding.obstructs) == (state, state in ("wrong", "missing"))
    assert re.search(found, finding.found)
    assert (finding.remedy is not None) == bool(remedy)
    assert re.search(remedy, finding.remedy or "")


UNBOUND = (f"-{NPU}/driver", f"-{NPU}/fw_version", f"-{NPU}/accel")
UNLOADED = (*UNBOUND, "-sys/module/amdxdna")
RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"

# Changes to a complete machine (`Tree.change`), and what is then found (`assert_found`).
# fmt: off
FAULTS = [
    ((*UNLOADED, "proc/sys/kernel/osrelease=6.8.0-40-generic"),
     "wrong  system  6.8.0-40-generic, which is too old -> Linux 6.18"),
    ((*UNLOADED, "proc/sys/kernel/osrelease=6.11.0"),
     "warning  system  no amdxdna driver of its own -> amd/xdna-driver"),
    ((*UNLOADED, "proc/sys/kernel/osrelease=6.11.0"),
     "missing  driver  not installed for this kernel -> DRM_ACCEL_AMDXDNA"),
    (UNLOADED, "missing  driver  not installed for this kernel -> DRM_ACCEL_AMDXDNA"),
    ((*UNLOADED, "lib/modules/6.18.2-generic/kernel/drivers/accel/amdxdna/amdxdna.ko.zst="),
     "missing  driver  not loaded -> sudo modprobe amdxdna"),
    (("proc/sys/kernel/osrelease=6.17.9-generic",),
     "warning  driver  of Linux 6.17 itself, which XRT's current plugin cannot use -> Linux 6.18 or later"),
    (("proc/sys/kernel/osrelease=6.17.9-generic", "lib/modules/6.17.9-generic/updates/dkms/amdxdna.ko="),
     r"ok  driver  ^amdxdna 0.1 \(RyzenAI-npu1\)$"),
    ((f"{NPU}/fw_version=1.5.2.380",), "warning  firmware  1.5.2.380, older than 1.5.5.391.*ABORT -> linux-firmware"),
    (UNBOUND, "wrong  driver  loaded, but has not taken the NPU -> dmesg"),
    (UNBOUND, "ok  firmware  ^/lib/firmware/amdnpu/1502_00: npu.sbin.zst; not loaded$"),
    ((f"-{NPU}/driver", f"{NPU}/driver->../../bus/pci/drivers/vfio-pci"),
     "wrong  driver  belongs to the driver vfio-pci -> release it"),
    ((*UNBOUND, "-lib/firmware/amdnpu"), "missing  firmware  amdnpu/1502_00/npu.sbin -> linux-firmware"),
    (("-dev/accel",), "missing  device node  /dev/accel/accel0 is absent -> it appears once"),
    (("-dev/accel", ".dockerenv="), "missing  device node  accel0 is absent -> --device /dev/accel/accel0"),
    ((f"-{NPU}/iommu_group", "proc/cmdline=quiet amd_iommu=off"),
     "wrong  IOMMU  amd_iommu=off -> take amd_iommu=off off"),
    ((f"-{NPU}/iommu_group", "proc/cmdline=quiet"), "missing  IOMMU  the IOMMU is off -> BIOS"),
    (("sys/kernel/iommu_groups/21/type=identity",), "warning  IOMMU  identity -> passthrough=0"),
    ((f"{NPU}/revision=0x07",), "warning  NPU  revision 07.*does not know -> dmesg"),
    ((f"-{XRT}",), "missing  XRT  XRT is not installed -> apt install -t trixie-backports python3-xrt"),
    ((f"-{XRT}/lib/libxrt_driver_xdna.so.2.21.0",), "missing  XRT plugin  no amdxdna -> libxrt-npu2"),
    ((f'{XRT}/version.json={{"BUILD_VERSION": "2.18.0"}}',), "warning  XRT plugin  2.18 -> one"),
    ((f"-{XRT}/python",), "missing  pyxrt  not installed -> come with XRT"),
    ((f"-{XRT}/python", "usr/lib/python3/dist-packages/xrt/backends/raycing/__init__.py="),
     "missing  pyxrt  dist-packages/xrt is an X-ray tracer -> Debian up to 13"),
    ((f"-{PYXRT}", f"{XRT}/python/pyxrt.cpython-310-x86_64-linux-gnu.so="),
     "wrong  pyxrt  for Python 3.10 -> build XRT"),
    ((f"-{PYXRT}", f"{XRT}/python/pyxrt.cpython-399-x86_64-linux-gnu.so="),
     f"wrong  pyxrt  for Python 3.99, and this is {RUNNING} -> with Python 3.99 and --system-site"),
    ((f"-{PYXRT}", f"{XRT}/python/pyxrt.{TAG}.so="),
     "wrong  pyxrt  cannot be imported .*ImportError -> one source"),
    ((f"{PYXRT}=device = 1",), "wrong  pyxrt  no xclbin, hw_context, kernel, bo, run, ert -> PYTHONPATH"),
    ((f"{PYXRT}={REAL_PYXRT.replace('return 1', 'return 0')}",), "wrong  pyxrt  no device -> xrt-smi"),
    ((f"{PYXRT}=import os; print('XRT'); os._exit(134)",), "wrong  pyxrt  exit status 134 -> version"),
    ((f"{PYXRT}=raise ImportError('libxrt_coreutil.so.2: cannot open shared object file: No such file')",),
     "wrong  pyxrt  libxrt_coreutil.so.2: cannot open -> source /opt/xilinx/xrt/setup.sh"),
]
# fmt: on


@pytest.mark.parametrize(("changes", "expected"), FAULTS, ids=[expected for _, expected in FAULTS])
def test_a_single_fault_is_found_with_its_remedy(
    phoenix: Tree, changes: tuple[str, ...], expected: str
) -> None:
    phoenix.change(*changes)
    findings = diagnose(phoenix.host(), built)
    assert_found(findings, expected)
    assert (npu_obstacle(findings) is None) == all(
        f.state in ("ok", "note", "warning") for f in findings.values()
    )


@pytest.mark.parametrize(
    ("device", "revision", "model"),
    [
        ("0x17f0", "0x10", r"XDNA2 \(Strix\), 1022:17f0 revision 10"),
        ("0x17f0", "0x11", r"XDNA2 \(Strix Halo\)"),
        ("0x17f0", "0x20", r"XDNA2 \(Krackan\)"),
        ("0x17f0", "0x42", r"XDNA2 \(unknown model\)"),
        ("0x17f1", "0x10", "later than XDNA2"),
    ],
)
def test_later_npus_are_recognised_and_refused(phoenix: Tree, device: str, revision: str, model: str) -> None:
    phoenix.write(f"{NPU}/device", device)
    phoenix.write(f"{NPU}/revision", revision)
    findings = diagnose(phoenix.host(), built)
    obstacle = str(npu_obstacle(findings))
    assert re.match(
        rf"the NPU here is {model}.*the kernel is for XDNA1 \(Phoenix, Hawk Point\): none", obstacle
    )
    assert [name for name, f in findings.items() if f.obstructs] == ["NPU"]


LIMITED = "^limit 8192 KiB of locked memory, where the NPU needs 65536"
CAPABLE = "proc/self/status=CapInh:\t000001ffffffffff\nCapEff:\t"


@pytest.mark.parametrize(
    ("soft", "hard", "changes", "expected"),
    [
        (8, 8, (), f"wrong  locked memory  {LIMITED} -> ^write `[*] - mem"),
        (8, None, (), f"wrong  locked memory  {LIMITED} -> run `ulimit -l unlimited` in this shell"),
        (8, 1024, (), f"wrong  locked memory  {LIMITED} -> run `ulimit -l 1048576` in this shell"),
        (64, 64, (), "warning  locked memory  ^limit 65536 KiB, hardly more -> limits.d/99-amdxdna.conf"),
        (256, None, (), "ok  locked memory  ^limit 262144 KiB"),
        (8, 8, (".dockerenv=",), "wrong  locked memory  8192 KiB -> --cap-add IPC_LOCK --ulimit memlock=-1"),
        (8, 8, (f"{CAPABLE}0000000000004000\n",), "ok  locked memory  exempt"),
        (8, 8, (f"{CAPABLE}000001ffffffbfff\n",), f"wrong  locked memory  {LIMITED} -> write"),
    ],
)
def test_locked_memory_has_to_hold_the_heap_of_the_device(
    phoenix: Tree, soft: int, hard: int | None, changes: tuple[str, ...], expected: str
) -> None:
    phoenix.change(*changes)
    host = replace(phoenix.host(), memlock=(soft << 20, hard and hard << 20))
    assert_found(diagnose(host, built), expected)


@pytest.mark.parametrize(
    ("mode", "member", "remedy"),
    [
        (
            0o060,
            ".dockerenv",
            f"start the container with --group-add {RENDER if os.geteuid() == 0 else os.getegid()}",
        ),
        (0o060, "", "run `sudo usermod -aG render $USER` and log in again"),
        (0o060, "ann,no", "no is in the group render, but this session began before: log in again"),
        (
            0o000,
            "",
            'write `KERNEL=="accel*", DRIVERS=="amdxdna", GROUP="render", MODE="0660"` into /etc/udev/',
        ),
    ],
)
def test_a_node_that_this_user_may_not_open(phoenix: Tree, mode: int, member: str, remedy: str) -> None:
    node = phoenix.root / "dev/accel/accel0"
    if os.geteuid() == 0:
        os.chown(node, 0, RENDER)
    group = node.stat().st_gid
    node.chmod(mode)
    if member.startswith("."):
        phoenix.write(member)
    phoenix.write("etc/group", f"root:x:0:\nrender:x:{group}:{member}\n")
    phoenix.remove(f"{XRT}/python")
    host = replace(phoenix.host(), user=NOBODY, groups=frozenset())
    with ordinary_user():
        finding = check(host, "device node")
    assert finding.state == "wrong"
    shown = rf"this user may not open /dev/accel/accel0 \(.*:render, mode {mode:04o}\)"
    assert re.fullmatch(shown, finding.found)
    assert (finding.remedy or "").startswith(remedy)


def test_bindings_of_the_system_are_out_of_an_environments_sight(phoenix: Tree) -> None:
    phoenix.remove(f"{XRT}/python")
    phoenix.write(f"usr/lib/python3/dist-packages/pyxrt.{TAG}.so")
    host = replace(phoenix.host(), import_path=("/venv/lib/python3/site-packages",))
    finding = check(host, "pyxrt")
    module = f"/usr/lib/python3/dist-packages/pyxrt.{TAG}.so"
    assert str(finding) == (
        f"pyxrt is in {module}, which Python does not search: "
        "make the environment with --system-site-packages (`make clean setup` does), or link it into this one: "
        f"ln -s {module} /venv/lib/python3/site-packages/"
    )


def test_bindings_in_xrts_own_prefix_need_its_setup(phoenix: Tree) -> None:
    assert str(check(replace(phoenix.host(), import_path=()), "pyxrt")) == (
        "pyxrt is in /opt/xilinx/xrt/python/pyxrt.py, which Python does not search: "
        "run `source /opt/xilinx/xrt/setup.sh` in this shell"
    )


def test_xrt_of_the_distribution_and_of_the_environment(phoenix: Tree) -> None:
    libraries = ("coreutil.so.2", "coreutil.so.2.21.75", "driver_xdna.so.2")
    phoenix.change(f"-{XRT}/lib", *(f"usr/lib/x86_64-linux-gnu/libxrt_{name}=" for name in libraries))
    assert check(phoenix.host(), "XRT").found == "version 2.21.75 in /usr/lib/x86_64-linux-gnu"
    assert check(phoenix.host(), "XRT plugin").state == "ok"
    phoenix.write("home/ann/xrt/lib/libxrt_coreutil.so.2.25.0")
    chosen = replace(phoenix.host(), environment={"XILINX_XRT": str(phoenix.root / "home/ann/xrt")})
    assert check(chosen, "XRT").found == "version 2.25.0 in /home/ann/xrt"


VIRTUAL = ("proc/cpuinfo=flags\t: fpu hypervisor\n", "sys/class/dmi/id/product_name=KVM")


@pytest.mark.parametrize(
    ("files", "found", "remedy"),
    [
        ((".dockerenv=",), "a container", "most Ryzen 7040"),
        (("proc/1/cgroup=0::/kubepods/x",), "a container", "most Ryzen 7040"),
        (
            ("proc/sys/kernel/osrelease=6.6.87.2-microsoft-standard-WSL2",),
            "a virtual machine (WSL)",
            "the host",
        ),
        (VIRTUAL, "a virtual machine (KVM)", "on the host"),
        (
            (f"proc/cpuinfo={CPUINFO}",),
            "no sign of a virtual machine or container",
            r"firmware set-up \(BIOS\)",
        ),
    ],
)
def test_why_there_may_be_no_npu(empty: Tree, files: tuple[str, ...], found: str, remedy: str) -> None:
    empty.change(*files)
    assert check(empty.host(), "host").found == found
    assert re.search(remedy, check(empty.host(), "NPU").remedy or "")


@pytest.mark.parametrize(
    ("platform", "said"),
    [
        ("darwin", "the NPU is used through Linux; this is darwin: use Linux 6.18 or later"),
        (
            "win32",
            "the NPU is used through Linux; on Windows this project's runtime was never run. Others run mlir-aie 1.4.2 "
            "there, with XRT 2.21.75 and driver 32.0.20101.3760 on a Phoenix; AMD's own Whisper demo fails with "
            "0xc01e0009 where xrt-smi validate passes: use Linux 6.18 or later",
        ),
    ],
)
def test_other_systems_are_told_about_linux(empty: Tree, platform: str, said: str) -> None:
    host = replace(empty.host(), platform=platform, memlock=None, user=None, groups=frozenset())
    assert str(npu_obstacle(diagnose(host, built))) == said


def test_what_builds_a_kernel(phoenix: Tree) -> None:
    packages = phoenix.root / "packages"
    modules = ("packages/aie/dialects/aie.py=", "packages/aie/__init__.py=")
    phoenix.change(*modules, "packages/llvm-aie/bin/clang++=", "bin/clang++=")
    (phoenix.root / "bin/clang++").chmod(0o755)
    host = replace(
        phoenix.host(), import_path=(str(packages),), environment={"PATH": str(phoenix.root / "bin")}
    )
    assert check(host, "mlir-aie").found == str(packages / "aie")
    assert check(host, "Peano").found == str(packages / "llvm-aie")
    assert check(host, "host compiler").found == str(phoenix.root / "bin/clang++")
    for folder, state in ((packages / "llvm-aie", "ok"), (packages, "warning")):
        chosen = replace(host, environment={"PEANO_INSTALL_DIR": str(folder)})
        assert check(chosen, "Peano").state == state


def test_where_there_is_no_npu_nobody_is_asked_for_pyxrt(
    empty: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(Host, "here", lambda: empty.host())
    monkeypatch.setitem(NEEDED, "pyxrt", lambda host: asked.append(host) or Finding("missing", "pyxrt"))
    assert str(npu_obstacle()) == str(npu_obstacle(diagnose(empty.host(), built)))
    assert len(asked) == 1  # by diagnose
