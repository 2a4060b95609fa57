from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from places import ROOT
from standins import tools as tool_standins

from kernels.npu.build import store, toolchain, xclbin
from kernels.npu.build.store import XCLBIN, BuildError, Program
from kernels.npu.build.toolchain import ToolLackingError
from kernels.npu.program.plan import Plan

STREAMING, SINGLE = Program(Plan("int8", 128, 2)), Program("int8")


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where builds go; the stand-ins of the tools are found by their variables."""
    for name, value in tool_standins.install(tmp_path / "tools").items():
        monkeypatch.setenv(name, value)
    for name in (
        "AIECC_PATH",
        "STANDIN_FAIL",
        "STANDIN_SIZES",
        "STANDIN_FRAMES",
        "STANDIN_CLANG",
        "STANDIN_SHA",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("TILESCRIBE_KERNELS", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def script(*options: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "build_xclbin"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def leftovers(kept: Path) -> list[str]:
    return [path.name for path in kept.iterdir() if path.name.startswith(".")] if kept.is_dir() else []


ONE = ("--scores", "int8", "--tile-size", "128", "--columns", "2")


def test_the_script_builds_what_the_runtime_finds(kept: Path) -> None:
    done = script(*ONE, "--heads", "6,8")
    found = {heads: store.find(STREAMING, heads) for heads in (6, 8)}
    assert done.stdout.splitlines() == [str(found[6].xclbin.parent)]
    assert found[6].xclbin.read_text().startswith("-DSCORES_INT8=1 -DTILE_SIZE=128")
    assert found[6].instructions.read_bytes() != found[8].instructions.read_bytes()
    about = store.read(found[6].xclbin.parent)
    assert about.measured == {"program_bytes": 9000, "constant_bytes": 512, "stack_bytes": 960 + 64 + 256}
    assert about.tools["mlir_aie"] == "aiecc 1.4.2 (stand-in)"
    assert about.tools["aiecc"] == "aiecc 1.4.2 (stand-in); git SHA: 0123"
    assert leftovers(kept) == []
    assert "[1/1] int8_t128_c2" in done.stderr

    again = script(*ONE, "--heads", "8")
    assert again.stdout == done.stdout
    assert "is there already" in again.stderr

    script(*ONE, "--heads", "12")  # keeps those that were there
    assert set(store.by_heads(STREAMING)) == {6, 8, 12}


def test_the_single_tile_programs_are_built(kept: Path) -> None:
    script("--single-tile")
    for scores, text in (("int32", "-DSCORES_INT8=0"), ("int8", "-DSCORES_INT8=1")):
        found = store.find(Program(scores))  # type: ignore[arg-type]
        assert found.xclbin.read_text().startswith(f"{text} -DSINGLE_TILE")
        assert found.instructions.name == "instructions_0.bin"


def test_a_build_by_other_tools_stands_beside_the_first(kept: Path) -> None:
    program, tools = SINGLE, toolchain.find()
    first = xclbin.build(program, [0], tools, kept, str)
    other = toolchain.Toolchain(**{**vars(tools), "versions": {"mlir_aie": "1.5"}})
    assert xclbin.build(program, [0], other, kept, str) != first
    assert store.read(store.find(SINGLE).xclbin.parent).tools == {"mlir_aie": "1.5"}


def test_a_damaged_build_is_built_again(kept: Path) -> None:
    program, tools = SINGLE, toolchain.find()
    path = xclbin.build(program, [0], tools, kept, str)
    (path / XCLBIN).write_text("damaged")
    assert xclbin.build(program, [0], tools, kept, str) == path
    assert store.find(SINGLE).xclbin.read_text() != "damaged"
    assert leftovers(kept) == []


@pytest.mark.parametrize(
    ("fails", "code", "text"),
    [
        ("clang++", 1, "kernel.cc:1:1: error: made to fail"),
        ("aiecc", 1, "error: made to fail"),
        ("empty", 1, "aiecc ended well but made no instructions_6.bin"),
        ("interrupt", 130, "interrupted; the builds that are done are kept"),
    ],
)
def test_a_build_that_fails_is_explained_and_leaves_nothing(
    kept: Path, fails: str, code: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_FAIL", fails)
    said = script(*ONE, "--heads", "6", code=code).stderr
    assert text in said
    assert "Traceback" not in said
    assert list(kept.iterdir()) == []


@pytest.mark.parametrize(
    ("what", "sizes", "text"),
    [
        ("SIZES", "16385,0", "a core's program has 16,385 bytes, there are 16,384"),
        ("SIZES", "100,1025", "a core's constants have 1,025 bytes, there are 1,024"),
        ("FRAMES", "1216,2560,65", "a core's stack needs 4,097 bytes, there are 4,096"),
    ],
)
def test_a_core_that_outgrows_its_memory_is_refused(
    kept: Path, what: str, sizes: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"STANDIN_{what}", sizes)
    with pytest.raises(BuildError, match=text):
        xclbin.build(STREAMING, [6], toolchain.find(), kept, str)
    assert list(kept.iterdir()) == []


@pytest.mark.parametrize(
    ("lacking", "text"),
    [
        ("mlir_aie/python", "which has no python/aie: python -m pip install mlir_aie==1.4.2 -f https://git"),
        ("mlir_aie/bin/aiecc", "aiecc is not in"),
        ("mlir_aie/include", "aie_api's headers are not in"),
        (
            "llvm-aie/bin",
            "which has no bin/clang++: python -m pip install llvm-aie==21.0.0.2026080301+c9c5ecb7 -f",
        ),
        ("xrt/xclbinutil", "xclbinutil is not installed: it comes with XRT"),
    ],
)
def test_a_lacking_tool_is_one_line_with_how_to_get_it(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str, text: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # the machine may have XRT's tools
    (tmp_path / "tools" / lacking).rename(tmp_path / "elsewhere")
    said = script(*ONE, code=5).stderr
    assert text in said
    assert len(said.splitlines()) == 1
    assert not kept.exists()


def test_without_any_tool_the_first_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLIR_AIE_INSTALL_DIR")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        ToolLackingError, match=r"^mlir-aie is not installed: python -m pip install mlir_aie=="
    ):
        toolchain.find()


@pytest.mark.parametrize(
    "said", ["clang version 22.0.0 (llvm-aie 11112222)", "clang version 21.0.0 (llvm-aie ac9c5ecb7)"]
)
def test_other_versions_build_only_when_they_are_asked_for(
    kept: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("STANDIN_CLANG", said)
    error = script(*ONE, "--heads", "6", code=5).stderr
    assert f"error: Peano is {said}; the kernels are built with another one: python -m pip install" in error
    assert not kept.exists()
    script(*ONE, "--heads", "6", "--any-version")
    assert store.read(store.find(STREAMING, 6).xclbin.parent).tools["peano"] == said


@pytest.mark.parametrize(
    ("found", "right"),
    [
        ("1.4.2", True),
        ("1.4.2+no.rtti", True),
        ("aiecc 1.4.2 (x)", True),
        ("1.4.20", False),
        ("11.4.2", False),
        ("1.4.2.1", False),
        ("aiecc 1.4.20", False),
        ("1.4.3", False),
    ],
)
def test_a_pin_is_the_whole_number(found: str, right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = {"mlir_aie": found, "llvm-aie": toolchain.LLVM_AIE_VERSION}
    monkeypatch.setattr("importlib.metadata.version", wheels.__getitem__)
    if right:
        assert toolchain.find().versions["mlir_aie"] == found
    else:
        with pytest.raises(ToolLackingError, match=re.escape(f"mlir-aie is {found}; the kernels")):
            toolchain.find()


def test_the_release_and_the_image_have_the_pinned_tools() -> None:
    for name in (".github/workflows/kernels.yml", "Dockerfile"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert f" {toolchain.MLIR_AIE_VERSION}\n" in text or f"={toolchain.MLIR_AIE_VERSION}\n" in text, name
        assert toolchain.LLVM_AIE_VERSION in text, name


def test_a_build_by_another_commit_of_the_same_version_stands_beside_the_first(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = script("--single-tile", "--scores", "int8").stdout
    monkeypatch.setenv("STANDIN_SHA", "4567")
    assert script("--single-tile", "--scores", "int8").stdout != first


def test_a_dry_run_needs_numpy_alone(tmp_path: Path) -> None:
    for package in (Path(np.__file__).parent, Path(np.__file__).parents[1] / "numpy.libs"):
        if package.exists():
            (tmp_path / package.name).symlink_to(package)
    command = [sys.executable, "-S", str(ROOT / "scripts" / "build_xclbin"), *ONE, "--heads", "6"]
    environment = {name: value for name, value in os.environ.items() if name != "TILESCRIBE_KERNELS"}
    environment["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run(
        [*command, "--dry-run"], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.startswith("# int8_t128_c2\n")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert "error: this Python has no platformdirs: name a folder by TILESCRIBE_KERNELS" in done.stderr


def test_a_dry_run_prints_commands_and_runs_none(kept: Path) -> None:
    lines = script(*ONE, "--heads", "6,8", "--dry-run").stdout.splitlines()
    assert lines[0] == "# int8_t128_c2"
    assert [line.split()[0].rsplit("/", 1)[-1] for line in lines[1:]][::2] == ["clang++", "aiecc", "aiecc"]
    assert [("--get-xclbin" in line) for line in lines[1:]] == [False, False, True, False, False]
    assert not kept.exists()


@pytest.mark.parametrize("prepared", [True, False])
def test_as_a_command_it_finds_the_projects_environment(tmp_path: Path, prepared: bool) -> None:
    """In a Python without packages (-S), as the first one on PATH may be."""
    command = tmp_path / "checkout" / "scripts" / "build_xclbin"
    command.parent.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "build_xclbin", command)
    (tmp_path / "checkout" / "kernels").symlink_to(ROOT / "kernels")
    if prepared:
        python = tmp_path / "checkout" / ".venv" / "bin" / "python"
        tool_standins.executable(
            python, f"import os, sys; os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])"
        )
    bare = [sys.executable, "-S", str(command), "--dry-run"]
    done = subprocess.run(bare, capture_output=True, text=True, check=False, cwd="/")
    if prepared:
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("# int32_t64_c4\n")
    else:
        said = f"error: {sys.executable} has no numpy; `make setup` makes an environment that has\n"
        assert (done.returncode, done.stdout, done.stderr) == (5, "", said)


def test_the_list_says_what_is_there(kept: Path) -> None:
    script(*ONE, "--heads", "6")
    six, eight = script(*ONE, "--heads", "6,8", "--list").stdout.splitlines()
    assert six == f"int8_t128_c2 for 6 heads: {store.find(STREAMING, 6).xclbin.parent}"
    assert "not for 8: scripts/build_xclbin" in eight


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--heads", "0"], "'0': they are numbers from 1 to 64"),
        (["--heads", "six"], "'six': they are numbers from 1 to 64"),
        (["--tile-size", "32"], "(choose from 64, 128, 256)"),
    ],
)
def test_wrong_usage(options: list[str], text: str) -> None:
    assert text in script(*options, code=2).stderr


def test_a_folder_that_cannot_be_written_is_one_line(kept: Path) -> None:
    kept.write_text("a file")
    said = script(*ONE, "--heads", "6", code=1).stderr
    assert said.splitlines()[-1] == f"error: {kept} cannot be written: File exists"


def test_designs_that_differ_beyond_the_run_are_not_one_program(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xclbin, "without_sequence", lambda text: text)
    with pytest.raises(BuildError, match="designs for 6 and 8 heads differ beyond the run"):
        xclbin.build(STREAMING, [6, 8], toolchain.find(), kept, str)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("a {\n  b\n  aie.runtime_sequence @s(%a: x) {\n    c { d }\n  }\n  e\n}", "a {\n  b\n\n  e\n}"),
        ("a { b }", "a { b }"),
    ],
)
def test_the_runs_part_of_a_design_is_left_out(text: str, rest: str) -> None:
    assert xclbin.without_sequence(text) == rest


def archive(tmp_path: Path, kept: Path) -> Path:
    """What a release carries: the folder of builds."""
    script("--single-tile")
    packed = tmp_path / "kernels.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(kept, arcname=".")
    return packed


def test_a_releases_archive_is_installed(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = archive(tmp_path, kept)
    monkeypatch.setenv("TILESCRIBE_KERNELS", str(tmp_path / "other"))
    script("--install", str(packed))
    assert store.find(Program("int32")).xclbin.is_relative_to(tmp_path / "other")
    script("--install", str(packed))  # over itself
    assert leftovers(tmp_path / "other") == []


def test_an_archive_of_other_sources_or_damaged_builds_is_refused(tmp_path: Path, kept: Path) -> None:
    packed = archive(tmp_path, kept)
    target = tmp_path / "other"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "source_hash", lambda: "0" * 64)
        with pytest.raises(BuildError, match="was built from other sources"):
            store.install(packed, target, str)
    (store.find(SINGLE).xclbin).write_text("x")
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(kept, arcname=".")
    with pytest.raises(BuildError, match="is damaged"):
        store.install(packed, target, str)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("../outside/x", "holds ../outside/x, which is no file of a build"),
        ("plain", "holds plain, which is no file of a build"),
        ("a/link", "holds a/link, which is no file of a build"),
        ("../x", "cannot be unpacked"),
        (None, "holds no builds"),
    ],
)
def test_an_archive_of_anything_else_is_refused(tmp_path: Path, name: str | None, text: str) -> None:
    packed = tmp_path / "a.tar"
    with tarfile.open(packed, "w") as tar:
        if name:
            member = tarfile.TarInfo(name)
            if name.endswith("link"):
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    with pytest.raises(BuildError, match=text):
        store.install(packed, tmp_path / "other", str)
    assert os.listdir(tmp_path / "other") == []


def test_what_is_no_archive_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("no archive")
    said = script("--install", str(tmp_path / "a.tar"), code=1).stderr
    assert "a.tar cannot be unpacked" in said
    assert len(said.splitlines()) == 1
