"""`tilescribe doctor` and the whole diagnosis behind it, on machines laid out as folders."""

from __future__ import annotations

import json

import pytest
import typer
from standins.linux_tree import ADDRESS, XRT, Tree, built, ordinary_user
from typer.testing import CliRunner

from app.commands.doctor import doctor
from kernels.npu.diagnosis import STATES, Finding, diagnose, npu_obstacle


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
