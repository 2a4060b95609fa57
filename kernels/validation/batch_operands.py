"""Operands for the batch test: random ones, and every extreme that the contract allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.contract import Operands

ROWS = 64
"""Rows of a tile."""


def make(kind: str, random: np.random.Generator, keys: int, width: int, tile_size: int) -> Operands:
    """Operands of one head of 64 rows.

    Args:
        kind: one of `KINDS`.
        random: what they are drawn from.
        keys: a multiple of `tile_size`; some of the last tile's are padding.
        width: columns of the values, 64 or 128.
        tile_size: keys per tile.
    """

    def int8(*shape: int) -> npt.NDArray[np.int8]:
        return random.integers(-128, 128, shape).astype(np.int8)

    plain = Operands(
        q=int8(1, ROWS, c.HEAD_DIM),
        k=int8(1, keys, c.HEAD_DIM),
        v=int8(1, keys, width),
        key_multiplier=random.integers(1, c.KEY_MULTIPLIER_MAX + 1, (1, keys)).astype(np.uint8),
        multiplier=random.integers(512, c.MULTIPLIER_MAX + 1, (1, ROWS)).astype(np.uint16),
        shift=random.integers(12, 21, 1).astype(np.int32),
        valid_keys=int(random.integers(keys - tile_size + 1, keys + 1)),
    )
    return _EXTREMES[kind](plain, random)


def _flat(queries: int, keys: int) -> Callable[[Operands, np.random.Generator], Operands]:
    """Queries and values of one number, keys of another."""

    def change(plain: Operands, _: np.random.Generator) -> Operands:
        q, k, v = (np.full_like(x, n) for x, n in ((plain.q, queries), (plain.k, keys), (plain.v, queries)))
        return replace(plain, q=q, k=k, v=v)

    return change


def _steep(plain: Operands, _: np.random.Generator) -> Operands:
    return replace(
        plain,
        multiplier=np.full_like(plain.multiplier, c.MULTIPLIER_MAX),
        key_multiplier=np.full_like(plain.key_multiplier, c.KEY_MULTIPLIER_MAX),
        shift=np.full_like(plain.shift, c.SHIFT_MIN),
    )


def _level(plain: Operands, _: np.random.Generator) -> Operands:
    return replace(
        plain,
        multiplier=np.ones_like(plain.multiplier),
        key_multiplier=np.ones_like(plain.key_multiplier),
        shift=np.full_like(plain.shift, c.SHIFT_MAX),
    )


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


def _zeros(plain: Operands, _: np.random.Generator) -> Operands:
    return replace(plain, q=np.zeros_like(plain.q), k=np.zeros_like(plain.k))


_EXTREMES: dict[str, Callable[[Operands, np.random.Generator], Operands]] = {
    "random": lambda plain, _: plain,
    "all -128": _flat(-128, -128),
    "random, any multiplier and shift": _any_factor,
    "all 127": _flat(127, 127),
    "only -128 and 127": _only_ends,
    "127 against -128": _flat(127, -128),
    "random, largest multipliers, least shift": _steep,
    "random, least multipliers, largest shift": _level,
    "one valid key": lambda plain, _: replace(plain, valid_keys=1),
    "keys that grow or shrink": _drifting,
    "zeros": _zeros,
}
KINDS = tuple(_EXTREMES)
