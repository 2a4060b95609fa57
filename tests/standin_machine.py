"""What is behind the stand-in for pyxrt: a machine with an NPU whose cores are the emulator or the host's build.

It computes on exactly the bytes that are in the buffers' device side, so a wrong layout, a missing sync or a wrong
argument shows in the result. Its programs are files of its own: an xclbin is the magic of a real one and a line of
JSON, an instruction stream is `INSTRUCTIONS`, the number of heads, and a few bytes that tell programs apart.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest

from kernels import builds, layout
from kernels.emulator import Emulator
from kernels.plan import SINGLE_TILE, SINGLE_TILE_INPUT_BYTES, SINGLE_TILE_OUTPUT_BYTES, Plan
from kernels.validation import tile_operands

MAGIC = b"xclbin2\x00"
INSTRUCTIONS = np.array([0x06030100, 0x00000104, 0x7469_6C65], "<u4")
KERNEL = "MLIR_AIE"

Fault = Literal["timeout", "hang", "error", "abort", "lost while waiting"]


def write_program(
    folder: Path, plan: Plan | str, heads: int, *, kernel: str = KERNEL, arguments: int = 8
) -> Path:
    """Write an xclbin (its path is returned) and, beside it, `insts_<heads>.bin`; `plan` may be `single_int32`, ..."""
    name = plan if isinstance(plan, str) else plan.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.xclbin"
    path.write_bytes(MAGIC + json.dumps({"plan": name, "kernel": kernel, "arguments": arguments}).encode())
    instructions = np.concatenate([INSTRUCTIONS, np.array([heads, *_key(name)], "<u4")])
    (folder / f"{name}_{heads}.insts").write_bytes(instructions.tobytes())
    return path


def build_programs(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    counts: tuple[int, ...] = (6, 8, 12),
    *,
    single: bool = True,
) -> None:
    """Let `kernels.builds` find programs of the stand-in for these numbers of heads, and the single tile's."""

    def build(plan: Plan | str, heads: int) -> SimpleNamespace:
        xclbin = write_program(folder, plan, heads)
        return SimpleNamespace(xclbin=xclbin, instructions=folder / f"{xclbin.stem}_{heads}.insts")

    def find(plan: Plan, heads: int) -> SimpleNamespace:
        if heads not in counts:
            raise builds.BuildError(f"{plan.name} is not built for {heads} heads")
        return build(plan, heads)

    def find_single(scores: str) -> SimpleNamespace:
        if not single:
            raise builds.BuildError(f"single_{scores} is not built")
        return build(f"single_{scores}", 1)

    monkeypatch.setattr(builds, "find", find)
    monkeypatch.setattr(builds, "find_single", find_single)


def _key(name: str) -> list[int]:
    return list(hashlib.sha256(name.encode()).digest()[:4])


def plan_of(name: str) -> Plan:
    """The plan that `Plan.name` names."""
    scores, tile, columns = name.split("_")
    return Plan("int8" if scores == "int8" else "int32", int(tile[1:]), int(columns[1:]))


@dataclass
class Machine:
    """One NPU and its driver.

    Attributes:
        present: whether there is an NPU.
        memory: bytes that buffers may take in all.
        contexts: that the driver can hold; 6 was found by mlir-aie's authors (xrtruntime/hostruntime.py).
        cores: what computes: the emulator, the host-compiled source, or nothing (the output stays as it is).
        faults: what happens in the run with this number, counted from 1 over the machine's life.
        lost_from: from the run with this number on the device is gone.
        corrupt_from: from the run with this number on the first output byte is wrong.
        runs: started until now.
        waits: the timeout of each wait in milliseconds, None where there was none.
        alive: objects of the binding that exist, by class.
        made: objects of the binding that were ever made, by class.
        taken: bytes of buffers that exist.
        aborted: what would have ended the whole process (`std::abort`).
        warnings: what XRT would have logged.
    """

    present: bool = True
    memory: int = 1 << 30
    contexts: int = 6
    cores: Literal["emulator", "host", "nothing"] = "emulator"
    faults: dict[int, Fault] = field(default_factory=dict)
    lost_from: int | None = None
    corrupt_from: int | None = None
    runs: int = 0
    waits: list[int | None] = field(default_factory=list)
    alive: Counter[str] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)
    taken: int = 0
    aborted: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
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

    def execute(self, program: dict[str, Any], opcode: Any, instructions: Any, buffers: list[Any]) -> str:
        """Run a program on the device side of buffers; returns the state that the command ends in.

        Assumptions, since firmware is not public: without instructions, or with another program's, a command ends as
        ERROR; a data buffer that is not set or too small ends as TIMEOUT, since its DMA never completes.
        """
        if opcode != 3 or instructions is None:
            return "ERROR"
        words = np.frombuffer(bytes(instructions), "<u4")
        known = len(words) == len(INSTRUCTIONS) + 5 and (words[:3] == INSTRUCTIONS).all()
        if not known or list(words[4:]) != _key(program["plan"]):
            return "ERROR"
        heads = int(words[3])
        single = program["plan"].startswith("single_")
        plan = None if single else plan_of(program["plan"])
        sizes = (
            (SINGLE_TILE_INPUT_BYTES, SINGLE_TILE_OUTPUT_BYTES)
            if plan is None
            else (plan.query_bytes(heads), plan.key_value_stream_bytes(heads), plan.output_bytes(heads))
        )
        given = buffers[: len(sizes)]
        if len(given) < len(sizes) or any(b is None or len(b) < n for b, n in zip(given, sizes, strict=True)):
            return "TIMEOUT"
        arrays = [np.frombuffer(b, np.uint8)[:n] for b, n in zip(given, sizes, strict=True)]
        if self.cores != "nothing":
            work = self._single if plan is None else self._stream
            work(plan or program["plan"], heads, *arrays)
        if self.corrupt_from is not None and self.runs >= self.corrupt_from:
            arrays[-1][0] ^= 1
        return "COMPLETED"

    def _stream(self, plan: Plan, heads: int, queries: Any, stream: Any, output: Any) -> None:
        if self.cores == "host":
            _host().run_buffers(plan, heads, queries, stream, output)
            return
        operands, bits = layout.unpack(queries, stream, plan, heads)
        operands.check(plan.tile_size, plan.scores, bits)
        result = _emulator().run(operands, scores=plan.scores, tile_size=plan.tile_size, output_bits=bits)
        output[:] = result.astype("<i2").reshape(-1).view(np.uint8)

    def _single(self, name: str, heads: int, data: Any, output: Any) -> None:
        scores: Any = name.removeprefix("single_")
        if self.cores == "host":
            _host().run_single(scores, data, output)
            return
        q, k, v = data.view(np.int8).reshape(3, SINGLE_TILE, 64)
        result = _emulator().run(
            tile_operands(scores, q, k, v), scores=scores, tile_size=SINGLE_TILE, output_bits=8
        )
        output[:] = result.astype(np.int8).reshape(-1).view(np.uint8)


_made: dict[str, Any] = {}


def _once(name: str, make: Callable[[], Any]) -> Any:
    if name not in _made:
        _made[name] = make()
    return _made[name]


def _emulator() -> Any:
    return _once("emulator", Emulator)


def _host() -> Any:
    from kernels.host_kernel import HostKernel

    return _once("host", HostKernel)
