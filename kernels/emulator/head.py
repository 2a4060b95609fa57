"""One head of a run as compiled code takes it, and what every way to compute it shares."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.compiled import jit

BLOCK = 64
"""Keys that are worked on together."""
NEVER = -(1 << 30)
"""Under every logit and exponent, and far enough that nothing is left of what it is merged with."""


class Head(NamedTuple):
    """One head, and how to compute it.

    Attributes:
        q: queries, int8, shape (rows, 64).
        k: the keys that count, int8, shape (keys, 64).
        v: their values, int8, shape (keys, 64 or 128).
        key_multiplier: uint8, shape (keys,).
        multiplier: uint16, shape (rows,).
        shift: of the head.
        int8_scores: whether scores are held in INT8.
        tile_size: keys per tile.
        output_bits: 16 or 8.
    """

    q: npt.NDArray[np.int8]
    k: npt.NDArray[np.int8]
    v: npt.NDArray[np.int8]
    key_multiplier: npt.NDArray[np.uint8]
    multiplier: npt.NDArray[np.uint16]
    shift: np.int32
    int8_scores: bool
    tile_size: int
    output_bits: int


_RECIPROCAL = 1 << c.RECIPROCAL_BITS
_OUTPUT_SHIFT_8 = c.RECIPROCAL_BITS - c.SUM_FRACTION_BITS
_OUTPUT_SHIFT_16 = _OUTPUT_SHIFT_8 - c.OUTPUT_FRACTION_BITS


@jit
def requantise(accumulator, total, output_bits, out):  # type: ignore[no-untyped-def]
    """A row's int32 sums of weighted values over its sum of weights, saturated, into `out`."""
    bits = np.int64(_OUTPUT_SHIFT_8) if output_bits == 8 else np.int64(_OUTPUT_SHIFT_16)
    limit = np.int64(1) << np.int64(output_bits - 1)
    reciprocal = np.int64(_RECIPROCAL) // np.int64(total)
    half = np.int64(1) << (bits - np.int64(1))
    for i in range(accumulator.shape[0]):
        y = (np.int64(accumulator[i]) * reciprocal + half) >> bits
        out[i] = np.int16(max(-limit, min(limit - np.int64(1), y)))
