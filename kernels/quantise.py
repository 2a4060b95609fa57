"""From real queries, keys and values to the contract's integers, and back.

This step is ordinary float32 arithmetic on the host; the contract begins at the integers that it yields. Queries and
keys are rotated; then all is symmetric INT8: one scale per query row, one per key (whose mean over the tokens is taken
off first, which softmax does not see), one per channel of a head for the values. Where values matter most they get 64
more columns, which hold in INT8 what the first rounding left over.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.arrays import Reals
from kernels.compiled import Fixed, jit, later
from kernels.workers import Workers, WorkSpace

rotation = later("kernels.rotation")

_INT8_MAX = 127.0
_TINY = 1e-36  # what is smaller counts as zero: its reciprocal would not fit in float32
_LOGIT = math.log2(math.e) / math.sqrt(c.HEAD_DIM) * (1 << c.FRACTION_BITS)
"""Fixed-point base-2 logits per unit of a real dot product: log2(e) / sqrt(64), with 8 fraction bits."""


@dataclass(frozen=True)
class Quantised:
    """Operands together with what turns their output back into real numbers.

    Attributes:
        operands: the contract's integers, keys and values padded to a whole number of 256.
        value_scale: float32, shape (n, 64 or 128): the step of each value column.
    """

    operands: c.Operands
    value_scale: Reals

    def dequantise(
        self, output: npt.NDArray[np.int16], into: Reals, *, workers: Workers | None = None
    ) -> None:
        """Write the kernel's output, shape (n, rows, 64 or 128), as real numbers of shape (..., rows, 64), any strides.

        The leading axes are those of the queries; heads are shared among the workers if there are any.
        """
        step = self.value_scale / np.float32(1 << c.OUTPUT_FRACTION_BITS)
        heads = list(np.ndindex(into.shape[:-2]))

        def head(h: int) -> None:
            _dequantise(output[h], step[h], into[heads[h]])

        _each(head, len(heads), workers)


def quantise(
    q: Reals,
    k: Reals,
    v: Reals,
    scores: c.ScoreType = "int32",
    *,
    fine_values: bool = False,
    workers: Workers | None = None,
) -> Quantised:
    """Quantise the heads of a layer.

    Args:
        q: queries, float32, shape (..., rows, 64), any strides. The leading axes count heads, in C order.
        k: keys, float32, shape (..., keys, 64), any strides.
        v: values, like `k`.
        scores: the kernel that the operands are for; `int8` scores count in steps of `INT8_SCORE_STEP`.
        fine_values: give the values 64 more columns for what INT8 leaves over.
        workers: threads to share the heads among; none unless given.

    Raises:
        kernels.contract.ContractError: shapes that do not fit together, no keys or more than the contract allows,
            numbers that are not finite.
    """
    lead, rows = q.shape[:-2], q.shape[-2] if q.ndim > 1 else 0
    if q.ndim < 2 or q.shape[-1] != c.HEAD_DIM:
        raise c.ContractError(f"heads are {c.HEAD_DIM} wide: q is {q.shape}")
    if k.ndim != q.ndim or k.shape != v.shape or k.shape[:-2] != lead or k.shape[-1] != c.HEAD_DIM:
        raise c.ContractError(f"q, k and v do not fit together: {q.shape}, {k.shape}, {v.shape}")
    heads = list(np.ndindex(lead))
    keys = k.shape[-2]
    padded = -(-keys // max(c.TILE_SIZES)) * max(c.TILE_SIZES)
    if not 1 <= padded <= c.MAX_KEYS:
        raise c.ContractError(f"{keys} keys: the contract is for 1 to {c.MAX_KEYS}")
    n = len(heads)
    operands = c.Operands(
        q=np.empty((n, rows, c.HEAD_DIM), np.int8),
        k=np.empty((n, padded, c.HEAD_DIM), np.int8),
        v=np.empty((n, padded, c.HEAD_DIM * (2 if fine_values else 1)), np.int8),
        key_multiplier=np.empty((n, padded), np.uint8),
        multiplier=np.empty((n, rows), np.uint16),
        shift=np.empty(n, np.int32),
        valid_keys=keys,
    )
    value_scale = np.empty((n, operands.v.shape[2]), np.float32)
    logit = _LOGIT / c.INT8_SCORE_STEP if scores == "int8" else _LOGIT

    def head(h: int) -> None:
        # As compiled code takes them: float32, in rows that lie together.
        of_queries, of_keys, of_values = (_in_rows(x[heads[h]]) for x in (q, k, v))
        shift = _head(
            of_queries,
            of_keys,
            of_values,
            logit,
            _space(max(rows, keys)),
            operands.v[h],
            operands.k[h],
            operands.key_multiplier[h],
            operands.q[h],
            operands.multiplier[h],
            value_scale[h],
        )
        if shift < 0:
            raise c.ContractError("queries, keys or values are not finite")
        operands.shift[h] = shift

    _each(head, n, workers)
    return Quantised(operands, value_scale)


_Space = namedtuple("_Space", "rows tops mean channels integers")
"""What a head is worked on in: its rows, a number for each, and for each channel a float64, float32 and int32."""


def _make_space(rows: int) -> Fixed:
    width = c.HEAD_DIM
    return Fixed(
        _Space(
            rows=np.empty((rows, width), np.float32),
            tops=np.empty(rows, np.float32),
            mean=np.empty(width, np.float64),
            channels=np.empty(width, np.float32),
            integers=np.empty(width, np.int32),
        )
    )


_space = WorkSpace(_make_space)


def _in_rows(x: Reals) -> Reals:
    return x if x.dtype == np.float32 and x.strides[1] == x.itemsize else np.ascontiguousarray(x, np.float32)


def _each(head: Callable[[int], None], count: int, workers: Workers | None) -> None:
    if workers is None:
        for h in range(count):
            head(h)
    else:
        workers.each(head, count)


@jit
def _head(q, k, v, logit, space, v_out, k_out, key_multiplier, q_out, multiplier, value_scale):  # type: ignore[no-untyped-def]
    """One head: into its integers and steps; returns its shift, or -1 where something is not finite."""
    if not _values(v, space, v_out, value_scale):
        return -1
    unit = _keys(k, space, k_out, key_multiplier)
    if unit < 0:
        return -1
    rows, steps = space.rows, space.tops
    top = np.float32(0)
    for i in range(q.shape[0]):
        rotation.rotate(_address(q, i), _address(rows, i))
        steps[i] = _largest(rows[i]) / np.float32(_INT8_MAX)
        if not steps[i] < np.inf:
            return -1
        top = max(top, steps[i])
    key_step = np.float64(unit) * 2 ** (c.KEY_SHIFT + c.SCORE_SHIFT)
    # The largest row's multiplier uses all its bits; the shift is the head's own.
    largest = np.float64(top) * key_step * logit
    bits = math.floor(math.log2(c.MULTIPLIER_MAX / largest)) if largest > 0 else c.SHIFT_MAX
    shift = max(c.SHIFT_MIN, min(c.SHIFT_MAX, bits))
    _queries(rows[: q.shape[0]], steps, key_step * logit * 2.0**shift, multiplier, q_out)
    return shift


@jit
def _address(x, row):  # type: ignore[no-untyped-def]
    return x.ctypes.data + row * x.strides[0]


@jit
def _largest(row):  # type: ignore[no-untyped-def]
    """The largest magnitude of 64 float32; NaN or infinity if there is one.

    By their bits, which are in the same order: LLVM does not make vectors of the maximum of real numbers.
    """
    top = np.int32(0)
    bits = row.view(np.int32)
    for j in range(c.HEAD_DIM):
        top = max(top, np.int32(bits[j] & np.int32(0x7FFFFFFF)))
    return _real(top)


@jit
def _real(bits):  # type: ignore[no-untyped-def]
    return np.int32(bits).view(np.float32)


@jit
def _int8(x):  # type: ignore[no-untyped-def]
    """The nearest of -127..127."""
    return np.int8(min(max(np.rint(x), np.float32(-_INT8_MAX)), np.float32(_INT8_MAX)))


@jit
def _values(v, space, out, scale):  # type: ignore[no-untyped-def]
    """One step per channel: the largest magnitude over the keys is 127. More columns get the remainder.

    Returns whether all are finite.
    """
    keys, width = v.shape
    rows, inverse, top = space.rows, space.channels, space.integers
    for i in range(keys):
        row, source = rows[i], v[i]
        for j in range(width):
            row[j] = source[j]
    for first in range(0, out.shape[1], width):
        step = scale[first : first + width]
        top[:] = np.int32(0)  # as `_largest` has it
        for i in range(keys):
            bits = rows[i].view(np.int32)
            for j in range(width):
                top[j] = max(top[j], np.int32(bits[j] & np.int32(0x7FFFFFFF)))
        for j in range(width):
            largest = _real(top[j])
            if not largest < np.inf:
                return False
            some = largest > np.float32(_TINY)
            step[j] = largest / np.float32(_INT8_MAX) if some else np.float32(0)
            inverse[j] = np.float32(_INT8_MAX) / largest if some else np.float32(0)
        integers = out[:, first : first + width]
        for i in range(keys):
            for j in range(width):
                integers[i, j] = _int8(rows[i, j] * inverse[j])
        if first + width < out.shape[1]:
            for i in range(keys):
                for j in range(width):
                    rows[i, j] -= np.float32(integers[i, j]) * step[j]
    out[keys:] = np.int8(0)
    return True


@jit
def _keys(k, space, out, multiplier):  # type: ignore[no-untyped-def]
    """One step per key, a multiple of the head's unit, after each channel's mean is taken off.

    Returns the unit; -1 where something is not finite.
    """
    keys, width = k.shape
    rows, tops, mean, centre = space.rows, space.tops, space.mean, space.channels
    mean[:] = 0.0
    for i in range(keys):
        rotation.rotate(_address(k, i), _address(rows, i))
    # Loops of their own: LLVM makes vectors of each of them, but not of all that could be done to a row at once.
    for i in range(keys):
        for j in range(width):
            mean[j] += rows[i, j]
    for j in range(width):
        centre[j] = np.float32(mean[j] / keys)
    for i in range(keys):
        for j in range(width):
            rows[i, j] -= centre[j]
    top = np.float32(0)
    for i in range(keys):
        tops[i] = _largest(rows[i])
        if not tops[i] < np.inf:
            return np.float32(-1)
        top = max(top, tops[i])
    unit = top / np.float32(_INT8_MAX * c.KEY_MULTIPLIER_MAX)
    some = unit * np.float32(_INT8_MAX) >= np.float32(_TINY)
    for i in range(keys):
        m = min(max(np.ceil(tops[i] / (np.float32(_INT8_MAX) * unit)), 1.0), float(c.KEY_MULTIPLIER_MAX))
        multiplier[i] = np.uint8(m if some else 1)
        inverse = np.float32(1.0 / (m * unit) if some else 0)
        for j in range(width):
            out[i, j] = _int8(rows[i, j] * inverse)
    out[keys:] = np.int8(0)
    multiplier[keys:] = np.uint8(1)
    return unit if some else np.float32(0)


@jit
def _queries(q, row_step, gain, multiplier, out):  # type: ignore[no-untyped-def]
    """Widens each row's step to the next one whose multiplier is an integer, so that the multiplier is exact.

    Logits beyond what the largest multiplier can express keep their order, but not their size.
    """
    for i in range(q.shape[0]):
        m, step = 1.0, np.float64(row_step[i])
        if gain > 0:
            m = min(max(np.ceil(row_step[i] * gain), 1.0), float(c.MULTIPLIER_MAX))
            step = max(m / gain, step)
        multiplier[i] = np.uint16(m)
        inverse = np.float32(1.0 / step) if step > 0 else np.float32(0)
        for j in range(q.shape[1]):
            out[i, j] = _int8(q[i, j] * inverse)


@jit
def _dequantise(output, step, into):  # type: ignore[no-untyped-def]
    """Integers times their column's step; of 128 columns, the sum of both parts."""
    for i in range(output.shape[0]):
        row, integers = into[i], output[i]
        for j in range(c.HEAD_DIM):
            row[j] = np.float32(integers[j]) * step[j]
        if output.shape[1] > c.HEAD_DIM:
            for j in range(c.HEAD_DIM):
                row[j] += np.float32(integers[c.HEAD_DIM + j]) * step[c.HEAD_DIM + j]
