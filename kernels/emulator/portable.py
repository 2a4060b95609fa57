"""A head's attention by the contract through float32 matrix products, for any processor.

Both products are exact in float32: a score is a sum of 64 products under 2^14, and a block of 64 keys adds 64
products of an 11-bit weight with an INT8 value, so every partial sum stays within 2^24. A block of rows
has its scores in the second-level cache.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.workers import WorkSpace

_ROWS = 128
_BLOCK = 64  # keys per exact float32 product

_C1, _C2, _C3 = c.EXP2_COEFFICIENTS
_ONE = c.EXP2_ONE
_FRACTION_BITS = c.FRACTION_BITS
_FRACTION_MASK = (1 << c.FRACTION_BITS) - 1
_SUM_FRACTION_BITS = c.SUM_FRACTION_BITS
_MERGE_SHIFT_MAX = c.MERGE_SHIFT_MAX
_RECIPROCAL = 1 << c.RECIPROCAL_BITS
_STEP = c.INT8_SCORE_STEP
_KEY_SHIFT = c.KEY_SHIFT
_KEY_HALF = 1 << (c.KEY_SHIFT - 1)
_OUTPUT_SHIFT_8 = c.RECIPROCAL_BITS - c.SUM_FRACTION_BITS
_OUTPUT_SHIFT_16 = _OUTPUT_SHIFT_8 - c.OUTPUT_FRACTION_BITS
_NEVER = -(1 << 30)

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


class FloatAttention:
    """Works on one head at a time, in any number of threads."""

    def __init__(self) -> None:
        """Make one; its work space comes with its use."""
        self._scratch = WorkSpace(_scratch)

    def head(
        self,
        operands: c.Operands,
        h: int,
        int8_scores: bool,
        tile_size: int,
        output_bits: int,
        out: npt.NDArray[np.int16],
    ) -> None:
        """Attention of head `h` into `out`, int16, shape (rows, 64 or 128)."""
        valid = operands.valid_keys
        tiles = -(-valid // tile_size)
        padded = tiles * tile_size
        width = operands.v.shape[2]
        scratch = self._scratch(padded, tiles, width)
        keys, values = scratch["keys"], scratch["values"]
        keys[:, :valid] = operands.k[h, :valid].T
        keys[:, valid:] = 0
        values[:valid] = operands.v[h, :valid]
        values[valid:] = 0
        blocks = values.reshape(padded // _BLOCK, _BLOCK, width)
        rows = operands.q.shape[1]
        for start in range(0, rows, _ROWS):
            n = min(_ROWS, rows - start)
            queries, s = scratch["queries"][:n], scratch["scores"][:n]
            queries[...] = operands.q[h, start : start + n]
            np.matmul(queries, keys, out=s)
            p = scratch["weights"][:, :n]
            _weights(
                s,
                operands.key_multiplier[h],
                operands.multiplier[h, start : start + n],
                operands.shift[h],
                valid,
                tile_size,
                int8_scores,
                scratch["logits"],
                p,
                scratch["exponents"],
                scratch["sums"],
            )
            products = scratch["products"][:, :n]
            np.matmul(p, blocks, out=products)
            _merge(
                products,
                scratch["exponents"],
                scratch["sums"],
                tile_size // _BLOCK,
                output_bits,
                scratch["accumulator"],
                out[start : start + n],
            )


def _scratch(padded: int, tiles: int, width: int) -> dict[str, npt.NDArray[Any]]:
    blocks = padded // _BLOCK
    return {
        "keys": np.empty((c.HEAD_DIM, padded), np.float32),
        "values": np.empty((padded, width), np.float32),
        "queries": np.empty((_ROWS, c.HEAD_DIM), np.float32),
        "scores": np.empty((_ROWS, padded), np.float32),
        "logits": np.empty(256, np.int32),
        "weights": np.empty((blocks, _ROWS, _BLOCK), np.float32),
        "exponents": np.empty((tiles, _ROWS), np.int32),
        "sums": np.empty((tiles, _ROWS), np.int32),
        "products": np.empty((blocks, _ROWS, width), np.float32),
        "accumulator": np.empty(width, np.int32),
    }


@_jit
def _weights(  # type: ignore[no-untyped-def]
    s, key_multiplier, multiplier, shift, valid, tile_size, int8_scores, z, p, exponents, sums
):
    """Scores (rows, keys) to weights (blocks, rows, 64), with each tile's exponent and sum (tiles, rows).

    numba widens products and shifts of 32-bit integers to 64 bits; narrowing each result at once lets LLVM keep
    them in 32-bit lanes.
    """
    rows, padded = s.shape
    i32 = np.int32
    half = i32(i32(1) << i32(shift - 1))
    blocks_per_tile = tile_size // _BLOCK
    for r in range(rows):
        m = i32(multiplier[r])
        for t in range(padded // tile_size):
            start = t * tile_size
            width = min(tile_size, valid - start)
            # Views of their own spare the loops numba's test for negative indices.
            scores, of_key = s[r, start : start + width], key_multiplier[start : start + width]
            top = i32(-2147483648)
            for j in range(width):
                x = i32(i32(scores[j]) * i32(of_key[j]))
                x = i32(i32(x + i32(_KEY_HALF)) >> i32(_KEY_SHIFT))
                x = i32(i32(i32(x * m) + half) >> shift)
                z[j] = x
                top = max(top, x)
            if int8_scores:
                top = i32(max(i32(-128), min(i32(127), top)) * i32(_STEP))
                for j in range(width):
                    z[j] = i32(max(i32(-128), min(i32(127), z[j])) * i32(_STEP))
            exponent = i32(i32(top + i32(_FRACTION_MASK)) >> i32(_FRACTION_BITS))
            ceiling = i32(exponent << i32(_FRACTION_BITS))
            total = i32(0)
            for b in range(blocks_per_tile):
                block = t * blocks_per_tile + b
                first = b * _BLOCK
                count = min(_BLOCK, max(0, width - first))
                logits, weights = z[first : first + count], p[block, r]
                for j in range(count):
                    # 12 octaves down the weight rounds to nothing
                    d = min(i32(ceiling - logits[j]), i32(12 << _FRACTION_BITS))
                    f = i32(d & i32(_FRACTION_MASK))
                    e = i32(i32(i32(f * i32(_C3)) + i32(128)) >> i32(8))
                    e = i32(i32(i32(f * i32(i32(_C2) - e)) + i32(128)) >> i32(8))
                    e = i32(i32(i32(f * i32(i32(_C1) - e)) + i32(128)) >> i32(8))
                    # A float32 is exact here, and its exponent field makes the shift: 2^-(octaves + 4)
                    scale = i32(i32(i32(123) - i32(d >> i32(_FRACTION_BITS))) << i32(23)).view(np.float32)
                    w = np.floor(np.float32(i32(_ONE) - e) * scale + np.float32(0.5))
                    total = i32(total + i32(w))
                    weights[j] = w
                for j in range(count, _BLOCK):
                    weights[j] = np.float32(0)
            exponents[t, r] = exponent
            sums[t, r] = total


@_jit
def _merge(products, exponents, sums, blocks_per_tile, output_bits, a, out):  # type: ignore[no-untyped-def]
    """Merges the tiles' products (blocks, rows, 64 or 128) and sums into the requantised rows of `out`."""
    tiles = products.shape[0] // blocks_per_tile
    bits = np.int64(_OUTPUT_SHIFT_8) if output_bits == 8 else np.int64(_OUTPUT_SHIFT_16)
    limit = np.int64(1) << np.int64(output_bits - 1)
    for r in range(products.shape[1]):
        running = np.int32(_NEVER)
        total = np.int32(0)
        for i in range(a.shape[0]):
            a[i] = np.int32(0)
        for t in range(tiles):
            exponent = exponents[t, r]
            down = min(max(exponent - running, np.int32(0)), np.int32(31))
            up = min(max(running - exponent, np.int32(0)), np.int32(31))
            running = max(running, exponent)
            tile_total = sums[t, r] << np.int32(_SUM_FRACTION_BITS)
            if down > _MERGE_SHIFT_MAX:
                total = np.int32(0)
                for i in range(a.shape[0]):
                    a[i] = np.int32(0)
            elif down > 0:
                half = np.int32(1) << (down - np.int32(1))
                total = (total + half) >> down
                for i in range(a.shape[0]):
                    a[i] = (a[i] + half) >> down
            if up > _MERGE_SHIFT_MAX:
                continue
            first = t * blocks_per_tile
            half = (np.int32(1) << up) >> np.int32(1)
            total += (tile_total + half) >> up
            if blocks_per_tile == 1:
                for i in range(a.shape[0]):
                    a[i] += (np.int32(products[first, r, i]) + half) >> up
            else:
                for i in range(a.shape[0]):
                    whole = np.int32(0)
                    for b in range(blocks_per_tile):
                        whole += np.int32(products[first + b, r, i])
                    a[i] += (whole + half) >> up
        reciprocal = np.int64(_RECIPROCAL) // np.int64(total)
        half64 = np.int64(1) << (bits - np.int64(1))
        for i in range(a.shape[0]):
            y = (np.int64(a[i]) * reciprocal + half64) >> bits
            out[r, i] = np.int16(max(-limit, min(limit - np.int64(1), y)))
