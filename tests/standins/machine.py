"""What is behind the stand-in for pyxrt: a machine with an NPU whose cores are the emulator or the host's build.

It computes on exactly the bytes that are in the buffers' device side, so a wrong layout, a missing sync or a wrong
argument shows in the result. xclbin.py writes its programs.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from material.buffers import unpack
from standins import xclbin

from kernels import contract as c
from kernels.emulator import Emulator
from kernels.npu.build import store
from kernels.npu.build.host_kernel import HostKernel
from kernels.npu.build.store import XCLBIN, Program, instructions_name
from kernels.npu.cost import plans
from kernels.npu.program import plan as p
from kernels.npu.program.layout import tile_operands
from kernels.npu.program.plan import Plan

PROGRAMS = {program.name: program for program in map(Program, (*plans(), *c.SCORE_TYPES))}

Fault = Literal["timeout", "hang", "error", "abort", "slow", "lost while waiting"]
"""`timeout`: the driver ends the run. `hang`: nobody does. `slow`: it is over after a few looks at it."""


def write_program(
    folder: Path, program: Program, counts: Sequence[int], **kernel: Any
) -> tuple[Path, dict[int, Path]]:
    """Write an xclbin (see `xclbin.xclbin`) and its instructions for these numbers of heads; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / XCLBIN
    path.write_bytes(xclbin.xclbin(program, **kernel))
    instructions = {heads: folder / instructions_name(heads) for heads in counts}
    for heads, file in instructions.items():
        file.write_bytes(xclbin.instructions(program, heads))
    return path, instructions


def build_programs(monkeypatch: pytest.MonkeyPatch, folder: Path, counts: Sequence[int] = (6, 8, 12)) -> None:
    """Builds of the stand-ins' programs, where `store` finds them."""
    monkeypatch.setenv("TILESCRIBE_KERNELS", str(folder))
    build(folder, counts)


def build(folder: Path, counts: Sequence[int] = (6, 8, 12)) -> None:
    """Builds as `store` keeps them: of all programs with 4 columns, and of the single tile's."""
    for program in PROGRAMS.values():
        if program.plan is None or program.plan.columns == 4:
            heads = counts if program.plan else (0,)
            place = folder / f"{program.name}-{store.source_hash()[:16]}-standin"
            write_program(place, program, heads)
            store.write(place, program, heads, {})


@dataclass
class Machine:
    """One NPU and its driver.

    Attributes:
        memory: bytes that buffers may take in all.
        contexts: that the driver can hold; 6 was found by mlir-aie's authors (xrtruntime/hostruntime.py).
        cores: what computes: the emulator, the host-compiled source, or nothing (the output stays as it is).
        faults: what happens in the run with this number, counted from 1 over the machine's life.
        lost_from: from the run with this number on the device is gone.
        corrupt_from: from the run with this number on the first output byte is wrong.
        runs: started until now.
        alive: objects of the binding that exist, by class.
        made: objects of the binding that were ever made, by class.
        taken: bytes of buffers that exist.
        aborted: what would have ended the whole process (`std::abort`).
    """

    present: bool = True
    memory: int = 1 << 30
    contexts: int = 6
    cores: Literal["emulator", "host", "nothing"] = "emulator"
    faults: dict[int, Fault] = field(default_factory=dict)
    lost_from: int | None = None
    corrupt_from: int | None = None
    runs: int = 0
    alive: Counter[str] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)
    taken: int = 0
    aborted: list[str] = field(default_factory=list)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def track(self, thing: object) -> None:
        """Count an object of the binding until it is gone."""
        kind = type(thing).__name__
        self.made[kind] += 1
        self.alive[kind] += 1
        weakref.finalize(thing, self._gone, kind)

    def _gone(self, kind: str) -> None:
        self.alive[kind] -= 1

    @property
    def lost(self) -> bool:
        """Whether the device is gone."""
        return self.lost_from is not None and self.runs >= self.lost_from

    def execute(self, about: dict[str, Any], opcode: Any, instructions: Any, buffers: list[Any]) -> str:
        """Run a program on the device side of buffers; returns the state that the command ends in.

        Assumptions, since firmware is not public: without instructions, or with another program's, a command ends as
        ERROR; a data buffer that is not set or too small ends as TIMEOUT, since its DMA never completes.
        """
        if opcode != 3 or instructions is None:
            return "ERROR"
        words = np.frombuffer(bytes(instructions), "<u4")
        heads, program = int(words[3:4].sum()), PROGRAMS[about["program"]]
        if words.tobytes() != xclbin.instructions(program, heads):
            return "ERROR"
        plan = program.plan
        single = (p.SINGLE_TILE_INPUT_BYTES, p.SINGLE_TILE_OUTPUT_BYTES)
        sizes = plan.buffer_bytes(heads) if plan else single
        given = buffers[: len(sizes)]
        if len(given) < len(sizes) or any(b is None or len(b) < n for b, n in zip(given, sizes, strict=True)):
            return "TIMEOUT"
        arrays = [np.frombuffer(b, np.uint8)[:n] for b, n in zip(given, sizes, strict=True)]
        if self.cores != "nothing":
            if plan is None:
                self._single(program.scores, *arrays)
            else:
                self._stream(plan, heads, *arrays)
        if self.corrupt_from is not None and self.runs >= self.corrupt_from:
            arrays[-1][0] ^= 1
        return "COMPLETED"

    def _stream(self, plan: Plan, heads: int, queries: Any, stream: Any, output: Any) -> None:
        if self.cores == "host":
            HostKernel().run_buffers(plan, heads, queries, stream, output)
            return
        operands, bits = unpack(queries, stream, plan, heads)
        operands.check(plan.tile_size, plan.scores, bits)
        result = _emulator().run(operands, scores=plan.scores, tile_size=plan.tile_size, output_bits=bits)
        output[:] = result.astype("<i2").reshape(-1).view(np.uint8)

    def _single(self, scores: c.ScoreType, data: Any, output: Any) -> None:
        if self.cores == "host":
            HostKernel().run_single(scores, data, output)
            return
        q, k, v = data.view(np.int8).reshape(3, p.SINGLE_TILE, c.HEAD_DIM)
        operands = tile_operands(scores, q, k, v)
        result = _emulator().run(operands, scores=scores, tile_size=p.SINGLE_TILE, output_bits=8)
        output[:] = result.astype(np.int8).reshape(-1).view(np.uint8)


@cache
def _emulator() -> Emulator:
    return Emulator()
