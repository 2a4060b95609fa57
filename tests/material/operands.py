"""Operands of the contract: random ones over its whole range, and such as lead to its ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from kernels import contract as c
from kernels.contract import Operands, ScoreType
from kernels.quantise import quantise

COMBINATIONS: list[tuple[ScoreType, int, int]] = [
    ("int32", 64, 16),
    ("int8", 64, 8),
    ("int32", 128, 8),
    ("int8", 128, 16),
    ("int32", 256, 16),
    ("int8", 256, 8),
]
"""Every kind of score with every tile size, and either output width with each of both."""
ARRAYS = ("q", "k", "v", "key_multiplier", "multiplier", "shift")
"""Fields of operands whose first axis is heads."""


def heads_of(operands: Operands, chosen: Any) -> Operands:
    """The same with some of the heads: a slice, or their numbers, which may repeat."""
    return replace(operands, **{name: getattr(operands, name)[chosen] for name in ARRAYS})


def random_operands(
    random: np.random.Generator, heads: int, rows: int, keys: int, spread: int | None = None, **fixed: Any
) -> Operands:
    """Operands over the contract's whole range, some runs with small scores so that many keys count.

    Keys have their padding included. Queries and keys are from -spread to spread - 1, drawn unless given; `fixed` are
    fields as they are to be.
    """
    spread = spread or int(random.choice([128, 128, 40, 6]))

    def integers(low: int, high: int, *shape: int) -> Any:
        return random.integers(low, high, shape)

    values: dict[str, Any] = {
        "q": integers(-spread, spread, heads, rows, 64).astype(np.int8),
        "k": integers(-spread, spread, heads, keys, 64).astype(np.int8),
        "v": integers(-128, 128, heads, keys, 64).astype(np.int8),
        "key_multiplier": integers(1, 256, heads, keys).astype(np.uint8),
        "multiplier": integers(1, c.MULTIPLIER_MAX + 1, heads, rows).astype(np.uint16),
        "shift": integers(c.SHIFT_MIN, c.SHIFT_MAX + 1, heads).astype(np.int32),
        "valid_keys": int(random.integers(1, keys + 1)),
    }
    return Operands(**(values | fixed))


def any_operands(
    seed: int,
    *,
    heads: int = 1,
    rows: int = 2,
    keys: int = 300,
    width: int = 64,
    multiplier: tuple[int, int] = (1, c.MULTIPLIER_MAX),
    shift: tuple[int, int] = (c.SHIFT_MIN, c.SHIFT_MAX),
) -> Operands:
    """Uniform over all that the contract allows, with keys padded to whole tiles of 256 by garbage.

    Every third key, on average, has the least or the greatest key multiplier.
    """
    random = np.random.default_rng(seed)
    padded = -(-keys // 256) * 256
    operands = random_operands(
        random,
        heads,
        rows,
        padded,
        spread=128,
        v=random.integers(-128, 128, (heads, padded, width), dtype=np.int8),
        multiplier=random.integers(*multiplier, (heads, rows), dtype=np.uint16, endpoint=True),
        shift=random.integers(*shift, heads, dtype=np.int32, endpoint=True),
        valid_keys=keys,
    )
    extreme = random.choice([0, 0, 0, 0, 1, c.KEY_MULTIPLIER_MAX], (heads, padded)).astype(np.uint8)
    operands.key_multiplier[extreme > 0] = extreme[extreme > 0]
    return operands


def gaussian_operands(
    seed: int,
    scores: ScoreType,
    *,
    heads: int = 1,
    rows: int = 2,
    keys: int = 300,
    spread: float = 2.0,
    fine_values: bool = False,
) -> Operands:
    """Quantised normal data whose logits have a standard deviation of `spread`: neither flat nor one-hot."""
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal((heads, n, c.HEAD_DIM)).astype(np.float32) for n in (rows, keys, keys))
    return quantise(np.float32(spread) * q, k, v, scores, fine_values=fine_values).operands


def constant_operands(
    q: int, k: int, v: int, *, keys: int, multiplier: int, shift: int, key_multiplier: int = 255
) -> Operands:
    """One row of one head, everywhere the same."""
    return Operands(
        q=np.full((1, 1, c.HEAD_DIM), q, np.int8),
        k=np.full((1, keys, c.HEAD_DIM), k, np.int8),
        v=np.full((1, keys, c.HEAD_DIM), v, np.int8),
        key_multiplier=np.full((1, keys), key_multiplier, np.uint8),
        multiplier=np.full((1, 1), multiplier, np.uint16),
        shift=np.full(1, shift, np.int32),
        valid_keys=keys,
    )


def least_sum() -> Operands:
    """One key, a little over a whole octave: with the least weight that the highest key of a row can have, 1024."""
    return constant_operands(1, 1, 5, keys=1, multiplier=1, shift=c.SHIFT_MIN, key_multiplier=128)


def two_levels(scores: ScoreType, keys: int = 4034) -> Operands:
    """All but the last two keys at one score; those lift the exponent by 29, 30 and 31, one row for each.

    By then the accumulator of 63 tiles is so large that the farthest merges still leave one unit of it.
    """
    operands = any_operands(29, rows=3, keys=keys)
    for x in (operands.q, operands.k):
        x[...] = 0
    octaves = np.array([29, 30, 31])
    operands.q[0, :, 0] = octaves * 256 // c.INT8_SCORE_STEP if scores == "int8" else 4 * octaves
    operands.multiplier[...], operands.shift[...] = (64, 6) if scores == "int8" else (256, 2)
    operands.q[0, :, 1] = 1
    operands.k[0, keys - 2 : keys, 0] = 64
    operands.k[0, keys - 1, 1] = -64
    operands.key_multiplier[0, keys - 2 : keys] = 128  # the others' scores are 0, whatever multiplies them
    operands.v[0, : keys - 2, ::2] = -128
    operands.v[0, : keys - 2, 1::2] = 127
    return operands
