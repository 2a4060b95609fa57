"""The AIE2 source through AMD's own headers: it compiles by Peano, and its frames fit the stack. Nothing is run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kernels.contract import SCORE_TYPES, TILE_SIZES
from kernels.npu.build import elf, toolchain
from kernels.npu.build.store import Program
from kernels.npu.build.xclbin import OBJECT, RUNTIME_STACK_BYTES
from kernels.npu.program.plan import STACK_BYTES, Plan

PROGRAMS = [Program(of) for s in SCORE_TYPES for of in (*(Plan(s, size) for size in TILE_SIZES), s)]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_the_source_compiles_against_aie_api_and_fits_the_stack(program: Program, tmp_path: Path) -> None:
    try:
        tools = toolchain.find(any_version=True)
    except toolchain.ToolLackingError as error:
        pytest.skip(f"it needs mlir-aie with aie_api, and Peano: {error}")
    command = tools.compile_command(program, tmp_path / OBJECT)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    frames = elf.frames(tmp_path / OBJECT)
    assert frames, f"{tools.versions['peano']} says no frames"
    assert sum(frames) + RUNTIME_STACK_BYTES <= STACK_BYTES, frames
