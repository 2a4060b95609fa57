"""Pieces of the emulator in a processor's integer vector instructions, for use inside numba.

Each works on `ROWS` rows and a block of 64 keys whose operands lie packed as the instructions take them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from kernels import contract as c
from kernels.emulator.head import BLOCK
from kernels.emulator.registers import ROWS
from kernels.emulator.vectors import I16, I32, Writer, piece


def _down(w: Writer, x: Any, octaves: Any) -> Any:
    """x / 2^octaves, rounded; octaves up to 31, which leaves nothing where |x| < 2^30."""
    half = w.b.lshr(w.b.shl(w.splat(w.lanes, 1), octaves), w.splat(w.lanes, 1))
    return w.b.ashr(w.b.add(x, half), octaves)


def _groups(w: Writer) -> list[range]:
    """Which of a row's registers are summed up together."""
    group = w.registers.group
    return [range(first, first + group) for first in range(0, w.registers.vectors, group)]


@piece
def scores(w: Writer, q: Any, k: Any, start: Any, of_key: Any, t: Any, tops: Any) -> None:
    """Scores of `ROWS` rows and 64 keys, scaled by the keys, and each row's largest so far.

    Args:
        w: writes it.
        q: uint8 (ROWS, 64), the queries plus 128, where there are products of bytes; else int16, the queries.
        k: int8 (16, 64, 4), four channels of each key together; else int16 (32, 64, 2), two channels.
        start: int32 (64,), half of what a score is rounded to, less what 128 adds to each key's sum.
        of_key: int16 (64,), the keys' multipliers times 128.
        t: int16 (ROWS, 64), written.
        tops: int16 (ROWS, words), raised to the largest of each word.
    """
    b, size = w.b, w.registers.size
    together = 4 if w.registers.dot else 2
    dot = w.bytes_dot if w.registers.dot else w.words_dot
    score_shift = w.splat(w.lanes, c.SCORE_SHIFT)
    for group in _groups(w):
        first = [w.load(w.lanes, start, v * size) for v in group]
        columns = b.add(k, ir.Constant(k.type, group.start * size))
        sums = w.products(dot, [first] * ROWS, q, columns, c.HEAD_DIM // together, c.HEAD_DIM * 4 // together)
        halves = range(group.start // 2, group.stop // 2)
        of_keys = [w.load(w.words, of_key, half * size) for half in halves]
        for r in range(ROWS):
            top = w.load(w.words, tops, size * r)
            held = [b.ashr(x, score_shift) for x in sums[r]]
            for half, x, y, key_multiplier in zip(halves, held[::2], held[1::2], of_keys, strict=True):
                scaled = w.high(w.narrowed(x, y), key_multiplier)
                top = w.each("smax", top, scaled)
                w.store(scaled, t, size * (w.registers.vectors // 2 * r + half))
            w.store(top, tops, size * r)


def _half(w: Writer, shift: Any) -> Any:
    """Half of 2^shift, and the shift, in every lane."""
    shift = w.b.trunc(shift, I32)
    half = w.b.lshr(w.b.shl(ir.Constant(I32, 1), shift), ir.Constant(I32, 1))
    return w.splat(w.lanes, half), w.splat(w.lanes, shift)


def _ceilings(int8: bool) -> Any:
    @piece
    def ceilings(w: Writer, tops: Any, of_row: Any, shift: Any, found: Any) -> None:
        """Each row's exponent, in 1/256: the largest logit, rounded up to a whole octave.

        Args:
            w: writes it.
            tops: int16 (ROWS, words), scaled scores.
            of_row: int32 (lanes,), the rows' multipliers.
            shift: a number.
            found: int32 (lanes,), written.
        """
        b, lanes = w.b, w.lanes
        largest = w.splat(lanes, 0)
        for r in range(ROWS):
            words = w.load(w.words, tops, w.registers.size * r)
            top = w.call(f"llvm.vector.reduce.smax.v{w.words.count}i16", I16, words)
            largest = b.insert_element(largest, b.sext(top, I32), ir.Constant(I32, r))
        z = b.mul(largest, w.load(lanes, of_row))
        fraction = w.splat(lanes, c.FRACTION_BITS)
        half, shift = _half(w, shift)
        if int8:
            z = w.clamped(b.ashr(b.add(z, half), shift), -128, 127)
            z = b.mul(z, w.splat(lanes, c.INT8_SCORE_STEP))
            octave = fraction
        else:
            octave = b.add(shift, fraction)
        below = b.sub(b.shl(w.splat(lanes, 1), octave), w.splat(lanes, 1))
        w.store(b.shl(b.ashr(b.add(z, below), octave), fraction), found)

    return ceilings


ceilings_int32, ceilings_int8 = _ceilings(int8=False), _ceilings(int8=True)


_SCALES = [0, 0, 0, 0, 128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0]
"""Of 2^(11 - n) the low byte is at n, the high byte at n + 8, for n octaves of 0 to 15; from 12 on it is zero."""


def _weights(int8: bool) -> Any:
    @piece
    def weights(w: Writer, t: Any, of_row: Any, shift: Any, ceilings: Any, p: Any, sums: Any) -> None:
        """Weights of `ROWS` rows and 64 keys against each row's exponent, and their sums.

        Args:
            w: writes it.
            t: int16 (ROWS, 64), scaled scores.
            of_row: int32 (ROWS,), the rows' multipliers.
            shift: a number.
            ceilings: int32 (ROWS,), the exponent in 1/256.
            p: int16 (ROWS, 64), written.
            sums: int32 (ROWS,), added to.
        """
        b, size, vectors = w.b, w.registers.size, w.registers.vectors

        def number(n: int) -> Any:
            return w.splat(w.words, n)

        half, shift = _half(w, shift)
        c1, c2, c3 = c.EXP2_COEFFICIENTS
        for r in range(ROWS):
            ceiling, multiplier = (w.load(I32, place, 4 * r) for place in (ceilings, of_row))
            if not int8:  # what it takes off is rounded with the distance
                multiplier = b.neg(multiplier)
            multiplier = w.splat(w.lanes, multiplier)
            start = half if int8 else b.add(b.shl(w.splat(w.lanes, ceiling), shift), half)
            total = w.splat(w.lanes, 0)
            for word in range(vectors // 2):
                of_keys = w.unpacked(w.load(w.words, t, size * (vectors // 2 * r + word)))
                d = w.packed(*(b.ashr(w.words_dot(start, x, multiplier), shift) for x in of_keys))
                if int8:
                    z = b.mul(w.clamped(d, -128, 127), number(c.INT8_SCORE_STEP))
                    d = w.each("ssub.sat", w.splat(w.words, b.trunc(ceiling, I16)), z)
                f = b.and_(b.shl(d, number(7)), number(0x7F80))
                e = w.high(f, number(c3))
                e = w.high(f, b.sub(number(c2), e))
                e = w.high(f, b.sub(number(c1), e))
                e = b.sub(number(c.EXP2_ONE), e)
                # round_shift(e, n + 4) is (e 2^(11 - n) + 2^14) >> 15; n octaves are the high byte of d, to 127
                octaves = b.or_(b.lshr(d, number(8)), b.and_(d, number(0xFF00)))
                e = w.high(e, w.looked_up(_SCALES, b.add(octaves, number(0x7870))))
                w.store(e, p, size * (vectors // 2 * r + word))
                total = w.words_dot(total, e, number(1))
            total = w.call(f"llvm.vector.reduce.add.v{w.lanes.count}i32", I32, total)
            w.store(b.add(w.load(I32, sums, 4 * r), total), sums, 4 * r)

    return weights


weights_int32, weights_int8 = _weights(int8=False), _weights(int8=True)


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
    w.store(w.each("smax", new, old), running)
    merged = []
    for x, difference, place in (
        (w.load(lanes, totals), b.sub(new, old), down),
        (b.shl(w.load(lanes, sums), w.splat(lanes, c.SUM_FRACTION_BITS)), b.sub(old, new), up),
    ):
        octaves = b.ashr(difference, w.splat(lanes, c.FRACTION_BITS))
        octaves = w.clamped(octaves, 0, 31)
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
