"""Many tiles, random and extreme, bit for bit: a device against the reference, and against the compiled AIE2 source.

Everything is made from a seed, so that a mismatch can be made again. The reference is written for clarity and takes
milliseconds for a row; of each case it computes a few rows, and the counts say how many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels import reference
from kernels.device import Device
from kernels.validation.batch_operands import KINDS, ROWS, make

REFERENCE_KEYS = 512
"""Row-key pairs that the reference computes for each tile: 8 rows of 64 keys, 4 of 128, 2 of 256."""

TILES = 1000

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Case:
    """One run of 64 rows over one to three tiles of keys.

    Attributes:
        index: of the case in its batch.
        first_tile: the number of its first tile in its batch.
        kind: what its operands are like.
        scores: `int32` or `int8`.
        tile_size: keys per tile.
        output_bits: 16 or 8.
        operands: of one head.
        reference_rows: the rows that the reference computes.
    """

    index: int
    first_tile: int
    kind: str
    scores: c.ScoreType
    tile_size: int
    output_bits: int
    operands: c.Operands
    reference_rows: tuple[int, ...]

    @property
    def tiles(self) -> int:
        """Tiles of 64 rows and `tile_size` keys that hold a valid key."""
        return -(-self.operands.valid_keys // self.tile_size)


@dataclass(frozen=True)
class Mismatch:
    """The first output that differs.

    Attributes:
        against: what the device was compared with.
        tile: number of the case's first tile in the batch.
        case: number of the case.
        kind: what its operands are like.
        scores: `int32` or `int8`.
        tile_size: keys per tile.
        output_bits: 16 or 8.
        row: of the output.
        column: of the output.
        expected: the other's value.
        found: the device's value.
    """

    against: str
    tile: int
    case: int
    kind: str
    scores: str
    tile_size: int
    output_bits: int
    row: int
    column: int
    expected: int
    found: int

    def __str__(self) -> str:
        return (
            f"tile {self.tile} (case {self.case}, {self.kind}, {self.scores}, tiles of {self.tile_size}, "
            f"{self.output_bits} bits), row {self.row}, column {self.column}: {self.against} has {self.expected}, "
            f"the device {self.found}"
        )


@dataclass(frozen=True)
class Compared:
    """What the device was compared with, and how much of it.

    Attributes:
        name: `reference` or `compiled AIE2 source`.
        tiles: of which at least one row was compared.
        rows: compared.
        outputs: compared.
        mismatch: the first one; None where all are identical.
        missing: why nothing was compared; empty where it was.
    """

    name: str
    tiles: int = 0
    rows: int = 0
    outputs: int = 0
    mismatch: Mismatch | None = None
    missing: str = ""


@dataclass(frozen=True)
class BatchResult:
    """The outcome of a batch.

    Attributes:
        device: what was tested: `emulator` or `npu`.
        seed: that the operands were made from.
        scores: the kernels.
        tile_sizes: keys per tile.
        tiles: that the device ran.
        outputs: that the device computed.
        comparisons: with the reference, and with the compiled AIE2 source.
    """

    device: str
    seed: int
    scores: tuple[str, ...]
    tile_sizes: tuple[int, ...]
    tiles: int
    outputs: int
    comparisons: tuple[Compared, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return all(compared.mismatch is None for compared in self.comparisons)

    def summary(self) -> str:
        """In a line, what equals what, or the first mismatch."""
        for compared in self.comparisons:
            if compared.mismatch:
                return str(compared.mismatch)
        names = " and ".join(f"the {compared.name}" for compared in self.comparisons if not compared.missing)
        return f"{self.tiles} tiles equal {names} bit for bit"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {**asdict(self), "passed": self.passed}


def cases(
    tiles: int = TILES,
    tile_sizes: Sequence[int] = c.TILE_SIZES,
    scores: Sequence[c.ScoreType] = c.SCORE_TYPES,
    seed: int = 0,
) -> Iterator[Case]:
    """The batch's cases: together exactly `tiles` tiles, every kind of operands with every choice of kernel in turn."""
    first, index = 0, 0
    while first < tiles:
        random = np.random.default_rng([seed, index])
        kind = KINDS[index % len(KINDS)]
        # Every round through the kinds moves on by one, so that each meets every tile size and kind of score.
        choice = index // len(KINDS) + index % len(KINDS)
        tile_size = tile_sizes[choice % len(tile_sizes)]
        held = scores[choice // len(tile_sizes) % len(scores)]
        count = min(1 + int(random.integers(3)), tiles - first)
        width = c.VALUE_WIDTHS[int(random.integers(2))]
        operands = make(kind, random, count * tile_size, width, tile_size)
        rows = random.permutation(ROWS)[: max(1, REFERENCE_KEYS // tile_size)]
        output_bits = 8 if random.integers(4) == 0 else 16
        chosen = tuple(sorted(map(int, rows)))
        case = Case(index, first, kind, held, tile_size, output_bits, operands, chosen)
        yield case
        first += case.tiles
        index += 1


def run_batch(
    device: Device,
    *,
    tiles: int = TILES,
    tile_sizes: Sequence[int] = c.TILE_SIZES,
    scores: Sequence[c.ScoreType] = c.SCORE_TYPES,
    seed: int = 0,
    host: Device | None = None,
    host_missing: str = "",
    on_progress: Progress | None = None,
) -> BatchResult:
    """Run a batch on a device, and compare it; stops at the first mismatch.

    Args:
        device: what is tested.
        tiles: how many.
        tile_sizes: keys per tile, among which the cases take turns.
        scores: the kernels, `int32` and `int8`, which take turns as well.
        seed: of the operands.
        host: the compiled AIE2 source, where there is one.
        host_missing: why there is none.
        on_progress: called with the tiles done and the tiles in all.

    Raises:
        ValueError: no tiles, or no tile size.
    """
    if tiles < 1 or not tile_sizes or not scores:
        raise ValueError("a batch needs at least one tile, one tile size and one kernel")
    with_reference = Compared("reference")
    with_host = Compared("compiled AIE2 source", missing="" if host else host_missing or "there is none")
    done = outputs = 0
    for case in cases(tiles, tile_sizes, scores, seed):
        rows = list(case.reference_rows)
        how: dict[str, Any] = {
            "scores": case.scores,
            "tile_size": case.tile_size,
            "output_bits": case.output_bits,
        }
        found = device.run(case.operands, **how)[0]
        expected = reference.attention(case.operands.rows(rows), **how)[0]
        with_reference = _compare(with_reference, case, rows, found[rows], expected)
        if host:
            by_host = host.run(case.operands, **how)[0]
            with_host = _compare(with_host, case, range(ROWS), found, by_host)
        done += case.tiles
        outputs += found.size
        if on_progress:
            on_progress(done, tiles)
        if with_reference.mismatch or with_host.mismatch:
            break
    return BatchResult(
        device.name, seed, tuple(scores), tuple(tile_sizes), done, outputs, (with_reference, with_host)
    )


def _compare(
    compared: Compared,
    case: Case,
    rows: Sequence[int],
    found: npt.NDArray[np.int16],
    expected: npt.NDArray[np.int16],
) -> Compared:
    mismatch = None
    differing = np.argwhere(found != expected)
    if len(differing):
        row, column = (int(i) for i in differing[0])
        mismatch = Mismatch(
            against=f"the {compared.name}",
            tile=case.first_tile,
            case=case.index,
            kind=case.kind,
            scores=case.scores,
            tile_size=case.tile_size,
            output_bits=case.output_bits,
            row=rows[row],
            column=column,
            expected=int(expected[row, column]),
            found=int(found[row, column]),
        )
    return replace(
        compared,
        tiles=compared.tiles + case.tiles,
        rows=compared.rows + len(rows),
        outputs=compared.outputs + found.size,
        mismatch=mismatch,
    )
