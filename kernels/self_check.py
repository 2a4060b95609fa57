"""A device against the reference, on a few rows of random operands, before it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels import reference
from kernels.arrays import Int8
from kernels.device import DeviceError


def random_operands(
    rows: int,
    keys: int,
    random: np.random.Generator | None = None,
    *,
    width: int = c.HEAD_DIM,
    multipliers: tuple[int, int] = (c.MULTIPLIER_MAX // 2, c.MULTIPLIER_MAX),
    shifts: tuple[int, int] = (16, 16),
) -> c.Operands:
    """One head of random operands, the last two keys being padding; always the same unless `random` is given.

    Queries, keys and values (of 64 or 128 columns) are over their whole range, as are the keys' multipliers; the rows'
    multipliers and the shift lie within the ends that are given.
    """
    random = random or np.random.default_rng(0)

    def int8(*shape: int) -> Int8:
        return random.integers(-128, 128, shape).astype(np.int8)

    return c.Operands(
        q=int8(1, rows, c.HEAD_DIM),
        k=int8(1, keys, c.HEAD_DIM),
        v=int8(1, keys, width),
        key_multiplier=random.integers(1, c.KEY_MULTIPLIER_MAX + 1, (1, keys)).astype(np.uint8),
        multiplier=random.integers(multipliers[0], multipliers[1] + 1, (1, rows)).astype(np.uint16),
        shift=random.integers(shifts[0], shifts[1] + 1, 1).astype(np.int32),
        valid_keys=keys - 2,
    )


def compare(
    work: Callable[[c.Operands], npt.NDArray[np.int16]],
    operands: c.Operands,
    rows: Sequence[int],
    *,
    scores: c.ScoreType,
    tile_size: int,
    output_bits: int = 16,
    name: str,
    remedy: str,
) -> None:
    """Refuse a device that computes other bits than the reference.

    Args:
        work: computes operands on the device, by `scores`, `tile_size` and `output_bits`.
        operands: one head.
        rows: which to compare; the reference is slow, and rows are independent.
        scores: as `tile_size` and `output_bits`, see `kernels.device.Device.run`.
        tile_size: keys per tile.
        output_bits: 16 or 8.
        name: what the device is called in the message.
        remedy: what to do, in the message.

    Raises:
        DeviceError: they differ; it names the first value that does.
    """
    chosen = list(rows)
    expected = reference.attention(
        operands.rows(chosen), scores=scores, tile_size=tile_size, output_bits=output_bits
    )[0]
    found = work(operands)[0, chosen]
    wrong = np.argwhere(found != expected)
    if len(wrong):
        row, column = wrong[0]
        raise DeviceError(
            f"the {name} disagrees with the reference in {len(wrong)} of {expected.size} values (row {chosen[row]}, "
            f"column {column}: {found[row, column]} instead of {expected[row, column]}); {remedy}"
        )
