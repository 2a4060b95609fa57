from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernels.npu.build import store
from kernels.npu.build.store import MANIFEST, XCLBIN, BuildError, Program
from kernels.npu.diagnosis.system import built_kernel
from kernels.npu.program.plan import Plan

PLAN = Plan("int32", 64, 4)
STREAMING, SINGLE = Program(PLAN), Program("int8")


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TILESCRIBE_KERNELS", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def put(kept: Path, program: Program, heads: list[int], tools: str = "0") -> Path:
    """A build of made-up files with an honest manifest."""
    path = kept / f"{program.name}-{store.source_hash()[:16]}-{tools}"
    path.mkdir(parents=True)
    (path / XCLBIN).write_bytes(b"xclbin")
    for count in heads:
        (path / store.instructions_name(count)).write_bytes(b"instructions" + bytes([count]))
    store.write(path, program, heads, {"mlir_aie": "1.4.2"})
    return path


def test_a_build_is_found_by_its_program_and_heads(kept: Path) -> None:
    path = put(kept, STREAMING, [6, 8])
    found = store.find(STREAMING, 8)
    assert found.xclbin == path / XCLBIN
    assert found.instructions.read_bytes() == b"instructions\x08"
    ((_, about),) = store.usable(STREAMING)
    assert (about.program, about.tools) == ("int32_t64_c4", {"mlir_aie": "1.4.2"})
    path = put(kept, SINGLE, [0])
    assert store.find(SINGLE).instructions == path / "instructions_0.bin"


@pytest.mark.parametrize(
    ("program", "options"),
    [
        (Program(Plan("int8", 64, 4)), "int8 --tile-size 64 --columns 4"),
        (Program(Plan("int32", 128, 4)), "int32 --tile-size 128 --columns 4"),
        (Program(Plan("int32", 64, 2)), "int32 --tile-size 64 --columns 2"),
        (SINGLE, "int8 --single-tile"),
    ],
)
def test_another_programs_build_is_none(kept: Path, program: Program, options: str) -> None:
    put(kept, STREAMING, [8])
    with pytest.raises(BuildError) as refused:
        store.find(program, 8)
    assert str(refused.value) == (
        f"there is no build of {program.name} in {kept}: scripts/build_xclbin --scores {options} builds it, "
        "--install takes a release's archive"
    )


def test_heads_without_instructions_are_named(kept: Path) -> None:
    put(kept, STREAMING, [6, 8])
    with pytest.raises(BuildError, match=r"for 6, 8 heads, not for 12: scripts/build_xclbin .* --heads 12"):
        store.find(STREAMING, 12)


def test_of_several_builds_the_newest_that_may_be_used_is_taken(kept: Path) -> None:
    old, new = put(kept, STREAMING, [6, 8], "old"), put(kept, STREAMING, [8], "new")
    os.utime(old / MANIFEST, (1, 1))
    found = store.by_heads(STREAMING)
    assert {heads: build.xclbin.parent for heads, build in found.items()} == {8: new, 6: old}
    assert store.find(STREAMING, 8).xclbin.parent == new
    (new / XCLBIN).write_bytes(b"damaged")
    assert store.find(STREAMING, 8).xclbin.parent == old
    (old / MANIFEST).unlink()
    with pytest.raises(BuildError, match=r"program\.xclbin is damaged"):
        store.find(STREAMING, 8)


def test_a_build_of_other_sources_is_refused(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(kept, STREAMING, [8])
    monkeypatch.setattr(store, "source_hash", lambda: "f" * 64)
    with pytest.raises(
        BuildError, match=r"int32_t64_c4 in .* was built from other sources than these: scripts"
    ):
        store.find(STREAMING, 8)
    path.rename(path.with_name(f"int32_t64_c4-{'f' * 16}-0"))  # a name does not make it fit
    with pytest.raises(BuildError, match="was built from other sources than these"):
        store.find(STREAMING, 8)


def test_every_source_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {path.name for path in store.source_files()}
    assert {"kernel.cc", "attention.hpp", "design.py", "plan.py", "contract.py", "transfers.py"} <= names
    package = tmp_path / "kernels"
    shutil.copytree(Path(store.__file__).parents[2], package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(store, "__file__", str(package / "npu" / "build" / "store.py"))
    before = store.source_hash()
    for path in store.source_files():
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert store.source_hash() != before, path
        path.write_bytes(content)
    assert store.source_hash() == before


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        fields = json.loads((path / MANIFEST).read_text())
        change(fields)
        (path / MANIFEST).write_text(json.dumps(fields))

    return apply


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: (path / MANIFEST).unlink(), "manifest.json cannot be read: remove"),
        (lambda path: (path / MANIFEST).write_bytes(b"\xff"), "manifest.json is no manifest"),
        (lambda path: (path / MANIFEST).write_text("{"), "manifest.json is no manifest"),
        (lambda path: (path / MANIFEST).write_text("[]"), "manifest.json is no manifest"),
        (lambda path: (path / MANIFEST).write_text("{}"), "manifest.json is no manifest"),
        (edited(lambda m: m.update(schema_version=2)), "has schema version 2, this version reads 1"),
        (edited(lambda m: m.pop("tools")), "manifest.json is no manifest"),
        (edited(lambda m: m.update(instructions={"x": "y"})), "manifest.json is no manifest"),
        (edited(lambda m: m.update(files=3)), "manifest.json is no manifest"),
        (edited(lambda m: m["files"].update({"../x": "0"})), "names files outside its folder"),
        (edited(lambda m: m.update(source_sha256="0")), "was built from other sources than these"),
        (edited(lambda m: m["parameters"].update(columns=2)), "was built for {.*'columns': 2}, not {"),
        (edited(lambda m: m.update(program="other")), "was built for"),
        (edited(lambda m: m.update(stack_bytes=1024)), "another memory map than this version's"),
        (edited(lambda m: m["memory_map"]["core"].update(bytes=1)), "another memory map than this version's"),
        (edited(lambda m: m["files"].pop(XCLBIN)), "lists other files than the program has"),
        (lambda path: (path / XCLBIN).write_bytes(b"xclbim"), "program.xclbin is damaged"),
        (lambda path: (path / XCLBIN).unlink(), r"program.xclbin cannot be read \(No such file"),
        (lambda path: (path / "instructions_8.bin").write_bytes(b""), "instructions_8.bin is damaged"),
    ],
)
def test_a_build_that_disagrees_with_its_manifest_or_this_version_is_refused(
    kept: Path, damage: Callable[[Path], None], text: str
) -> None:
    path = put(kept, STREAMING, [8])
    damage(path)
    with pytest.raises(BuildError, match=text) as refused:
        store.find(STREAMING, 8)
    assert re.search("remove|build again|builds it", str(refused.value))
    assert "\n" not in str(refused.value)


def test_the_doctors_finding(kept: Path) -> None:
    lacking = built_kernel()
    assert (lacking.state, lacking.found) == ("missing", f"there is no build of int32_t64_c4 in {kept}")
    assert lacking.remedy == (
        "scripts/build_xclbin --scores int32 --tile-size 64 --columns 4 builds it, "
        "--install takes a release's archive"
    )
    put(kept, SINGLE, [0])
    assert built_kernel().state == "missing"
    path = put(kept, STREAMING, [8])
    assert (built_kernel().state, built_kernel().found) == (
        "ok",
        f"built from these sources in {kept}: int32_t64_c4, int8_single",
    )
    (path / XCLBIN).write_bytes(b"damaged")
    wrong = built_kernel()
    assert (wrong.state, wrong.remedy is not None) == ("wrong", True)
    assert wrong.found == f"{path / XCLBIN} is damaged (not the manifest's SHA-256)"


@pytest.mark.parametrize("reason", [errno.ENAMETOOLONG, errno.EACCES])
def test_a_folder_that_the_system_refuses_is_a_finding_and_no_error(
    reason: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise OSError(reason, os.strerror(reason), str(path))

    monkeypatch.setattr(Path, "glob", refuse)
    found = built_kernel()
    assert (found.state, found.remedy) == ("wrong", "name another folder by TILESCRIBE_KERNELS")
    assert found.found == f"{store.folder()} can't be read ({os.strerror(reason)})"


def test_the_folder_is_the_users_cache_unless_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESCRIBE_KERNELS", "~/built")
    assert store.folder() == Path.home() / "built"
    monkeypatch.delenv("TILESCRIBE_KERNELS")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert store.folder() == Path("/somewhere/tilescribe/kernels")
