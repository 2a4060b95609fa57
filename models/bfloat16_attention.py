"""Softmax attention in bfloat16: products of bfloat16, sums, logits and softmax in float32 (AVX512-BF16).

The method is FlashAttention's (Dao et al. 2022): a block of keys at a time, the sums scaled down where a larger
logit comes. It is no part of the contract, but what attention in floating point costs where the processor has the
instructions.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir

from kernels.contract import HEAD_DIM
from kernels.emulator.vectors import (
    I32,
    LANES,
    REGISTER,
    ROWS,
    VECTORS,
    Writer,
    intrinsic,
    processor_has,
    takes,
)
from kernels.workers import Workers, WorkSpace

_BLOCK = 64  # keys
_BLOCK_BYTES = 2 * 64 * _BLOCK
_LOGIT = math.log2(math.e) / math.sqrt(HEAD_DIM)
_LOWEST = -126.0  # the least exponent of a normal float32
_NEVER = np.float32(-1e30)
_EXP2 = np.polynomial.Chebyshev.interpolate(np.exp2, 4, [0, 1]).convert(kind=np.polynomial.Polynomial).coef
"""2^x for x in 0..1, to 4e-6."""

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


class _Bfloat(ir.Type):  # type: ignore[misc]  # llvmlite has no types of its own
    """A type that llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bfloat)

    def __hash__(self) -> int:
        return hash(_Bfloat)


_FLOATS = ir.VectorType(ir.FloatType(), 16)
_HALF = ir.VectorType(_Bfloat(), 16)
_WHOLE = ir.VectorType(_Bfloat(), 32)


def available() -> bool:
    """Whether this processor has the instructions."""
    return processor_has("avx512f", "avx512bw", "avx512bf16")


class Bfloat16Attention:
    """Works on heads in any number of threads."""

    def __init__(self, workers: Workers) -> None:
        """Make one that uses `workers`."""
        self._workers = workers
        self._space = WorkSpace(_space)

    def run(
        self,
        q: npt.NDArray[np.int16],
        k: npt.NDArray[np.int16],
        v: npt.NDArray[np.int16],
        out: npt.NDArray[np.float32],
    ) -> None:
        """softmax(q k^T / 8) v, for each head.

        Args:
            q: queries, the bits of bfloat16 as int16, shape (..., rows, 64), any strides; the leading axes count heads.
            k: keys, the same, shape (..., keys, 64).
            v: values, like `k`.
            out: float32, the shape of `q`, any strides, written.
        """
        heads = list(np.ndindex(q.shape[:-2]))

        def head(h: int) -> None:
            place = heads[h]
            packed, space = self._space(-(-k.shape[-2] // _BLOCK))
            _pack(k[place], v[place], *packed)
            _attend(q[place], k.shape[-2], packed, space, out[place])

        self._workers.each(head, len(heads))


def _space(blocks: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """`_pack`'s operands, and what `_attend` works in."""
    return (
        (np.empty((blocks, 32, _BLOCK, 2), np.int16), np.empty((blocks, 32, 64, 2), np.int16)),
        (
            np.zeros((ROWS, 64), np.int16),
            np.empty((ROWS, _BLOCK), np.float32),
            np.empty((ROWS, 16), np.float32),
            np.empty((ROWS, _BLOCK), np.int16),
            np.empty((ROWS, 64), np.float32),
            np.empty((ROWS, 16), np.float32),
            np.empty(16, np.float32),
            np.empty(16, np.float32),
        ),
    )


class _FloatWriter(Writer):
    def dot(self, sums: Any, x: Any, y: Any) -> Any:
        """Adds two products of bfloat16 to each lane."""
        x, y = self.b.bitcast(x, _WHOLE), self.b.bitcast(y, _WHOLE)
        return self.call("llvm.x86.avx512bf16.dpbf16ps.512", _FLOATS, sums, x, y)

    def larger(self, x: Any, y: Any) -> Any:
        """The larger of two in each lane."""
        return self.b.select(self.b.fcmp_ordered(">", x, y), x, y)

    def exp2(self, x: Any) -> Any:
        """2^x for x of at most 0; what is under -126 counts as that."""
        x = self.larger(x, self.splat(_FLOATS, _LOWEST))
        octaves = self.call("llvm.floor.v16f32", _FLOATS, x)
        rest = self.b.fsub(x, octaves)
        y = self.splat(_FLOATS, float(np.float32(_EXP2[-1])))
        for coefficient in _EXP2[-2::-1]:
            y = self.call(
                "llvm.fma.v16f32", _FLOATS, y, rest, self.splat(_FLOATS, float(np.float32(coefficient)))
            )
        exponent = self.b.shl(self.b.fptosi(octaves, LANES), self.splat(LANES, 23))
        return self.b.bitcast(self.b.add(self.b.bitcast(y, LANES), exponent), _FLOATS)


@intrinsic
def _logits(typingctx, q, k, z, tops):  # type: ignore[no-untyped-def]
    """Base-2 logits of `ROWS` rows and 64 keys, and each row's largest, lane by lane.

    q : bfloat16 (ROWS, 64)
    k : bfloat16 (32, 64, 2), two channels of each key together
    z : float32 (ROWS, 64), written
    tops : float32 (ROWS, 16), written
    """

    def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
        w = _FloatWriter(builder)
        q, k, z, tops = values
        start = [[w.splat(_FLOATS, 0.0)] * VECTORS] * ROWS
        for r, sums in enumerate(w.products(w.dot, start, q, k, HEAD_DIM // 2, 2 * HEAD_DIM)):
            scaled = [builder.fmul(x, w.splat(_FLOATS, float(np.float32(_LOGIT)))) for x in sums]
            for v, x in enumerate(scaled):
                w.store(x, z, REGISTER * (VECTORS * r + v))
            top = w.larger(w.larger(scaled[0], scaled[1]), w.larger(scaled[2], scaled[3]))
            w.store(top, tops, REGISTER * r)
        return context.get_dummy_value()

    return takes(4), code


@intrinsic
def _weights(typingctx, z, tops, p, totals, running, keep):  # type: ignore[no-untyped-def]
    """Weights of `ROWS` rows and 64 keys against the largest logit so far.

    z, tops : as `_logits` leaves them
    p : bfloat16 (ROWS, 64), written
    totals : float32 (ROWS, 16), the sums of weights, lane by lane
    running : float32 (16,), the largest logit of each row, raised
    keep : float32 (16,), what a row's sums so far have to be multiplied by, written
    """

    def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
        w, b = _FloatWriter(builder), builder
        z, tops, p, totals, running, keep = values
        before = w.load(_FLOATS, running)
        found = before
        for r in range(ROWS):
            top = w.call(
                "llvm.vector.reduce.fmax.v16f32", ir.FloatType(), w.load(_FLOATS, tops, REGISTER * r)
            )
            found = b.insert_element(found, top, ir.Constant(I32, r))
        largest = w.larger(before, found)
        factors = w.exp2(b.fsub(before, largest))
        w.store(largest, running)
        w.store(factors, keep)
        for r in range(ROWS):
            top = w.splat(_FLOATS, b.extract_element(largest, ir.Constant(I32, r)))
            factor = w.splat(_FLOATS, b.extract_element(factors, ir.Constant(I32, r)))
            total = b.fmul(w.load(_FLOATS, totals, REGISTER * r), factor)
            for v in range(VECTORS):
                y = w.exp2(b.fsub(w.load(_FLOATS, z, REGISTER * (VECTORS * r + v)), top))
                total = b.fadd(total, y)
                bits = b.bitcast(b.fptrunc(y, _HALF), ir.VectorType(ir.IntType(16), 16))
                w.store(bits, p, REGISTER // 2 * (VECTORS * r + v))
            w.store(total, totals, REGISTER * r)
        return context.get_dummy_value()

    return takes(6), code


@intrinsic
def _add_values(typingctx, p, v, sums, keep):  # type: ignore[no-untyped-def]
    """Scales the sums (ROWS, 64) down by `keep`, and adds the values (32, 64, 2) of 64 keys, weighted."""

    def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
        w = _FloatWriter(builder)
        p, v, sums, keep = values
        start = []
        for r in range(ROWS):
            factor = w.splat(_FLOATS, w.load(ir.FloatType(), keep, 4 * r))
            row = [w.load(_FLOATS, sums, REGISTER * (VECTORS * r + i)) for i in range(VECTORS)]
            start.append([builder.fmul(x, factor) for x in row])
        for r, found in enumerate(w.products(w.dot, start, p, v, _BLOCK // 2, 2 * _BLOCK)):
            for i, x in enumerate(found):
                w.store(x, sums, REGISTER * (VECTORS * r + i))
        return context.get_dummy_value()

    return takes(4), code


@_jit
def _pack(k, v, keys, values):  # type: ignore[no-untyped-def]
    """Keys (blocks, 32, 64, 2) by pairs of channels, values (blocks, 32, 64, 2) by pairs of keys; zeros at the end."""
    for block in range(keys.shape[0]):
        for j in range(_BLOCK):
            key = block * _BLOCK + j
            if key < k.shape[0]:
                for i in range(64):
                    keys[block, i >> 1, j, i & 1] = k[key, i]
                for i in range(64):
                    values[block, j >> 1, i, j & 1] = v[key, i]
            else:
                keys[block, :, j, :] = np.int16(0)
                values[block, j >> 1, :, j & 1] = np.int16(0)


@_jit
def _attend(q, valid, packed, space, out):  # type: ignore[no-untyped-def]
    """Rows of one head; keys and values as `_pack` leaves them."""
    # All of the caller's: numba frees an array of its own after its last use by name, whoever has its address.
    keys, values = packed
    queries, logits, tops, weights, sums, totals, running, keep = space
    key_base, value_base = keys.ctypes.data, values.ctypes.data
    query_base, logit_base, top_base = queries.ctypes.data, logits.ctypes.data, tops.ctypes.data
    weight_base, sum_base, total_base = weights.ctypes.data, sums.ctypes.data, totals.ctypes.data
    running_base, keep_base = running.ctypes.data, keep.ctypes.data
    for first in range(0, q.shape[0], ROWS):
        count = min(ROWS, q.shape[0] - first)
        for r in range(count):
            for i in range(64):
                queries[r, i] = q[first + r, i]
        running[:] = _NEVER
        totals[:] = np.float32(0)
        sums[:] = np.float32(0)
        for block in range(keys.shape[0]):
            _logits(query_base, key_base + block * _BLOCK_BYTES, logit_base, top_base)
            left = valid - block * _BLOCK
            if left < _BLOCK:
                logits[:, left:] = _NEVER
                for r in range(ROWS):
                    tops[r, :] = logits[r].max()
            _weights(logit_base, top_base, weight_base, total_base, running_base, keep_base)
            _add_values(weight_base, value_base + block * _BLOCK_BYTES, sum_base, keep_base)
        for r in range(count):
            inverse = np.float32(1) / totals[r].sum()
            for i in range(64):
                out[first + r, i] = sums[r, i] * inverse
