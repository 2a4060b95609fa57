"""A head's attention by the contract in 512-bit integer instructions, from the pieces in `avx512_code`."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.emulator import avx512_code as code
from kernels.emulator.head import BLOCK, NEVER, Head, jit, requantise
from kernels.emulator.vectors import ROWS
from kernels.workers import WorkSpace

_LANE_BYTES = 4 * BLOCK
_KEY_BYTES = 64 * BLOCK
_VALUE_BYTES = 2 * 64 * BLOCK
_LOGIT_BYTES = 4 * BLOCK * ROWS
_SUM_BYTES = 4 * 64 * ROWS


_Space = namedtuple(
    "_Space",
    "keys start of_key values queries of_row logits tops ceilings weights sums products running totals merged down up",
)
"""What a head is packed to and worked on in, or the addresses of that."""


def _make_space(blocks: int, panels: int) -> tuple[_Space, _Space]:
    lanes = [np.zeros(16, np.int32) for _ in range(7)]
    space = _Space(
        keys=np.empty((blocks, 16, BLOCK, 4), np.int8),
        start=np.empty((blocks, BLOCK), np.int32),
        of_key=np.empty((blocks, BLOCK), np.int32),
        values=np.empty((blocks, panels, 32, 64, 2), np.int16),
        queries=np.zeros((ROWS, 64), np.uint8),
        logits=np.empty((max(c.TILE_SIZES) // BLOCK, ROWS, BLOCK), np.int32),
        tops=np.empty((ROWS, 16), np.int32),
        weights=np.empty((ROWS, BLOCK), np.int16),
        products=np.empty((panels, ROWS, 64), np.int32),
        merged=np.empty((panels, ROWS, 64), np.int32),
        **dict(zip(("of_row", "ceilings", "sums", "running", "totals", "down", "up"), lanes, strict=True)),
    )
    return space, _Space(*(array.ctypes.data for array in space))


_space = WorkSpace(_make_space)


def attend(head: Head, out: npt.NDArray[np.int16]) -> None:
    """Attention of a head into `out`, int16, shape (rows, 64 or 128)."""
    space, at = _space(-(-len(head.k) // BLOCK), head.v.shape[1] // 64)
    _pack(head, space)
    _attend(head, space, at, out)


@jit
def _pack(head, space):  # type: ignore[no-untyped-def]
    """Keys and values as the instructions take them, with what their sums start with and are multiplied by."""
    k, v = head.k, head.v
    keys, start, of_key, values = space.keys, space.start, space.of_key, space.values
    panels = values.shape[1]
    for block in range(keys.shape[0]):
        for j in range(BLOCK):
            key = block * BLOCK + j
            if key < k.shape[0]:
                total = np.int32(0)
                for i in range(64):
                    x = k[key, i]
                    keys[block, i >> 2, j, i & 3] = x
                    total += np.int32(x)
                start[block, j] = np.int32(-128) * total
                of_key[block, j] = np.int32(head.key_multiplier[key])
                for panel in range(panels):
                    for i in range(64):
                        values[block, panel, j >> 1, i, j & 1] = np.int16(v[key, panel * 64 + i])
            else:
                start[block, j] = np.int32(0)
                of_key[block, j] = np.int32(0)
                keys[block, :, j, :] = np.int8(0)
                values[block, :, j >> 1, :, j & 1] = np.int16(0)


@jit
def _attend(head, space, at, out):  # type: ignore[no-untyped-def]
    """Rows of one head that lies packed; the pieces of code take addresses, which `at` has."""
    # The arrays are all the caller's: numba frees one of its own after its last use by name, whoever has its address.
    rows, blocks, panels = head.q.shape[0], space.keys.shape[0], space.values.shape[1]
    blocks_per_tile = head.tile_size // BLOCK
    for first in range(0, rows, ROWS):
        count = min(ROWS, rows - first)
        for r in range(count):
            for i in range(64):
                space.queries[r, i] = np.uint8(head.q[first + r, i]) ^ np.uint8(128)
            space.of_row[r] = np.int32(head.multiplier[first + r])
        space.running[:] = np.int32(NEVER)
        space.totals[:] = np.int32(0)
        space.merged[:] = np.int32(0)
        for begin in range(0, blocks, blocks_per_tile):
            end = min(blocks, begin + blocks_per_tile)
            space.tops[:] = np.int32(-2147483648)
            for b in range(begin, end):
                z = at.logits + (b - begin) * _LOGIT_BYTES
                k, start = at.keys + b * _KEY_BYTES, at.start + b * _LANE_BYTES
                of_key = at.of_key + b * _LANE_BYTES
                if head.int8_scores:
                    code.scores_int8(at.queries, k, start, of_key, at.of_row, head.shift, z, at.tops)
                else:
                    code.scores_int32(at.queries, k, start, of_key, at.of_row, head.shift, z, at.tops)
            if end * BLOCK > head.k.shape[0]:
                _mask(space.logits, space.tops, head.k.shape[0] - begin * BLOCK)
            code.ceilings(at.tops, at.ceilings)
            space.sums[:] = np.int32(0)
            space.products[:] = np.int32(0)
            for b in range(begin, end):
                code.weights(at.logits + (b - begin) * _LOGIT_BYTES, at.ceilings, at.weights, at.sums)
                for panel in range(panels):
                    v = at.values + (b * panels + panel) * _VALUE_BYTES
                    code.add_values(at.weights, v, at.products + panel * _SUM_BYTES)
            code.merge_sums(at.ceilings, at.sums, at.running, at.totals, at.down, at.up)
            for panel in range(panels):
                offset = panel * _SUM_BYTES
                code.merge_values(at.products + offset, at.merged + offset, at.down, at.up)
        for r in range(count):
            for panel in range(panels):
                columns = out[first + r, 64 * panel : 64 * panel + 64]
                requantise(space.merged[panel, r], space.totals[r], head.output_bits, columns)


@jit
def _mask(logits, tops, count):  # type: ignore[no-untyped-def]
    """Makes the keys of a tile from `count` on weigh nothing, and finds the largest logits of the others."""
    tops[:] = np.int32(-2147483648)
    for b in range(-(-count // BLOCK)):
        for r in range(ROWS):
            for j in range(BLOCK):
                if b * BLOCK + j >= count:
                    logits[b, r, j] = np.int32(NEVER)
                tops[r, j & 15] = max(tops[r, j & 15], logits[b, r, j])
