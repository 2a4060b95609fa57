"""The NPU: the contract's integers on AMD Phoenix, through XRT.

`NpuDevice` is made for long use: it opens the device once, loads each program once, and runs on the same buffers again
and again. A run that does not complete is repeated once in a context made anew, as AMD's own runtime does, and on the
device opened anew where it was gone; if that fails as well the device is lost, and nothing takes its place.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.arrays import Int8
from kernels.device import DeviceError, DeviceLost
from kernels.npu.build import store
from kernels.npu.build.store import BuildError, Program
from kernels.npu.program import layout
from kernels.npu.program import plan as p
from kernels.npu.program.plan import Plan
from kernels.npu.runtime.xrt import Session, XrtError, binding
from kernels.self_check import compare, random_operands

TIMEOUT_MS = 5000
"""The driver ends a run that makes no progress after two to four seconds (amdxdna's tdr_timeout_ms is 2000, and older
kernels look twice); this waits longer, so that it is the driver that ends it and takes the device back."""

TIMEOUT_MS_PER_HEAD = 50
"""A head is 302 M multiplications: 0.3 ms on one column's four cores at their peak, 1024 a cycle at 1 GHz. The rest is
margin, since what a run takes on the device has not been measured."""

REOPEN_SECONDS = 5.0
"""How long a device that is gone may take to come back: its driver resets it, or is loaded again."""

T = TypeVar("T")
Output = npt.NDArray[np.int16]


class NpuDevice:
    """The NPU, with the interface of `kernels.device.Device`; use it with `with`, or `close` it.

    Threads may share it: their runs follow each other.

    Attributes:
        rebuilds: how often everything was made anew since, because a run did not complete.
    """

    name = "npu"

    def __init__(self, *, columns: int = 4, timeout_ms: int | None = None) -> None:
        """Open the device; programs, for 1 to 4 columns of the array, are loaded when they are first used.

        A run may take `TIMEOUT_MS` and `TIMEOUT_MS_PER_HEAD` for each head unless a time is given.

        Raises:
            DeviceError: pyxrt cannot be imported, or the device cannot be opened.
        """
        self.rebuilds = 0
        self._xrt = binding()
        self._columns = columns
        self._timeout_ms = timeout_ms
        self._lock = threading.RLock()
        self._programs: dict[Program, dict[int, store.Build]] = {}
        self._checked: set[Program] = set()
        self._closed: str | None = None
        try:
            self._session = Session(self._xrt)
        except XrtError as error:
            raise DeviceError(f"the NPU cannot be opened: {_because(error)}") from error

    @property
    def board(self) -> str:
        """What XRT calls the device: `RyzenAI-npu1`."""
        return self._session.name

    def load(self, scores: c.ScoreType = "int32", tile_size: int = c.DEFAULT_TILE_SIZE) -> None:
        """Load a program, and compare what it computes with the reference.

        Raises:
            DeviceError: it is not built, cannot be loaded, or computes other bits than the contract's.
        """
        program = Program(Plan(scores, tile_size, self._columns))
        self._twice(lambda: self._check(program), opening=True)

    def run(
        self,
        operands: c.Operands,
        *,
        scores: c.ScoreType = "int32",
        tile_size: int = c.DEFAULT_TILE_SIZE,
        output_bits: int = 16,
    ) -> Output:
        """See `kernels.device.Device`; a head has at most 1,536 rows and as many keys.

        Raises:
            kernels.contract.ContractError: operands outside the contract, or too many rows or keys.
            DeviceLost: runs do not complete, also in a context made anew.
            DeviceError: the program is not built, or computes other bits than the contract's, or there is no room for
                it now: a later run may have it.
        """
        operands.check(tile_size, scores, output_bits)
        layout.check_fits(operands)
        return self._run(Program(Plan(scores, tile_size, self._columns)), operands, output_bits)

    def run_single(self, scores: c.ScoreType, q: Int8, k: Int8, v: Int8) -> Int8:
        """One tile on one core, with the fixed scale of `plan.SINGLE_TILE_LOGIT`: for bring-up and validation.

        Queries, keys, values and the result, which is in the values' step, are int8, shape (64, 64). Raises as `run`.
        """
        c.check_choice(p.SINGLE_TILE, scores)
        for name, matrix in (("q", q), ("k", k), ("v", v)):
            if matrix.shape != (p.SINGLE_TILE, c.HEAD_DIM) or matrix.dtype != np.int8:
                raise c.ContractError(
                    f"{name} of a single tile has to be int8, ({p.SINGLE_TILE}, {c.HEAD_DIM}), "
                    f"not {matrix.dtype}, {matrix.shape}"
                )
        found: Int8 = self._run(Program(scores), layout.tile_operands(scores, q, k, v), 8)[0].astype(np.int8)
        return found

    def close(self) -> None:
        """Let go of the device; a further run is refused."""
        with self._lock:
            self._session.close()
            self._closed = self._closed or "the NPU was closed; open it again"

    def __enter__(self) -> NpuDevice:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, program: Program, operands: c.Operands, output_bits: int) -> Output:
        def work() -> Output:
            self._check(program)
            return self._compute(program, operands, output_bits)

        return self._twice(work)

    def _twice(self, work: Callable[[], T], *, opening: bool = False) -> T:
        """Do `work`; where a run does not complete, make everything anew and do it once more."""
        with self._lock:
            if self._closed is not None:
                raise DeviceError(self._closed)
            # Not within `except`: the first failure's frames would keep its buffers and context through the second try.
            with contextlib.suppress(XrtError):
                return work()
            self.rebuilds += 1
            self._checked.clear()
            self._session.give_back()
            try:
                try:
                    return work()
                except XrtError as error:
                    if not error.gone or self._session.held:
                        raise
                self._session.close()
                self._session.open(REOPEN_SECONDS)
                return work()
            except XrtError as error:
                self._session.give_back()
                if opening or error.no_room:
                    raise DeviceError(f"the NPU cannot be used: {_because(error)}") from error
                self._session.close()
                self._closed = "the NPU was lost; open it again"
                if self._session.held:
                    self._closed = (
                        "the NPU was lost, and a run may still be at work: end this process to open it again"
                    )
                raise DeviceLost(
                    f"the NPU is lost: {error}, also after a fresh start; see dmesg, load its driver again (sudo rmmod "
                    "amdxdna; sudo modprobe amdxdna) and ask tilescribe doctor"
                ) from error

    def _compute(self, program: Program, operands: c.Operands, output_bits: int) -> Output:
        builds, plan = self._builds(program), program.plan
        if plan is None:
            launch = self._session.launch(
                builds[0], 1, (p.SINGLE_TILE_INPUT_BYTES, p.SINGLE_TILE_OUTPUT_BYTES)
            )
            matrices = np.concatenate([operands.q, operands.k, operands.v])
            launch.inputs[0].view(np.int8).reshape(matrices.shape)[:] = matrices
            launch.run(self._timeout(1))
            return launch.output.view(np.int8).reshape(operands.v.shape).astype(np.int16)
        heads, rows, _ = operands.q.shape
        width = operands.v.shape[2]
        result = np.empty((heads, rows, width), np.int16)
        # (left or right columns, head, row, column): the order of the heads that `by_columns` makes
        parts = result.reshape(heads, rows, width // c.HEAD_DIM, c.HEAD_DIM).transpose(2, 0, 1, 3)
        split = layout.by_columns(operands)
        total, start = len(split.q), 0
        for count in cut_heads(total, tuple(builds)):
            launch = self._session.launch(builds[count], count, plan.buffer_bytes(count))
            part = layout.pick_heads(split, _heads_of_run(start, count, total))
            layout.pack_queries(part, output_bits, launch.inputs[0])
            layout.pack_keys_and_values(part, plan.tile_size, launch.inputs[1])
            launch.run(self._timeout(count))
            output = launch.output.view("<i2").reshape(count, p.PADDED_TOKENS, c.HEAD_DIM)
            for head in range(start, min(start + count, total)):
                parts[divmod(head, heads)] = output[head - start, :rows]
            start += count
        return result

    def _timeout(self, heads: int) -> int:
        return self._timeout_ms or TIMEOUT_MS + TIMEOUT_MS_PER_HEAD * heads

    def _builds(self, program: Program) -> dict[int, store.Build]:
        """The program's builds by their number of heads, held against the sources at the first use."""
        if program not in self._programs:
            try:
                self._programs[program] = store.by_heads(program)
            except BuildError as error:
                raise DeviceError(str(error)) from error
        return self._programs[program]

    def _check(self, program: Program) -> None:
        """Compare a program with the reference before its first use: a row of every core, in every group of rows."""
        if program in self._checked:
            return
        if program.plan:
            tile_size, output_bits = program.plan.tile_size, 16
            operands = random_operands(p.PADDED_TOKENS, tile_size + 8)
            blocks = range(p.PADDED_TOKENS // p.ROWS_PER_CORE)
            rows = [block * p.ROWS_PER_CORE + block % p.ROWS_PER_CORE for block in blocks]
        else:
            tile_size, output_bits = p.SINGLE_TILE, 8
            tile = np.random.default_rng(0).integers(-64, 64, (3, p.SINGLE_TILE, c.HEAD_DIM)).astype(np.int8)
            operands, rows = layout.tile_operands(program.scores, *tile), list(range(0, p.SINGLE_TILE, 7))
        compare(
            lambda given: self._compute(program, given, output_bits),
            operands,
            rows,
            scores=program.scores,
            tile_size=tile_size,
            output_bits=output_bits,
            name=f"NPU's program {program.name}",
            remedy="build the kernels again, and if that does not help see dmesg",
        )
        self._checked.add(program)


def open_npu(scores: c.ScoreType = "int32", tile_size: int = c.DEFAULT_TILE_SIZE) -> NpuDevice:
    """Open the NPU with a program that was compared with the reference; raises as `NpuDevice` and `load` do."""
    device = NpuDevice()
    try:
        device.load(scores, tile_size)
    except BaseException:
        device.close()
        raise
    return device


def _because(error: XrtError) -> str:
    return f"{error}: {error.no_room}" if error.no_room else str(error)


@lru_cache
def cut_heads(heads: int, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Cut heads into runs of the numbers there are instructions for.

    A head in a run costs more than a dispatch does, so the fewest heads are computed in all (the last run may have some
    to spare), and among those the fewest runs; the largest come first.
    """
    best: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, ())]
    for n in range(1, heads + 1):
        rests = ((count, best[max(0, n - count)]) for count in counts)
        best.append(min((total + count, runs + 1, (count, *cut)) for count, (total, runs, cut) in rests))
    return tuple(sorted(best[heads][2], reverse=True))


def _heads_of_run(start: int, count: int, total: int) -> slice | npt.NDArray[np.int64]:
    """`count` heads from `start` on; where there are fewer, the last one fills the rest."""
    if start + count <= total:
        return slice(start, start + count)
    return np.minimum(np.arange(start, start + count), total - 1)
