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
    intrinsic,
    processor_has,
    takes,
)


def available() -> bool:
    """Whether this processor has the instructions."""
    return processor_has("avx512f", "avx512bw", "avx512vnni")


class _IntegerWriter(Writer):
    def round_shift(self, x: Any, half: Any, shift: Any) -> Any:
        return self.b.ashr(self.b.add(x, half), shift)

    def down(self, x: Any, octaves: Any) -> Any:
        """x / 2^octaves, rounded; octaves up to 31, which leaves nothing where |x| < 2^30."""
        half = self.b.lshr(self.b.shl(self.splat(LANES, 1), octaves), self.splat(LANES, 1))
        return self.round_shift(x, half, octaves)


def _scores(
    writer: _IntegerWriter,
    int8: bool,
    q: Any,
    k: Any,
    start: Any,
    of_key: Any,
    of_row: Any,
    shift: Any,
    z: Any,
    tops: Any,
) -> None:
    b = writer.b
    first = [writer.load(LANES, start, v * REGISTER) for v in range(VECTORS)]
    sums = writer.products(writer.bytes_dot, [first] * ROWS, q, k, c.HEAD_DIM // 4, c.HEAD_DIM)
    shift = b.trunc(shift, I32)
    half = b.shl(ir.Constant(I32, 1), b.sub(shift, ir.Constant(I32, 1)))
    shift, half = writer.splat(LANES, shift), writer.splat(LANES, half)
    of_keys = [writer.load(LANES, of_key, v * REGISTER) for v in range(VECTORS)]
    key_half, key_shift = (writer.splat(LANES, n) for n in (1 << (c.KEY_SHIFT - 1), c.KEY_SHIFT))
    for r in range(ROWS):
        multiplier = writer.splat(LANES, writer.load(I32, of_row, 4 * r))
        top = writer.load(LANES, tops, REGISTER * r)
        for v in range(VECTORS):
            x = writer.round_shift(b.mul(sums[r][v], of_keys[v]), key_half, key_shift)
            x = writer.round_shift(b.mul(x, multiplier), half, shift)
            if int8:
                x = writer.call("llvm.smin.v16i32", LANES, x, writer.splat(LANES, 127))
                x = writer.call("llvm.smax.v16i32", LANES, x, writer.splat(LANES, -128))
                x = b.mul(x, writer.splat(LANES, c.INT8_SCORE_STEP))
            top = writer.call("llvm.smax.v16i32", LANES, top, x)
            writer.store(x, z, REGISTER * (VECTORS * r + v))
        writer.store(top, tops, REGISTER * r)


@intrinsic
def scores_int32(typingctx, q, k, start, of_key, of_row, shift, z, tops):  # type: ignore[no-untyped-def]
    """Logits of `ROWS` rows and 64 keys, and each row's largest so far.

    q : uint8 (ROWS, 64), the queries plus 128
    k : int8 (16, 64, 4), four channels of each key together
    start : int32 (64,), what the 128 adds to each key's sum, negative
    of_key, of_row : int32 (64,) and (ROWS,), the multipliers
    shift : a number
    z : int32 (ROWS, 64), written
    tops : int32 (ROWS, 16), raised to the largest of each lane
    """

    def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
        _scores(_IntegerWriter(builder), False, *values)
        return context.get_dummy_value()

    return takes(8), code


@intrinsic
def scores_int8(typingctx, q, k, start, of_key, of_row, shift, z, tops):  # type: ignore[no-untyped-def]
    """The same with scores held in INT8."""

    def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
        _scores(_IntegerWriter(builder), True, *values)
        return context.get_dummy_value()

    return takes(8), code


@intrinsic
def weights(typingctx, z, ceilings, p, sums):  # type: ignore[no-untyped-def]
    """Weights of `ROWS` rows and 64 keys against each row's exponent, and their sums.

    z : int32 (ROWS, 64)
    ceilings : int32 (ROWS,), the exponent in z's units
    p : int16 (ROWS, 64), written
    sums : int32 (ROWS,), added to
    """

    def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
        w, b = _IntegerWriter(builder), builder
        z, ceilings, p, sums = values
        undefined = ir.Constant(ir.VectorType(I16, 16), ir.Undefined)
        both = ir.Constant(ir.VectorType(I32, 32), list(range(32)))

        def number(n: int) -> Any:
            return w.splat(WORDS, n)

        c1, c2, c3 = c.EXP2_COEFFICIENTS
        for r in range(ROWS):
            ceiling = w.splat(LANES, w.load(I32, ceilings, 4 * r))
            total = w.splat(LANES, 0)
            for half in range(2):
                parts = []
                for v in (2 * half, 2 * half + 1):
                    d = b.sub(ceiling, w.load(LANES, z, REGISTER * (VECTORS * r + v)))
                    # 12 octaves down the weight rounds to nothing
                    d = w.call("llvm.smin.v16i32", LANES, d, w.splat(LANES, 12 << c.FRACTION_BITS))
                    parts.append(b.trunc(d, undefined.type))
                d = b.shuffle_vector(parts[0], parts[1], both)
                octaves = b.lshr(d, number(c.FRACTION_BITS))
                # (a b + 2^14) >> 15 with a = 128 f is the contract's (f b + 128) >> 8.
                f = b.shl(b.and_(d, number((1 << c.FRACTION_BITS) - 1)), number(7))
                e = _high(w, f, number(c3))
                e = _high(w, f, b.sub(number(c2), e))
                e = _high(w, f, b.sub(number(c1), e))
                e = b.sub(number(c.EXP2_ONE), e)
                e = b.add(e, b.shl(number(8), octaves))
                e = b.lshr(b.lshr(e, number(4)), octaves)
                w.store(e, p, REGISTER * (2 * r + half))
                total = w.words_dot(total, e, number(1))
            total = w.call("llvm.vector.reduce.add.v16i32", I32, total)
            w.store(b.add(w.load(I32, sums, 4 * r), total), sums, 4 * r)
        return context.get_dummy_value()

    return takes(4), code


def _high(writer: _IntegerWriter, x: Any, y: Any) -> Any:
    return writer.call("llvm.x86.avx512.pmul.hr.sw.512", WORDS, x, y)


@intrinsic
def add_values(typingctx, p, v, sums):  # type: ignore[no-untyped-def]
    """Adds the values of 64 keys, weighted, to the sums of `ROWS` rows and 64 columns.

    p : int16 (ROWS, 64)
    v : int16 (32, 64, 2), two keys of each column together
    sums : int32 (ROWS, 64)
    """

    def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
        w = _IntegerWriter(builder)
        p, v, sums = values
        places = [[REGISTER * (VECTORS * r + i) for i in range(VECTORS)] for r in range(ROWS)]
        start = [[w.load(LANES, sums, place) for place in row] for row in places]
        found = w.products(w.words_dot, start, p, v, c.HEAD_DIM // 2, 2 * c.HEAD_DIM)
        for row, results in zip(places, found, strict=True):
            for place, result in zip(row, results, strict=True):
                w.store(result, sums, place)
        return context.get_dummy_value()

    return takes(3), code


@intrinsic
def ceilings(typingctx, tops, found):  # type: ignore[no-untyped-def]
    """Each row's exponent in the units of its logits: the largest logit, rounded up to a whole octave.

    tops : int32 (ROWS, 16)
    found : int32 (16,), written
    """

    def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
        w = _IntegerWriter(builder)
        tops, found = values
        largest = w.splat(LANES, 0)
        for r in range(ROWS):
            top = w.call("llvm.vector.reduce.smax.v16i32", I32, w.load(LANES, tops, REGISTER * r))
            largest = builder.insert_element(largest, top, ir.Constant(I32, r))
        mask = (1 << c.FRACTION_BITS) - 1
        up = builder.add(largest, w.splat(LANES, mask))
        w.store(builder.and_(up, w.splat(LANES, ~mask)), found)
        return context.get_dummy_value()

    return takes(2), code


@intrinsic
def merge_sums(typingctx, ceiling, sums, running, totals, down, up):  # type: ignore[no-untyped-def]
    """Merges a tile's sums of weights with those before it, all int32 (16,), a lane a row.

    ceiling, running : the tile's exponent and the running one, in units of logits; the latter is raised
    sums, totals : the tile's and the running sum, the latter with its fraction bits
    down, up : by how much the running sums and the tile's have to be shifted, written; 31 leaves nothing of them
    """

    def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
        w, b = _IntegerWriter(builder), builder
        ceiling, sums, running, totals, down, up = values
        new, old = w.load(LANES, ceiling), w.load(LANES, running)
        w.store(w.call("llvm.smax.v16i32", LANES, new, old), running)
        merged = []
        for x, difference, place in (
            (w.load(LANES, totals), b.sub(new, old), down),
            (b.shl(w.load(LANES, sums), w.splat(LANES, c.SUM_FRACTION_BITS)), b.sub(old, new), up),
        ):
            octaves = b.ashr(difference, w.splat(LANES, c.FRACTION_BITS))
            octaves = w.call("llvm.smax.v16i32", LANES, octaves, w.splat(LANES, 0))
            octaves = w.call("llvm.smin.v16i32", LANES, octaves, w.splat(LANES, 31))
            w.store(octaves, place)
            merged.append(w.down(x, octaves))
        w.store(b.add(*merged), totals)
        return context.get_dummy_value()

    return takes(6), code


@intrinsic
def merge_values(typingctx, sums, merged, down, up):  # type: ignore[no-untyped-def]
    """Merges a tile's weighted values into the running ones, both int32 (ROWS, 64), by the shifts of `merge_sums`."""

    def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
        w = _IntegerWriter(builder)
        sums, merged, down, up = values
        for r in range(ROWS):
            of_running, of_tile = (w.splat(LANES, w.load(I32, place, 4 * r)) for place in (down, up))
            for v in range(VECTORS):
                at = REGISTER * (VECTORS * r + v)
                x = w.down(w.load(LANES, merged, at), of_running)
                y = w.down(w.load(LANES, sums, at), of_tile)
                w.store(builder.add(x, y), merged, at)
        return context.get_dummy_value()

    return takes(4), code
