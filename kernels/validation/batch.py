"""Many tiles, random and extreme, bit for bit: a device against the reference, and against the compiled AIE2 source.

Everything is made from a seed, so that a mismatch can be made again. The reference is written for clarity and takes
milliseconds for a row; of each case it computes a few rows, and the counts say how many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels import reference
from kernels.contract import Operands
from kernels.device import Device
from kernels.self_check import random_operands

ROWS = 64  # of a tile
REFERENCE_KEYS = 512  # row-key pairs of a tile for the reference: 8 rows of 64 keys, 4 of 128, 2 of 256
TILES = 1000

Progress = Callable[[int, int], None]
Change = Callable[[Operands, np.random.Generator], Operands]
Output = npt.NDArray[Any]


@dataclass(frozen=True)
class Place:
    """Which run it is, of 64 rows over one to three tiles of keys, from the number of its first tile on."""

    tile: int
    case: int
    kind: str
    scores: c.ScoreType
    tile_size: int
    output_bits: int


@dataclass(frozen=True)
class Case(Place):
    """Such a run, with the operands of its one head and the rows that the reference computes."""

    operands: Operands
    reference_rows: list[int]

    @property
    def tiles(self) -> int:
        """Tiles of 64 rows and `tile_size` keys that hold a valid key."""
        return -(-self.operands.valid_keys // self.tile_size)

    def run(self, run: Callable[..., Output], rows: list[int] | None = None) -> Output:
        """What `Device.run` or the reference gives of all rows, or some: (rows, 64 or 128)."""
        operands = self.operands if rows is None else self.operands.rows(rows)
        head: Output = run(
            operands, scores=self.scores, tile_size=self.tile_size, output_bits=self.output_bits
        )[0]
        return head


@dataclass(frozen=True)
class Mismatch(Place):
    """The first output that differs from what the device was compared with."""

    against: str
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


@dataclass
class Compared:
    """What the device was compared with, and how much of it.

    Attributes:
        tiles: of which at least one row was compared.
        missing: why nothing was compared; empty where it was.
    """

    name: str
    tiles: int = 0
    rows: int = 0
    outputs: int = 0
    mismatch: Mismatch | None = None
    missing: str = ""

    def add(self, case: Case, rows: Sequence[int], found: Output, expected: Output) -> None:
        """Compare some rows of a case: the device's output with the other's."""
        self.tiles += case.tiles
        self.rows += len(rows)
        self.outputs += found.size
        for row, column in np.argwhere(found != expected)[:1].tolist():
            self.mismatch = Mismatch(
                **{field.name: getattr(case, field.name) for field in fields(Place)},
                against=f"the {self.name}",
                row=rows[row],
                column=column,
                expected=int(expected[row, column]),
                found=int(found[row, column]),
            )


@dataclass(frozen=True)
class BatchResult:
    """What a device ran, and how it compares with the reference and with the compiled AIE2 source."""

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


class BatchOptions(TypedDict, total=False):
    """How a batch is run: see `run_batch`."""

    tiles: int
    tile_sizes: Sequence[int]
    seed: int
    host: Device | str
    on_progress: Progress


def run_batch(
    device: Device,
    *,
    tiles: int = TILES,
    tile_sizes: Sequence[int] = c.TILE_SIZES,
    scores: Sequence[c.ScoreType] = c.SCORE_TYPES,
    seed: int = 0,
    host: Device | str = "there is none",
    on_progress: Progress | None = None,
) -> BatchResult:
    """Run a batch on a device, and compare it; stops at the first mismatch.

    Args:
        device: what is tested.
        tiles: how many, of `tile_sizes` and of kernels that hold their `scores` so, in turn.
        tile_sizes: keys per tile.
        scores: of the kernels.
        seed: of the operands.
        host: the compiled AIE2 source to compare with as well, or why there is none.
        on_progress: called with the tiles done and the tiles in all.

    Raises:
        ValueError: no tiles, no tile size or no kernel.
    """
    if tiles < 1 or not tile_sizes or not scores:
        raise ValueError("a batch needs at least one tile, one tile size and one kernel")
    with_reference = Compared("reference")
    with_host = Compared("compiled AIE2 source", missing=host if isinstance(host, str) else "")
    done = outputs = 0
    for case in cases(tiles, tile_sizes, scores, seed):
        rows, found = case.reference_rows, case.run(device.run)
        with_reference.add(case, rows, found[rows], case.run(reference.attention, rows))
        if not isinstance(host, str):
            with_host.add(case, range(ROWS), found, case.run(host.run))
        done += case.tiles
        outputs += found.size
        if on_progress:
            on_progress(done, tiles)
        if with_reference.mismatch or with_host.mismatch:
            break
    return BatchResult(
        device.name, seed, tuple(scores), tuple(tile_sizes), done, outputs, (with_reference, with_host)
    )


def cases(
    tiles: int,
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
        keys = tile_size * min(1 + int(random.integers(3)), tiles - first)
        width = c.VALUE_WIDTHS[int(random.integers(2))]
        plain = random_operands(
            ROWS,
            keys,
            random,
            width=width,
            multipliers=(c.MULTIPLIER_MAX // 2, c.MULTIPLIER_MAX),
            shifts=(12, 20),
        )
        # Some of the last tile's keys are padding.
        plain = replace(plain, valid_keys=int(random.integers(keys - tile_size + 1, keys + 1)))
        operands = _KINDS[kind](plain, random)
        rows = random.permutation(ROWS)[: max(1, REFERENCE_KEYS // tile_size)]
        output_bits = 8 if random.integers(4) == 0 else 16
        case = Case(first, index, kind, held, tile_size, output_bits, operands, sorted(rows.tolist()))
        yield case
        first += case.tiles
        index += 1


def _filled(**numbers: int) -> Change:
    """With arrays of one number each."""

    def change(plain: Operands, _: np.random.Generator) -> Operands:
        return replace(plain, **{name: np.full_like(getattr(plain, name), n) for name, n in numbers.items()})

    return change


def _any_factor(plain: Operands, random: np.random.Generator) -> Operands:
    multiplier = random.integers(1, c.MULTIPLIER_MAX + 1, plain.multiplier.shape).astype(np.uint16)
    shift = random.integers(c.SHIFT_MIN, c.SHIFT_MAX + 1, plain.shift.shape).astype(np.int32)
    return replace(plain, multiplier=multiplier, shift=shift)


def _only_ends(plain: Operands, random: np.random.Generator) -> Operands:
    q, k, v = (random.choice(np.array([-128, 127], np.int8), x.shape) for x in (plain.q, plain.k, plain.v))
    return replace(plain, q=q, k=k, v=v)


def _drifting(plain: Operands, random: np.random.Generator) -> Operands:
    """Keys that grow, or shrink, from first to last: the running exponent moves with every tile."""
    size = np.linspace(0, 127, plain.k.shape[1])[:: random.choice([-1, 1])]
    keys = np.broadcast_to(size[None, :, None], plain.k.shape).astype(np.int8)
    # The lowest bits stay random; queries without a sign let no growth cancel.
    return replace(plain, q=plain.q & np.int8(127), k=keys ^ (plain.k & np.int8(7)))


_KINDS: dict[str, Change] = {
    "random": lambda plain, _: plain,
    "all -128": _filled(q=-128, k=-128, v=-128),
    "random, any multiplier and shift": _any_factor,
    "all 127": _filled(q=127, k=127, v=127),
    "only -128 and 127": _only_ends,
    "127 against -128": _filled(q=127, k=-128, v=127),
    "random, largest multipliers, least shift": _filled(
        multiplier=c.MULTIPLIER_MAX, key_multiplier=c.KEY_MULTIPLIER_MAX, shift=c.SHIFT_MIN
    ),
    "random, least multipliers, largest shift": _filled(multiplier=1, key_multiplier=1, shift=c.SHIFT_MAX),
    "one valid key": lambda plain, _: replace(plain, valid_keys=1),
    "keys that grow or shrink": _drifting,
    "zeros": _filled(q=0, k=0),
}
KINDS = tuple(_KINDS)
