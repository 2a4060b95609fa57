"""Pieces of the emulator in a processor's 512-bit integer instructions (AVX512-BW and -VNNI), for use inside numba.

Each works on `ROWS` rows and a block of 64 keys whose operands lie packed as the instructions take them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from kernels import contract as c
from kernels.emulator.vectors import (
    I16,
    I32,
    LANES,
    REGISTER,
    ROWS,
    VECTORS,
    WORDS,
    Writer,
    piece,
    processor_has,
)


def available() -> bool:
    """Whether this processor has the instructions."""
    return processor_has("avx512f", "avx512bw", "avx512vnni")


def _round_shift(w: Writer, x: Any, half: Any, shift: Any) -> Any:
    return w.b.ashr(w.b.add(x, half), shift)


def _down(w: Writer, x: Any, octaves: Any) -> Any:
    """x / 2^octaves, rounded; octaves up to 31, which leaves nothing where |x| < 2^30."""
    half = w.b.lshr(w.b.shl(w.splat(LANES, 1), octaves), w.splat(LANES, 1))
    return _round_shift(w, x, half, octaves)


def _larger(w: Writer, x: Any, y: Any) -> Any:
    return w.call("llvm.smax.v16i32", LANES, x, y)


def _smaller(w: Writer, x: Any, y: Any) -> Any:
    return w.call("llvm.smin.v16i32", LANES, x, y)


def _scores(int8: bool) -> Any:
    @piece
    def scores(
        w: Writer, q: Any, k: Any, start: Any, of_key: Any, of_row: Any, shift: Any, z: Any, tops: Any
    ) -> None:
        """Logits of `ROWS` rows and 64 keys, and each row's largest so far.

        Args:
            w: writes it.
            q: uint8 (ROWS, 64), the queries plus 128.
            k: int8 (16, 64, 4), four channels of each key together.
            start: int32 (64,), what the 128 adds to each key's sum, negative.
            of_key: int32 (64,), the keys' multipliers.
            of_row: int32 (ROWS,), the rows' multipliers.
            shift: a number.
            z: int32 (ROWS, 64), written.
            tops: int32 (ROWS, 16), raised to the largest of each lane.
        """
        b = w.b
        first = [w.load(LANES, start, v * REGISTER) for v in range(VECTORS)]
        sums = w.products(w.bytes_dot, [first] * ROWS, q, k, c.HEAD_DIM // 4, c.HEAD_DIM)
        shift = b.trunc(shift, I32)
        half = b.shl(ir.Constant(I32, 1), b.sub(shift, ir.Constant(I32, 1)))
        shift, half = w.splat(LANES, shift), w.splat(LANES, half)
        of_keys = [w.load(LANES, of_key, v * REGISTER) for v in range(VECTORS)]
        key_half, key_shift = (w.splat(LANES, n) for n in (1 << (c.KEY_SHIFT - 1), c.KEY_SHIFT))
        for r in range(ROWS):
            multiplier = w.splat(LANES, w.load(I32, of_row, 4 * r))
            top = w.load(LANES, tops, REGISTER * r)
            for v in range(VECTORS):
                x = _round_shift(w, b.mul(sums[r][v], of_keys[v]), key_half, key_shift)
                x = _round_shift(w, b.mul(x, multiplier), half, shift)
                if int8:
                    x = _larger(w, _smaller(w, x, w.splat(LANES, 127)), w.splat(LANES, -128))
                    x = b.mul(x, w.splat(LANES, c.INT8_SCORE_STEP))
                top = _larger(w, top, x)
                w.store(x, z, REGISTER * (VECTORS * r + v))
            w.store(top, tops, REGISTER * r)

    return scores


scores_int32, scores_int8 = _scores(int8=False), _scores(int8=True)


@piece
def ceilings(w: Writer, tops: Any, found: Any) -> None:
    """Each row's exponent in the units of its logits: the largest logit, rounded up to a whole octave.

    Args:
        w: writes it.
        tops: int32 (ROWS, 16).
        found: int32 (16,), written.
    """
    largest = w.splat(LANES, 0)
    for r in range(ROWS):
        top = w.call("llvm.vector.reduce.smax.v16i32", I32, w.load(LANES, tops, REGISTER * r))
        largest = w.b.insert_element(largest, top, ir.Constant(I32, r))
    mask = (1 << c.FRACTION_BITS) - 1
    up = w.b.add(largest, w.splat(LANES, mask))
    w.store(w.b.and_(up, w.splat(LANES, ~mask)), found)


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
    b = w.b
    half_register = ir.Constant(ir.VectorType(I16, 16), ir.Undefined)
    both = ir.Constant(ir.VectorType(I32, 32), list(range(32)))

    def number(n: int) -> Any:
        return w.splat(WORDS, n)

    def high(x: Any, y: Any) -> Any:
        """(x y + 2^14) >> 15, which of x = 128 f is the contract's (f y + 128) >> 8."""
        return w.call("llvm.x86.avx512.pmul.hr.sw.512", WORDS, x, y)

    c1, c2, c3 = c.EXP2_COEFFICIENTS
    for r in range(ROWS):
        ceiling = w.splat(LANES, w.load(I32, ceilings, 4 * r))
        total = w.splat(LANES, 0)
        for half in range(2):
            parts = []
            for v in (2 * half, 2 * half + 1):
                d = b.sub(ceiling, w.load(LANES, z, REGISTER * (VECTORS * r + v)))
                # 12 octaves down the weight rounds to nothing
                d = _smaller(w, d, w.splat(LANES, 12 << c.FRACTION_BITS))
                parts.append(b.trunc(d, half_register.type))
            d = b.shuffle_vector(parts[0], parts[1], both)
            octaves = b.lshr(d, number(c.FRACTION_BITS))
            f = b.shl(b.and_(d, number((1 << c.FRACTION_BITS) - 1)), number(7))
            e = high(f, number(c3))
            e = high(f, b.sub(number(c2), e))
            e = high(f, b.sub(number(c1), e))
            e = b.sub(number(c.EXP2_ONE), e)
            e = b.add(e, b.shl(number(8), octaves))
            e = b.lshr(b.lshr(e, number(4)), octaves)
            w.store(e, p, REGISTER * (2 * r + half))
            total = w.words_dot(total, e, number(1))
        total = w.call("llvm.vector.reduce.add.v16i32", I32, total)
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
    places = [[REGISTER * (VECTORS * r + i) for i in range(VECTORS)] for r in range(ROWS)]
    start = [[w.load(LANES, sums, place) for place in row] for row in places]
    found = w.products(w.words_dot, start, p, v, c.HEAD_DIM // 2, 2 * c.HEAD_DIM)
    for row, results in zip(places, found, strict=True):
        for place, result in zip(row, results, strict=True):
            w.store(result, sums, place)


@piece
def merge_sums(w: Writer, ceiling: Any, sums: Any, running: Any, totals: Any, down: Any, up: Any) -> None:
    """Merges a tile's sums of weights with those before it, all int32 (16,), a lane a row.

    Args:
        w: writes it.
        ceiling: the tile's exponent, in units of logits.
        sums: the tile's.
        running: the running exponent, raised.
        totals: the running sum, with its fraction bits.
        down: by how much the running sums have to be shifted, written; 31 leaves nothing of them.
        up: the same of the tile's.
    """
    b = w.b
    new, old = w.load(LANES, ceiling), w.load(LANES, running)
    w.store(_larger(w, new, old), running)
    merged = []
    for x, difference, place in (
        (w.load(LANES, totals), b.sub(new, old), down),
        (b.shl(w.load(LANES, sums), w.splat(LANES, c.SUM_FRACTION_BITS)), b.sub(old, new), up),
    ):
        octaves = b.ashr(difference, w.splat(LANES, c.FRACTION_BITS))
        octaves = _smaller(w, _larger(w, octaves, w.splat(LANES, 0)), w.splat(LANES, 31))
        w.store(octaves, place)
        merged.append(_down(w, x, octaves))
    w.store(b.add(*merged), totals)


@piece
def merge_values(w: Writer, sums: Any, merged: Any, down: Any, up: Any) -> None:
    """Merges a tile's weighted values into the running ones, both int32 (ROWS, 64), by the shifts of `merge_sums`."""
    for r in range(ROWS):
        of_running, of_tile = (w.splat(LANES, w.load(I32, place, 4 * r)) for place in (down, up))
        for v in range(VECTORS):
            at = REGISTER * (VECTORS * r + v)
            x = _down(w, w.load(LANES, merged, at), of_running)
            y = _down(w, w.load(LANES, sums, at), of_tile)
            w.store(w.b.add(x, y), merged, at)
