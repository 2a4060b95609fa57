"""A head's attention by the contract in integer vector instructions, from the pieces in `vector_code`."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.compiled import Fixed, jit, later
from kernels.emulator.head import BLOCK, NEVER, Head, requantise
from kernels.emulator.registers import AVX2, AVX512, AVX_VNNI, ROWS, Registers
from kernels.workers import WorkSpace

code = later("kernels.emulator.vector_code")

_LANE_BYTES = 4 * BLOCK
_VALUE_BYTES = 2 * 64 * BLOCK
_WORD_BYTES = 2 * BLOCK
_SCORE_BYTES = _WORD_BYTES * ROWS
_SUM_BYTES = 4 * 64 * ROWS


_Space = namedtuple(
    "_Space",
    "keys start of_key values queries of_row scores tops ceilings weights sums products running totals merged down up",
)
"""What a head is packed to and worked on in, or the addresses of that; its class says for which instructions."""


class _Space512(_Space):
    registers = AVX512


class _SpaceVnni(_Space):
    registers = AVX_VNNI


class _Space256(_Space):
    registers = AVX2


_SPACES = (_Space512, _SpaceVnni, _Space256)


def attention_in(registers: Registers) -> Callable[[Head, npt.NDArray[np.int16]], None]:
    """Attention of a head into an int16 array of shape (rows, 64 or 128), by these instructions."""
    kind = next(kind for kind in _SPACES if kind.registers == registers)

    def attend(head: Head, out: npt.NDArray[np.int16]) -> None:
        _run(head, _space(kind, -(-len(head.k) // BLOCK), head.v.shape[1] // 64), out)

    return attend


def _make_space(kind: type[_Space512], blocks: int, panels: int) -> Fixed:
    """A space, and the addresses of what is in it."""
    registers = kind.registers
    query, channels = (np.uint8, 4) if registers.dot else (np.int16, 2)
    lanes = [np.zeros(registers.lanes, np.int32) for _ in range(7)]
    space = kind(
        keys=np.empty((blocks, c.HEAD_DIM // channels, BLOCK), np.int32),
        start=np.zeros((blocks, BLOCK), np.int32),
        of_key=np.empty((blocks, BLOCK), np.int16),
        values=np.empty((blocks, panels, BLOCK // 2, 64), np.int32),
        queries=np.zeros((ROWS, c.HEAD_DIM), query),
        scores=np.empty((max(c.TILE_SIZES) // BLOCK, ROWS, BLOCK), np.int16),
        tops=np.empty((ROWS, 2 * registers.lanes), np.int16),
        weights=np.empty((ROWS, BLOCK), np.int16),
        products=np.empty((panels, ROWS, 64), np.int32),
        merged=np.empty((panels, ROWS, 64), np.int32),
        **dict(zip(("of_row", "ceilings", "sums", "running", "totals", "down", "up"), lanes, strict=True)),
    )
    return Fixed(space, kind(*(array.ctypes.data for array in space)))


_space = WorkSpace(_make_space)


@jit
def _run(head, space, at, out):  # type: ignore[no-untyped-def]
    """A head, from its operands to its output."""
    _pack(head, space)
    _attend(head, space, at, out)


@jit
def _pack(head, space):  # type: ignore[no-untyped-def]
    """Keys and values as the instructions take them, with what their sums start with and are multiplied by."""
    k, v = head.k, head.v
    keys, start, of_key, values = space.keys, space.start, space.of_key, space.values
    offset, half = _offset(space), np.int32(1 << (c.SCORE_SHIFT - 1))
    for block in range(keys.shape[0]):
        first = block * BLOCK
        count = min(BLOCK, k.shape[0] - first)
        if count < BLOCK:
            keys[block], start[block], of_key[block], values[block] = 0, half, 0, 0
        for j in range(count):
            key = k[first + j]
            total = np.int32(0)
            for x in key:
                total += np.int32(x)
            start[block, j] = half - offset * total
            of_key[block, j] = np.int16(head.key_multiplier[first + j]) << np.int16(15 - c.KEY_SHIFT)
            if offset:
                for i in range(16):
                    keys[block, i, j] = _bytes(key[4 * i], key[4 * i + 1], key[4 * i + 2], key[4 * i + 3])
            else:
                for i in range(32):
                    keys[block, i, j] = _words(key[2 * i], key[2 * i + 1])
        for panel in range(values.shape[1]):
            for j in range(0, count, 2):
                for i in range(64):
                    second = v[first + j + 1, 64 * panel + i] if j + 1 < count else np.int8(0)
                    values[block, panel, j >> 1, i] = _words(v[first + j, 64 * panel + i], second)


@jit
def _words(low, high):  # type: ignore[no-untyped-def]
    """Two numbers of 8 bits as the 16-bit halves of a lane."""
    return np.int32(np.int32(low) & np.int32(0xFFFF)) | np.int32(np.int32(high) << np.int32(16))


@jit
def _bytes(a, b, c, d):  # type: ignore[no-untyped-def]
    """Four numbers of 8 bits as a lane."""
    low = np.int32(np.int32(a) & np.int32(0xFF)) | np.int32(np.int32(np.uint8(b)) << np.int32(8))
    high = np.int32(np.int32(np.uint8(c)) << np.int32(16)) | np.int32(np.int32(d) << np.int32(24))
    return low | high


@jit
def _offset(space):  # type: ignore[no-untyped-def]
    """What is added to queries, whose bytes the instructions take as unsigned."""
    return np.int32(128 if space.queries.itemsize == 1 else 0)


@jit
def _attend(head, space, at, out):  # type: ignore[no-untyped-def]
    """Rows of one head that lies packed; the pieces of code take addresses, which `at` has."""
    # The arrays are all the caller's: numba frees one of its own after its last use by name, whoever has its address.
    rows, blocks, panels = head.q.shape[0], space.keys.shape[0], space.values.shape[1]
    blocks_per_tile = head.tile_size // BLOCK
    key_bytes = _LANE_BYTES * space.keys.shape[1]
    offset = _offset(space)
    for first in range(0, rows, ROWS):
        count = min(ROWS, rows - first)
        for r in range(count):
            for i in range(64):
                space.queries[r, i] = np.int32(head.q[first + r, i]) + offset
            space.of_row[r] = np.int32(head.multiplier[first + r])
        space.running[:] = np.int32(NEVER)
        space.totals[:] = np.int32(0)
        space.merged[:] = np.int32(0)
        for begin in range(0, blocks, blocks_per_tile):
            end = min(blocks, begin + blocks_per_tile)
            space.tops[:] = np.int16(-32768)
            for b in range(begin, end):
                t = at.scores + (b - begin) * _SCORE_BYTES
                k, start = at.keys + b * key_bytes, at.start + b * _LANE_BYTES
                code.scores(at, at.queries, k, start, at.of_key + b * _WORD_BYTES, t, at.tops)
            counting = head.k.shape[0] - begin * BLOCK
            if counting < (end - begin) * BLOCK:
                _find_tops(space.scores, space.tops, counting)
            if head.int8_scores:
                code.ceilings_int8(at, at.tops, at.of_row, head.shift, at.ceilings)
            else:
                code.ceilings_int32(at, at.tops, at.of_row, head.shift, at.ceilings)
            space.sums[:] = np.int32(0)
            space.products[:] = np.int32(0)
            for b in range(begin, end):
                t = at.scores + (b - begin) * _SCORE_BYTES
                if head.int8_scores:
                    code.weights_int8(at, t, at.of_row, head.shift, at.ceilings, at.weights, at.sums)
                else:
                    code.weights_int32(at, t, at.of_row, head.shift, at.ceilings, at.weights, at.sums)
                _leave_out(space.weights, space.sums, counting - (b - begin) * BLOCK)
                for panel in range(panels):
                    v = at.values + (b * panels + panel) * _VALUE_BYTES
                    code.add_values(at, at.weights, v, at.products + panel * _SUM_BYTES)
            code.merge_sums(at, at.ceilings, at.sums, at.running, at.totals, at.down, at.up)
            for panel in range(panels):
                offset_of_panel = panel * _SUM_BYTES
                products, merged = at.products + offset_of_panel, at.merged + offset_of_panel
                code.merge_values(at, products, merged, at.down, at.up)
        for r in range(count):
            for panel in range(panels):
                columns = out[first + r, 64 * panel : 64 * panel + 64]
                requantise(space.merged[panel, r], space.totals[r], head.output_bits, columns)


@jit
def _find_tops(scores, tops, count):  # type: ignore[no-untyped-def]
    """The largest scores of a tile's first `count` keys: the others are padding."""
    tops[:] = np.int16(-32768)
    word = tops.shape[1] - 1
    for r in range(ROWS):
        for i in range(count):
            j = i % BLOCK
            tops[r, j & word] = max(tops[r, j & word], scores[i // BLOCK, r, j])


@jit
def _leave_out(weights, sums, count):  # type: ignore[no-untyped-def]
    """Takes the weights of a block's keys from `count` on out of the sums. Their values are zeros."""
    for j in range(count, BLOCK):
        for r in range(ROWS):
            sums[r] -= np.int32(weights[r, j])
