"""Operands for the batch test: random ones, and every extreme that the contract allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from kernels import contract as c
from kernels.contract import Operands
from kernels.self_check import random_operands

ROWS = 64
"""Rows of a tile."""

Change = Callable[[Operands, np.random.Generator], Operands]


def make(kind: str, random: np.random.Generator, keys: int, width: int, tile_size: int) -> Operands:
    """Operands of one head of 64 rows.

    Args:
        kind: one of `KINDS`.
        random: what they are drawn from.
        keys: a multiple of `tile_size`; some of the last tile's are padding.
        width: columns of the values, 64 or 128.
        tile_size: keys per tile.
    """
    plain = random_operands(
        ROWS, keys, random, width=width, multipliers=(512, c.MULTIPLIER_MAX), shifts=(12, 20)
    )
    plain = replace(plain, valid_keys=int(random.integers(keys - tile_size + 1, keys + 1)))
    return _KINDS[kind](plain, random)


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
