"""A head's attention by the contract through float32 matrix products, for any processor.

Both products are exact in float32: a score is a sum of 64 products under 2^14, and a block of 64 keys adds 64
products of an 11-bit weight with an INT8 value, so every partial sum stays within 2^24. A block of rows
has its scores in the second-level cache.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.compiled import jit
from kernels.emulator.head import BLOCK, NEVER, Head, requantise
from kernels.workers import WorkSpace

_ROWS = 128
_MASK = (1 << c.FRACTION_BITS) - 1
_Space = namedtuple("_Space", "keys values scores scaled weights exponents sums products accumulators")


def _make_space(tiles: int, tile_size: int, width: int) -> _Space:
    padded = tiles * tile_size
    blocks = padded // BLOCK
    return _Space(
        keys=np.empty((c.HEAD_DIM, padded), np.float32),
        values=np.empty((blocks, BLOCK, width), np.float32),
        scores=np.empty((_ROWS, padded), np.float32),
        scaled=np.empty(tile_size, np.int32),
        weights=np.empty((blocks, _ROWS, BLOCK), np.float32),
        exponents=np.empty((tiles, _ROWS), np.int32),
        sums=np.empty((tiles, _ROWS), np.int32),
        products=np.empty((blocks, _ROWS, width), np.float32),
        accumulators=np.empty((2, width), np.int32),
    )


_space = WorkSpace(_make_space)


def attend(head: Head, out: npt.NDArray[np.int16]) -> None:
    """Attention of a head into `out`, int16, shape (rows, 64 or 128)."""
    valid, width = head.v.shape
    space = _space(-(-valid // head.tile_size), head.tile_size, width)
    space.keys[:, :valid] = head.k.T
    space.keys[:, valid:] = 0
    values = space.values.reshape(-1, width)
    values[:valid] = head.v
    values[valid:] = 0
    for start in range(0, len(head.q), _ROWS):
        rows = slice(start, start + _ROWS)
        part = head._replace(q=head.q[rows], multiplier=head.multiplier[rows])
        n = len(part.q)
        scores = np.matmul(part.q.astype(np.float32), space.keys, out=space.scores[:n])
        weights = space.weights[:, :n]
        _weights(part, scores, space.scaled, weights, space.exponents, space.sums)
        products = np.matmul(weights, space.values, out=space.products[:, :n])
        _merge(part, products, space.exponents, space.sums, space.accumulators, out[rows])


@jit
def _weights(head, s, scaled, p, exponents, sums):  # type: ignore[no-untyped-def]
    """Scores (rows, keys) to weights (blocks, rows, 64), with each tile's exponent and sum (tiles, rows).

    numba widens products and shifts of 32-bit integers to 64 bits; narrowing each result at once lets LLVM keep
    them in 32-bit lanes.
    """
    i32 = np.int32
    c1, c2, c3 = c.EXP2_COEFFICIENTS
    tile_size, valid, shift = head.tile_size, head.k.shape[0], head.shift
    half = i32(i32(1) << i32(shift - 1))
    octave = i32(c.FRACTION_BITS) if head.int8_scores else i32(shift + c.FRACTION_BITS)
    blocks_per_tile = tile_size // BLOCK
    for r in range(s.shape[0]):
        m = i32(head.multiplier[r])
        for t in range(s.shape[1] // tile_size):
            start = t * tile_size
            width = min(tile_size, valid - start)
            # Views of their own spare the loops numba's test for negative indices.
            scores, of_key = s[r, start : start + width], head.key_multiplier[start : start + width]
            top = i32(-2147483648)
            for j in range(width):
                x = i32(i32(i32(scores[j]) + i32(1 << (c.SCORE_SHIFT - 1))) >> i32(c.SCORE_SHIFT))
                x = i32(min(x, i32(32767)) * i32(of_key[j]))
                x = i32(i32(x + i32(1 << (c.KEY_SHIFT - 1))) >> i32(c.KEY_SHIFT))
                scaled[j] = i32(x * m)
                top = max(top, scaled[j])
            if head.int8_scores:
                top = _int8_logit(top, half, shift)
                for j in range(width):
                    scaled[j] = _int8_logit(scaled[j], half, shift)
            exponent = i32(i32(top + i32(i32(i32(1) << octave) - i32(1))) >> octave)
            ceiling = i32(exponent << octave)
            total = i32(0)
            for b in range(blocks_per_tile):
                first = b * BLOCK
                count = min(BLOCK, max(0, width - first))
                logits, weights = scaled[first : first + count], p[t * blocks_per_tile + b, r]
                for j in range(count):
                    # 12 octaves down the weight rounds to nothing
                    d = i32(ceiling - logits[j])
                    if not head.int8_scores:
                        d = i32(i32(d + half) >> shift)
                    d = min(d, i32(12 << c.FRACTION_BITS))
                    f = i32(d & i32(_MASK))
                    e = i32(i32(i32(f * i32(c3)) + i32(128)) >> i32(8))
                    e = i32(i32(i32(f * i32(i32(c2) - e)) + i32(128)) >> i32(8))
                    e = i32(i32(i32(f * i32(i32(c1) - e)) + i32(128)) >> i32(8))
                    # A float32 is exact here, and its exponent field makes the shift: 2^-(octaves + 4)
                    scale = i32(i32(i32(123) - i32(d >> i32(c.FRACTION_BITS))) << i32(23)).view(np.float32)
                    w = np.floor(np.float32(i32(c.EXP2_ONE) - e) * scale + np.float32(0.5))
                    total = i32(total + i32(w))
                    weights[j] = w
                for j in range(count, BLOCK):
                    weights[j] = np.float32(0)
            exponents[t, r] = exponent
            sums[t, r] = total


@jit
def _int8_logit(z, half, shift):  # type: ignore[no-untyped-def]
    score = np.int32(np.int32(z + half) >> shift)
    return np.int32(max(np.int32(-128), min(np.int32(127), score)) * np.int32(c.INT8_SCORE_STEP))


@jit
def _down(x, octaves):  # type: ignore[no-untyped-def]
    """x / 2^octaves, rounded; octaves up to 31, which leaves nothing where |x| < 2^30."""
    half = np.int32((np.uint32(1) << np.uint32(octaves)) >> np.uint32(1))
    return np.int32(np.int32(x + half) >> octaves)


@jit
def _merge(head, products, exponents, sums, accumulators, out):  # type: ignore[no-untyped-def]
    """Merges the tiles' products (blocks, rows, 64 or 128) and sums into the requantised rows of `out`."""
    a, tile = accumulators[0], accumulators[1]
    blocks_per_tile = head.tile_size // BLOCK
    tiles = products.shape[0] // blocks_per_tile
    for r in range(products.shape[1]):
        running = np.int32(NEVER)
        total = np.int32(0)
        for i in range(a.shape[0]):
            a[i] = np.int32(0)
        for t in range(tiles):
            difference = np.int32(exponents[t, r] - running)
            down = min(max(difference, np.int32(0)), np.int32(31))
            up = min(max(np.int32(-difference), np.int32(0)), np.int32(31))
            running = max(running, exponents[t, r])
            tile_total = np.int32(sums[t, r] << np.int32(c.SUM_FRACTION_BITS))
            total = np.int32(_down(total, down) + _down(tile_total, up))
            first = t * blocks_per_tile
            for i in range(a.shape[0]):
                tile[i] = np.int32(products[first, r, i])
            for b in range(first + 1, first + blocks_per_tile):
                for i in range(a.shape[0]):
                    tile[i] += np.int32(products[b, r, i])
            for i in range(a.shape[0]):
                a[i] = _down(a[i], down) + _down(tile[i], up)
        requantise(a, total, head.output_bits, out[r])
