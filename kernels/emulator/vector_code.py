"""Pieces of the emulator in a processor's integer vector instructions, for use inside numba.

Each works on `ROWS` rows and a block of 64 keys whose operands lie packed as the instructions take them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from kernels import contract as c
from kernels.emulator.head import BLOCK
from kernels.emulator.vectors import I32, ROWS, Writer, piece


def _round_shift(w: Writer, x: Any, half: Any, shift: Any) -> Any:
    return w.b.ashr(w.b.add(x, half), shift)


def _down(w: Writer, x: Any, octaves: Any) -> Any:
    """x / 2^octaves, rounded; octaves up to 31, which leaves nothing where |x| < 2^30."""
    half = w.b.lshr(w.b.shl(w.splat(w.lanes, 1), octaves), w.splat(w.lanes, 1))
    return _round_shift(w, x, half, octaves)


def _groups(w: Writer) -> list[range]:
    """Which of a row's registers are summed up together."""
    group = w.registers.group
    return [range(first, first + group) for first in range(0, w.registers.vectors, group)]


def _scores(int8: bool) -> Any:
    @piece
    def scores(
        w: Writer, q: Any, k: Any, start: Any, of_key: Any, of_row: Any, shift: Any, z: Any, tops: Any
    ) -> None:
        """Logits of `ROWS` rows and 64 keys, and each row's largest so far.

        Args:
            w: writes it.
            q: uint8 (ROWS, 64), the queries plus 128, where there are products of bytes; else int16, the queries.
            k: int8 (16, 64, 4), four channels of each key together; else int16 (32, 64, 2), two channels.
            start: int32 (64,), what 128 adds to each key's sum, negative; else zeros.
            of_key: int32 (64,), the keys' multipliers.
            of_row: int32 (ROWS,), the rows' multipliers.
            shift: a number.
            z: int32 (ROWS, 64), written.
            tops: int32 (ROWS, lanes), raised to the largest of each lane.
        """
        b, lanes, size = w.b, w.lanes, w.registers.size
        together = 4 if w.registers.dot else 2
        dot = w.bytes_dot if w.registers.dot else w.words_dot
        row = c.HEAD_DIM * 4 // together
        shift = b.trunc(shift, I32)
        half = b.shl(ir.Constant(I32, 1), b.sub(shift, ir.Constant(I32, 1)))
        shift, half = w.splat(lanes, shift), w.splat(lanes, half)
        key_half, key_shift = (w.splat(lanes, n) for n in (1 << (c.KEY_SHIFT - 1), c.KEY_SHIFT))
        for group in _groups(w):
            first = [w.load(lanes, start, v * size) for v in group]
            columns = b.add(k, ir.Constant(k.type, group.start * size))
            sums = w.products(dot, [first] * ROWS, q, columns, c.HEAD_DIM // together, row)
            of_keys = [w.load(lanes, of_key, v * size) for v in group]
            for r in range(ROWS):
                multiplier = w.splat(lanes, w.load(I32, of_row, 4 * r))
                top = w.load(lanes, tops, size * r)
                for v, x, key_multiplier in zip(group, sums[r], of_keys, strict=True):
                    x = _round_shift(w, b.mul(x, key_multiplier), key_half, key_shift)
                    x = _round_shift(w, b.mul(x, multiplier), half, shift)
                    if int8:
                        x = w.larger(w.smaller(x, w.splat(lanes, 127)), w.splat(lanes, -128))
                        x = b.mul(x, w.splat(lanes, c.INT8_SCORE_STEP))
                    top = w.larger(top, x)
                    w.store(x, z, size * (w.registers.vectors * r + v))
                w.store(top, tops, size * r)

    return scores


scores_int32, scores_int8 = _scores(int8=False), _scores(int8=True)


@piece
def ceilings(w: Writer, tops: Any, found: Any) -> None:
    """Each row's exponent in the units of its logits: the largest logit, rounded up to a whole octave.

    Args:
        w: writes it.
        tops: int32 (ROWS, lanes).
        found: int32 (lanes,), written.
    """
    largest = w.splat(w.lanes, 0)
    for r in range(ROWS):
        of_row = w.load(w.lanes, tops, w.registers.size * r)
        top = w.call(f"llvm.vector.reduce.smax.v{w.lanes.count}i32", I32, of_row)
        largest = w.b.insert_element(largest, top, ir.Constant(I32, r))
    mask = (1 << c.FRACTION_BITS) - 1
    up = w.b.add(largest, w.splat(w.lanes, mask))
    w.store(w.b.and_(up, w.splat(w.lanes, ~mask)), found)


_SCALES = [0, 0, 0, 0, 128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0]
"""Of 2^(11 - n) the low byte is at n, the high byte at n + 8, for n octaves of 0 to 15; from 12 on it is zero."""


@piece
def weights(w: Writer, z: Any, ceilings: Any, p: Any, sums: Any) -> None:
    """Weights of `ROWS` rows and 64 keys against each row's exponent, and their sums.

    Args:
        w: writes it.
        z: int32 (ROWS, 64).
        ceilings: int32 (ROWS,), the exponent in z's units.
        p: int16 (ROWS, 64), written.
        sums: int32 (ROWS,), added to.
    """
    b, size, vectors = w.b, w.registers.size, w.registers.vectors

    def number(n: int) -> Any:
        return w.splat(w.words, n)

    c1, c2, c3 = c.EXP2_COEFFICIENTS
    for r in range(ROWS):
        ceiling = w.splat(w.lanes, w.load(I32, ceilings, 4 * r))
        total = w.splat(w.lanes, 0)
        for half in range(vectors // 2):
            d = w.narrowed(
                *(
                    b.sub(ceiling, w.load(w.lanes, z, size * (vectors * r + v)))
                    for v in (2 * half, 2 * half + 1)
                )
            )
            f = b.and_(b.shl(d, number(7)), number(0x7F80))
            e = w.high(f, number(c3))
            e = w.high(f, b.sub(number(c2), e))
            e = w.high(f, b.sub(number(c1), e))
            e = b.sub(number(c.EXP2_ONE), e)
            # round_shift(e, octaves + 4) is (e 2^(11 - octaves) + 2^14) >> 15; octaves are the high byte of d, to 127
            octaves = b.or_(b.lshr(d, number(8)), b.and_(d, number(0xFF00)))
            e = w.high(e, w.looked_up(_SCALES, b.add(octaves, number(0x7870))))
            w.store(e, p, size * (vectors // 2 * r + half))
            total = w.words_dot(total, e, number(1))
        total = w.call(f"llvm.vector.reduce.add.v{w.lanes.count}i32", I32, total)
        w.store(b.add(w.load(I32, sums, 4 * r), total), sums, 4 * r)


@piece
def add_values(w: Writer, p: Any, v: Any, sums: Any) -> None:
    """Adds the values of 64 keys, weighted, to the sums of `ROWS` rows and 64 columns.

    Args:
        w: writes it.
        p: int16 (ROWS, 64).
        v: int16 (32, 64, 2), two keys of each column together.
        sums: int32 (ROWS, 64).
    """
    size, vectors = w.registers.size, w.registers.vectors
    for group in _groups(w):
        places = [[size * (vectors * r + i) for i in group] for r in range(ROWS)]
        start = [[w.load(w.lanes, sums, place) for place in row] for row in places]
        columns = w.b.add(v, ir.Constant(v.type, group.start * size))
        found = w.products(w.words_dot, start, p, columns, BLOCK // 2, 2 * BLOCK)
        for row, results in zip(places, found, strict=True):
            for place, result in zip(row, results, strict=True):
                w.store(result, sums, place)


@piece
def merge_sums(w: Writer, ceiling: Any, sums: Any, running: Any, totals: Any, down: Any, up: Any) -> None:
    """Merges a tile's sums of weights with those before it, all int32 (lanes,), a lane a row.

    Args:
        w: writes it.
        ceiling: the tile's exponent, in units of logits.
        sums: the tile's.
        running: the running exponent, raised.
        totals: the running sum, with its fraction bits.
        down: by how much the running sums have to be shifted, written; 31 leaves nothing of them.
        up: the same of the tile's.
    """
    b, lanes = w.b, w.lanes
    new, old = w.load(lanes, ceiling), w.load(lanes, running)
    w.store(w.larger(new, old), running)
    merged = []
    for x, difference, place in (
        (w.load(lanes, totals), b.sub(new, old), down),
        (b.shl(w.load(lanes, sums), w.splat(lanes, c.SUM_FRACTION_BITS)), b.sub(old, new), up),
    ):
        octaves = b.ashr(difference, w.splat(lanes, c.FRACTION_BITS))
        octaves = w.smaller(w.larger(octaves, w.splat(lanes, 0)), w.splat(lanes, 31))
        w.store(octaves, place)
        merged.append(_down(w, x, octaves))
    w.store(b.add(*merged), totals)


@piece
def merge_values(w: Writer, sums: Any, merged: Any, down: Any, up: Any) -> None:
    """Merges a tile's weighted values into the running ones, both int32 (ROWS, 64), by the shifts of `merge_sums`."""
    for r in range(ROWS):
        of_running, of_tile = (w.splat(w.lanes, w.load(I32, place, 4 * r)) for place in (down, up))
        for v in range(w.registers.vectors):
            at = w.registers.size * (w.registers.vectors * r + v)
            x = _down(w, w.load(w.lanes, merged, at), of_running)
            y = _down(w, w.load(w.lanes, sums, at), of_tile)
            w.store(w.b.add(x, y), merged, at)
