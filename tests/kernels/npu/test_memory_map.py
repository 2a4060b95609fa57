from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from kernels.contract import TILE_SIZES
from kernels.npu.cost import plans
from kernels.npu.program import memory_map
from kernels.npu.program.memory_map import Region
from kernels.npu.program.plan import STACK_BYTES, Plan

PROGRAMS = [*map(memory_map.streaming, plans()), memory_map.single_tile()]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_program_fits_the_array_region_after_region_and_the_stack_first(
    program: memory_map.MemoryMap,
) -> None:
    assert program.violations() == []
    assert program.core.regions[0] == Region("stack", 0, STACK_BYTES)
    for tile, most in ((program.core, 64 * 1024), (program.memory, 512 * 1024)):
        if tile is not None:
            assert tile.nbytes <= most
            ends = [region.address + region.nbytes for region in tile.regions]
            assert [region.address for region in tile.regions] == [0, *ends[:-1]]


def test_a_plan_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "input_depth", 2)
    excess = "int32_t256_c4: core: 96,800 bytes of 65,536"
    assert memory_map.streaming(Plan("int32", 256, 4)).violations() == [excess]


def test_a_plan_that_breaks_the_alignment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "work", Plan().work._replace(weight_halves=8 * 64 + 1))
    (found, *_) = memory_map.streaming(Plan()).violations()
    assert re.search(r"core: weights \(1026 bytes at \d+\) is not aligned to 32", found)


@pytest.mark.parametrize(
    ("tile", "changes", "text"),
    [
        ("core", {"incoming": (1, 1, 1)}, "core: 3 incoming channels of 2"),
        ("core", {"outgoing": (1, 1, 1)}, "core: 3 outgoing channels of 2"),
        ("core", {"incoming": (10, 6)}, "core: 18 descriptors of 16"),
        ("core", {"locks": 17}, "core: 17 locks of 16"),
        ("memory", {"incoming": (1,) * 7}, "memory tile: 7 incoming channels of 6"),
        ("memory", {"incoming": (20, 1), "outgoing": (6,)}, "of one parity may need 27 descriptors of 24"),
        ("memory", {"regions": (Region("queries", 0, 1 << 20),)}, "memory tile: 1,048,576 bytes of 524,288"),
        ("shim", {"outgoing": (5,)}, "shim tile: 5 descriptors wait at a channel for 4"),
        ("shim", {"outgoing": (1, 1, 1)}, "shim tile: 3 outgoing channels of 2"),
    ],
)
def test_every_excess_is_named(tile: str, changes: dict[str, object], text: str) -> None:
    program = memory_map.streaming(Plan())
    worse = dataclasses.replace(getattr(program, tile), **changes)
    found = dataclasses.replace(program, **{tile: worse}).violations()
    assert any(text in line for line in found), found


def test_the_script_prints_a_row_for_every_tile_size_and_the_single_tile(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TILESCRIBE_KERNELS": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "memory_map.py")],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    rows = done.stdout.splitlines()
    assert len(rows) == 2 + len(TILE_SIZES) + 1
    assert len({row.count("|") for row in rows}) == 1
    assert "| 61,344 | 116,736 | unknown |" in done.stdout
    assert done.stdout in (ROOT / "docs" / "npu.md").read_text(encoding="utf-8")
    assert done.stderr == ""


def test_the_map_of_a_manifest_names_every_region() -> None:
    program = memory_map.streaming(Plan("int32", 128, 4))
    core = program.as_json()["core"]
    assert isinstance(core, dict)
    assert core["bytes"] == program.core.nbytes == sum(nbytes for _, nbytes in core["regions"].values())
    assert core["regions"]["keys and values#1"] == [4096 + 16640, 16640]
