"""`tilescribe doctor` and the diagnosis behind it, on machines laid out as folders."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from app.commands.doctor import doctor
from kernels.npu.diagnosis import STATES, Finding, Host, diagnose, npu_obstacle

ADDRESS = "0000:c4:00.1"
NPU = f"sys/bus/pci/devices/{ADDRESS}"
XRT = "opt/xilinx/xrt"
PYXRT = f"{XRT}/python/pyxrt.py"
NOBODY = 65534
RENDER = 992
TAG = f"cpython-{sys.version_info[0]}{sys.version_info[1]}-x86_64-linux-gnu"
REAL_PYXRT = """
class device: ...
xclbin = hw_context = kernel = bo = run = ert_cmd_state = device
def enumerate_devices(): return 1
"""
CPUINFO = "model name\t: AMD Ryzen 7 7840U\ncpu family\t: 25\nmodel\t\t: 116\nflags\t\t: fpu svm\n\nprocessor\t: 1\n"


@dataclass(frozen=True)
class Tree:
    """A folder that stands for a machine."""

    root: Path

    def write(self, path: str, text: str = "") -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def remove(self, path: str) -> None:
        where = self.root / path
        shutil.rmtree(where) if where.is_dir() and not where.is_symlink() else where.unlink()

    def change(self, *changes: str) -> None:
        """`-path` removes, `path=text` writes, `path->target` links."""
        for change in changes:
            if change.startswith("-"):
                self.remove(change[1:])
                continue
            path, sign, rest = re.split(r"(->|=)", change, maxsplit=1)
            if sign == "=":
                self.write(path, rest)
            else:
                (self.root / path).parent.mkdir(parents=True, exist_ok=True)
                (self.root / path).symlink_to(rest)

    def host(self) -> Host:
        python = self.root / XRT / "python"
        return Host(
            root=self.root,
            platform="linux",
            environment={"PATH": ""},
            python=sys.version_info[:2],
            interpreter=sys.executable,
            import_path=(str(python),),
            memlock=(None, None),
            user=1000,
            groups=frozenset({1000, RENDER}),
        )


def built() -> Finding:
    return Finding("ok", "built from this source")


@pytest.fixture
def empty() -> Iterator[Tree]:
    """A machine without a file, in a folder that every user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Tree(Path(folder))


@pytest.fixture
def phoenix(empty: Tree) -> Tree:
    """A machine with an NPU and all that it needs."""
    empty.change(
        'etc/os-release=NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 25.04"\n',
        f"etc/passwd=root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nno:x:{NOBODY}:1::/:\n",
        f"etc/group=root:x:0:\nrender:x:{RENDER}:\n",
        "proc/sys/kernel/osrelease=6.18.2-generic\n",
        f"proc/cpuinfo={CPUINFO}",
        "proc/cmdline=quiet splash\n",
        "proc/self/status=Name:\tpython\nCapEff:\t0000000000000000\n",
        "sys/bus/pci/devices/0000:00:00.0/vendor=0x1022\n",
        "sys/bus/pci/devices/0000:00:00.0/device=0x14e8\n",
        f"{NPU}/vendor=0x1022\n",
        f"{NPU}/device=0x1502\n",
        f"{NPU}/revision=0x00\n",
        f"{NPU}/fw_version=1.5.5.391\n",
        f"{NPU}/vbnv=RyzenAI-npu1\n",
        f"{NPU}/accel/accel0/dev=261:0\n",
        f"{NPU}/driver->../../../../bus/pci/drivers/amdxdna",
        f"{NPU}/iommu_group->../../../../kernel/iommu_groups/21",
        "sys/kernel/iommu_groups/21/type=DMA-FQ\n",
        "sys/module/amdxdna/version=0.1\n",
        "dev/accel/accel0=",
        "lib/firmware/amdnpu/1502_00/npu.sbin.zst=",
        f'{XRT}/version.json={{"BUILD_VERSION": "2.21.0"}}',
        *(
            f"{XRT}/lib/libxrt_{name}="
            for name in ("coreutil.so.2", "coreutil.so.2.21.0", "driver_xdna.so.2.21.0")
        ),
        f"{PYXRT}={REAL_PYXRT}",
    )
    return empty


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


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may open everything; so as root, be somebody else for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_on_a_machine_without_a_file_the_npu_is_what_is_lacking(empty: Tree) -> None:
    host = empty.host()
    findings = diagnose(host, built)
    assert [name for name, f in findings.items() if f.obstructs] == ["NPU"]
    assert str(npu_obstacle(findings)) == (
        "there is no NPU here (/sys/bus/pci/devices is absent): the kernel is for processors with an XDNA1 NPU: "
        "most Ryzen 7040 and 8040 (Phoenix, Hawk Point)"
    )
    assert all(f.remedy is None for name, f in findings.items() if name != "NPU")


def test_a_complete_machine_has_nothing_in_the_way(phoenix: Tree) -> None:
    findings = diagnose(phoenix.host(), built)
    assert npu_obstacle(findings) is None
    found = {name: f.found for name, f in findings.items()}
    tools = dict.fromkeys(("host compiler", "mlir-aie", "Peano"), "note")
    assert {name: f.state for name, f in findings.items() if f.state != "ok"} == tools
    assert found.pop("device node").startswith("/dev/accel/accel0 (")
    assert (
        found.items()
        >= {
            "system": "Ubuntu 25.04, kernel 6.18.2-generic",
            "processor": "AMD Ryzen 7 7840U (Phoenix or Hawk Point)",
            "NPU": f"Phoenix or Hawk Point (XDNA1), 1022:1502 revision 00 at {ADDRESS}",
            "IOMMU": "group 21 (DMA-FQ)",
            "firmware": "version 1.5.5.391",
            "driver": "amdxdna 0.1 (RyzenAI-npu1)",
            "locked memory": "no limit",
            "XRT": "version 2.21.0 in /opt/xilinx/xrt",
            "XRT plugin": "version 2.21.0",
            "pyxrt": "/opt/xilinx/xrt/python/pyxrt.py; XRT finds 1 device",
        }.items()
    )


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


def test_nothing_that_cannot_be_read_ends_the_report(phoenix: Tree) -> None:
    for path in phoenix.root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0)
    phoenix.remove(f"{XRT}/python")
    with ordinary_user():
        findings = diagnose(phoenix.host(), built)
    assert npu_obstacle(findings) is not None

    phoenix.write("run/.containerenv")
    for folder in ("sys/bus/pci/devices", "sys/module", "proc", "run", "dev", "opt"):
        (phoenix.root / folder).chmod(0)
    with ordinary_user():
        findings = diagnose(phoenix.host(), built)
    states = {name: f.state for name, f in findings.items()}
    assert (states["system"], states["processor"]) == ("note", "unknown")
    obstacle = str(npu_obstacle(findings))
    assert obstacle == (
        "there is no NPU here that this user can see (/sys/bus/pci/devices: permission denied): make /sys readable"
    )


@pytest.mark.parametrize("rubbish", ["", "\n", "0x", "\x00\x00", "\ufffd" * 400_000, "{", "a:b:c:d"])
def test_rubbish_in_files_ends_no_report(phoenix: Tree, rubbish: str) -> None:
    for path in phoenix.root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.suffix != ".py":
            path.write_text(rubbish)
    findings = diagnose(phoenix.host(), built)
    assert {f.state for f in findings.values()} <= set(STATES)
    assert npu_obstacle(findings) is not None


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


@pytest.mark.parametrize(
    ("answer", "obstacle"),
    [
        (Finding("missing", "there is no xclbin", "build it"), "there is no xclbin: build it"),
        (Finding("wrong", "the xclbin is another source's", "build it"), "the xclbin is another source's: b"),
        (Finding("warning", "the xclbin is unsigned"), None),
    ],
)
def test_the_built_kernel_counts(phoenix: Tree, answer: Finding, obstacle: str | None) -> None:
    found = npu_obstacle(diagnose(phoenix.host(), lambda: answer))
    assert found is None if obstacle is None else str(found).startswith(obstacle)


def test_a_kernel_that_is_not_built_is_what_is_lacking_and_how_to_build_it_is_said(
    phoenix: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = phoenix.root / "kernels"
    monkeypatch.setenv("TILESCRIBE_KERNELS", str(kept))
    assert str(npu_obstacle(diagnose(phoenix.host()))).startswith(
        f"there is no build of int32_t64_c4 in {kept}: s"
    )


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


def run(*arguments: str) -> tuple[int, str, str]:
    application = typer.Typer()
    application.command()(doctor)
    result = CliRunner().invoke(application, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_the_command_reports_on_this_machine() -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    findings = diagnose()
    lines = out.splitlines()
    checks = [line for line in lines[:-1] if not line.lstrip().startswith("-> ")]
    assert [line.split()[0] for line in checks] == [f.state for f in findings.values()]
    for line, (name, finding) in zip(checks, findings.items(), strict=True):
        assert name in line
        assert line.endswith(finding.found)
    assert [line.strip() for line in lines[:-1] if line.lstrip().startswith("-> ")] == [
        f"-> {f.remedy}" for f in findings.values() if f.remedy
    ]
    usable = npu_obstacle(findings) is None
    assert lines[-1].endswith(
        "and takes it if both succeed." if usable else "--device auto takes the emulator on the CPU."
    )


def test_the_command_as_json_and_where_the_npu_is_required() -> None:
    code, out, err = run("--json", "--require-npu")
    report = json.loads(out)
    obstacle = npu_obstacle()
    assert report["schema"] == 1
    assert report["obstacle"] == (None if obstacle is None else str(obstacle))
    assert report["npu_usable"] == (obstacle is None)
    assert report["device_auto"] == ("npu" if obstacle is None else "emulator")
    named = {f["name"] for f in report["findings"]}
    assert named >= {"system", "NPU", "driver", "device node", "pyxrt", "xclbin"}
    if obstacle is None:
        assert (code, err) == (0, "")
    else:
        assert (code, err) == (5, f"error: the NPU cannot be used: {obstacle}\n")
