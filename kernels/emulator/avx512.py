"""A head's attention by the contract in 512-bit integer instructions, from the pieces in `avx512_code`."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.emulator import avx512_code as code
from kernels.emulator.vectors import ROWS as _ROWS
from kernels.workers import WorkSpace

_BLOCK = 64
_NEVER = -(1 << 30)
_LANE_BYTES = 4 * _BLOCK
_KEY_BYTES = 64 * _BLOCK
_VALUE_BYTES = 2 * 64 * _BLOCK
_LOGIT_BYTES = 4 * _BLOCK * _ROWS
_SUM_BYTES = 4 * 64 * _ROWS
_RECIPROCAL = 1 << c.RECIPROCAL_BITS
_OUTPUT_SHIFT_8 = c.RECIPROCAL_BITS - c.SUM_FRACTION_BITS
_OUTPUT_SHIFT_16 = _OUTPUT_SHIFT_8 - c.OUTPUT_FRACTION_BITS

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


class VectorAttention:
    """Works on one head at a time, in any number of threads."""

    def __init__(self) -> None:
        """Make one; its work space comes with its use."""
        self._space = WorkSpace(_space)

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
        panels = operands.v.shape[2] // 64
        packed, space = self._space(-(-valid // _BLOCK), panels)
        _pack(operands.k[h], operands.v[h], operands.key_multiplier[h], valid, *packed)
        _attend(
            operands.q[h],
            operands.multiplier[h],
            operands.shift[h],
            valid,
            tile_size,
            int8_scores,
            output_bits,
            packed,
            space,
            out,
        )


def _space(blocks: int, panels: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """`_pack`'s operands, and what `_attend` works in."""
    return (
        (
            np.empty((blocks, 16, _BLOCK, 4), np.int8),
            np.empty((blocks, _BLOCK), np.int32),
            np.empty((blocks, _BLOCK), np.int32),
            np.empty((blocks, panels, 32, 64, 2), np.int16),
        ),
        (
            np.zeros((_ROWS, 64), np.uint8),
            np.empty((max(c.TILE_SIZES) // _BLOCK, _ROWS, _BLOCK), np.int32),
            np.empty((_ROWS, _BLOCK), np.int16),
            np.empty((_ROWS, 16), np.int32),
            np.empty((panels, _ROWS, 64), np.int32),
            np.empty((panels, _ROWS, 64), np.int32),
            *(np.zeros(16, np.int32) for _ in range(7)),
        ),
    )


@_jit
def _pack(k, v, key_multiplier, valid, keys, start, of_key, values):  # type: ignore[no-untyped-def]
    """Keys and values as the instructions take them.

    keys : int8 (blocks, 16, 64, 4)
    start, of_key : int32 (blocks, 64)
    values : int16 (blocks, panels, 32, 64, 2)
    """
    panels = values.shape[1]
    for block in range(keys.shape[0]):
        for j in range(_BLOCK):
            key = block * _BLOCK + j
            if key < valid:
                total = np.int32(0)
                for i in range(64):
                    x = k[key, i]
                    keys[block, i >> 2, j, i & 3] = x
                    total += np.int32(x)
                start[block, j] = np.int32(-128) * total
                of_key[block, j] = np.int32(key_multiplier[key])
                for panel in range(panels):
                    for i in range(64):
                        values[block, panel, j >> 1, i, j & 1] = np.int16(v[key, panel * 64 + i])
            else:
                start[block, j] = np.int32(0)
                of_key[block, j] = np.int32(0)
                keys[block, :, j, :] = np.int8(0)
                values[block, :, j >> 1, :, j & 1] = np.int16(0)


@_jit
def _attend(  # type: ignore[no-untyped-def]
    q, multiplier, shift, valid, tile_size, int8_scores, output_bits, packed, space, out
):
    """Rows of one head; keys and values as `_pack` leaves them."""
    # All of the caller's: numba frees an array of its own after its last use by name, whoever has its address.
    keys, start, of_key, values = packed
    queries, logits, weights, tops, products, merged = space[:6]
    of_row, ceilings, sums, running, totals, down, up = space[6:]
    rows, blocks, panels = q.shape[0], keys.shape[0], values.shape[1]
    blocks_per_tile = tile_size // _BLOCK
    # Views would count references, which takes as long as a merge.
    key_base, start_base, of_key_base = keys.ctypes.data, start.ctypes.data, of_key.ctypes.data
    value_base, logit_base, weight_base = values.ctypes.data, logits.ctypes.data, weights.ctypes.data
    top_base, product_base, merged_base = tops.ctypes.data, products.ctypes.data, merged.ctypes.data
    query_base, row_base, ceiling_base, sum_base = (
        queries.ctypes.data,
        of_row.ctypes.data,
        ceilings.ctypes.data,
        sums.ctypes.data,
    )
    running_base, total_base, down_base, up_base = (
        running.ctypes.data,
        totals.ctypes.data,
        down.ctypes.data,
        up.ctypes.data,
    )
    for first in range(0, rows, _ROWS):
        count = min(_ROWS, rows - first)
        for r in range(count):
            for i in range(64):
                queries[r, i] = np.uint8(q[first + r, i]) ^ np.uint8(128)
            of_row[r] = np.int32(multiplier[first + r])
        running[:] = np.int32(_NEVER)
        totals[:] = np.int32(0)
        merged[:] = np.int32(0)
        for begin in range(0, blocks, blocks_per_tile):
            end = min(blocks, begin + blocks_per_tile)
            tops[:] = np.int32(-2147483648)
            for b in range(begin, end):
                z = logit_base + (b - begin) * _LOGIT_BYTES
                k, s, m = (
                    key_base + b * _KEY_BYTES,
                    start_base + b * _LANE_BYTES,
                    of_key_base + b * _LANE_BYTES,
                )
                if int8_scores:
                    code.scores_int8(query_base, k, s, m, row_base, shift, z, top_base)
                else:
                    code.scores_int32(query_base, k, s, m, row_base, shift, z, top_base)
            if end * _BLOCK > valid:
                _mask(logits, tops, valid - begin * _BLOCK)
            code.ceilings(top_base, ceiling_base)
            sums[:] = np.int32(0)
            products[:] = np.int32(0)
            for b in range(begin, end):
                code.weights(logit_base + (b - begin) * _LOGIT_BYTES, ceiling_base, weight_base, sum_base)
                for panel in range(panels):
                    v = value_base + (b * panels + panel) * _VALUE_BYTES
                    code.add_values(weight_base, v, product_base + panel * _SUM_BYTES)
            code.merge_sums(ceiling_base, sum_base, running_base, total_base, down_base, up_base)
            for panel in range(panels):
                at = panel * _SUM_BYTES
                code.merge_values(product_base + at, merged_base + at, down_base, up_base)
        for r in range(count):
            _requantise(merged, totals[r], r, output_bits, out[first + r])


@_jit
def _mask(logits, tops, count):  # type: ignore[no-untyped-def]
    """Makes the keys of a tile from `count` on weigh nothing, and finds the largest logits of the others."""
    tops[:] = np.int32(-2147483648)
    for b in range(-(-count // _BLOCK)):
        for r in range(_ROWS):
            for j in range(_BLOCK):
                if b * _BLOCK + j >= count:
                    logits[b, r, j] = np.int32(_NEVER)
                tops[r, j & 15] = max(tops[r, j & 15], logits[b, r, j])


@_jit
def _requantise(merged, total, r, output_bits, out):  # type: ignore[no-untyped-def]
    bits = np.int64(_OUTPUT_SHIFT_8) if output_bits == 8 else np.int64(_OUTPUT_SHIFT_16)
    limit = np.int64(1) << np.int64(output_bits - 1)
    reciprocal = np.int64(_RECIPROCAL) // np.int64(total)
    half = np.int64(1) << (bits - np.int64(1))
    for panel in range(merged.shape[0]):
        a = merged[panel, r]
        for i in range(64):
            y = (np.int64(a[i]) * reciprocal + half) >> bits
            out[panel * 64 + i] = np.int16(max(-limit, min(limit - np.int64(1), y)))
