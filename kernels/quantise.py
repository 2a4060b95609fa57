"""From real queries, keys and values to the contract's integers, and back.

This step is ordinary float32 arithmetic on the host; the contract begins at the integers that it yields. Queries and
keys are rotated; then all is symmetric INT8: one scale per query row, one per key (whose mean over the tokens is taken
off first, which softmax does not see), one per channel of a head for the values. Where values matter most they get 64
more columns, which hold in INT8 what the first rounding left over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.compiled import jit
from kernels.workers import Workers

Reals = npt.NDArray[np.float32]

_INT8_MAX = 127.0
_TINY = 1e-36  # what is smaller counts as zero: its reciprocal would not fit in float32
_LOGIT = math.log2(math.e) / math.sqrt(c.HEAD_DIM) * (1 << c.FRACTION_BITS)
"""Fixed-point base-2 logits per unit of a real dot product: log2(e) / sqrt(64), with 8 fraction bits."""


def hadamard() -> Reals:
    """The orthonormal 64-point Hadamard matrix (Sylvester's construction), float32, shape (64, 64).

    Rotating queries and keys alike leaves every dot product as it is and spreads outlying channels over all 64, so
    that INT8 wastes less of its range (QuaRot, Ashkboos et al. 2024). The rotation can be folded into the weights of
    the projections that make queries and keys.
    """
    h = np.ones((1, 1))
    while len(h) < c.HEAD_DIM:
        h = np.block([[h, h], [h, -h]])
    return (h / math.sqrt(c.HEAD_DIM)).astype(np.float32)


_HADAMARD = hadamard()


@dataclass(frozen=True)
class Quantised:
    """Operands together with what turns their output back into real numbers.

    Attributes:
        operands: the contract's integers, keys and values padded to a whole number of 256.
        value_scale: float32, shape (n, 64 or 128): the step of each value column.
    """

    operands: c.Operands
    value_scale: npt.NDArray[np.float32]

    def dequantise(
        self, output: npt.NDArray[np.int16], into: Reals, *, workers: Workers | None = None
    ) -> None:
        """Write the kernel's output, shape (n, rows, 64 or 128), as real numbers of shape (..., rows, 64), any strides.

        The leading axes are those of the queries; heads are shared among the workers if there are any.
        """
        step = self.value_scale / np.float32(1 << c.OUTPUT_FRACTION_BITS)
        heads = list(np.ndindex(into.shape[:-2]))

        def head(h: int) -> None:
            place = into[heads[h]]
            np.multiply(output[h, :, : c.HEAD_DIM], step[h, : c.HEAD_DIM], out=place)
            if output.shape[2] > c.HEAD_DIM:
                place += output[h, :, c.HEAD_DIM :] * step[h, c.HEAD_DIM :]

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
        k=np.zeros((n, padded, c.HEAD_DIM), np.int8),
        v=np.zeros((n, padded, c.HEAD_DIM * (2 if fine_values else 1)), np.int8),
        key_multiplier=np.ones((n, padded), np.uint8),
        multiplier=np.empty((n, rows), np.uint16),
        shift=np.empty(n, np.int32),
        valid_keys=keys,
    )
    value_scale = np.empty((n, operands.v.shape[2]), np.float32)
    logit = _LOGIT / c.INT8_SCORE_STEP if scores == "int8" else _LOGIT

    def head(h: int) -> None:
        place = heads[h]
        heads_qkv = [np.ascontiguousarray(x[place], np.float32) for x in (q, k, v)]
        if not all(np.isfinite(x).all() for x in heads_qkv):
            raise c.ContractError("queries, keys or values are not finite")
        rotated_queries, rotated_keys = (x @ _HADAMARD for x in heads_qkv[:2])
        _values(heads_qkv[2], operands.v[h], value_scale[h])
        key_step = float(_keys(rotated_keys, operands.k[h], operands.key_multiplier[h])) * 2**c.KEY_SHIFT
        row_step = np.empty(rows, np.float32)
        _row_steps(rotated_queries, row_step)
        # The largest row's multiplier uses all its bits; the shift is the head's own.
        unit = float(row_step.max(initial=0.0)) * key_step * logit
        bits = math.floor(math.log2(c.MULTIPLIER_MAX / unit)) if unit > 0 else c.SHIFT_MAX
        shift = max(c.SHIFT_MIN, min(c.SHIFT_MAX, bits))
        operands.shift[h] = shift
        gain = key_step * logit * 2.0**shift
        _queries(rotated_queries, row_step, gain, operands.multiplier[h], operands.q[h])

    _each(head, n, workers)
    return Quantised(operands, value_scale)


def _each(head: Callable[[int], None], count: int, workers: Workers | None) -> None:
    if workers is None:
        for h in range(count):
            head(h)
    else:
        workers.each(head, count)


@jit
def _int8(x):  # type: ignore[no-untyped-def]
    """The nearest of -127..127."""
    return np.int8(min(max(np.rint(x), np.float32(-_INT8_MAX)), np.float32(_INT8_MAX)))


@jit
def _values(v, out, scale):  # type: ignore[no-untyped-def]
    """One step per channel: the largest magnitude over the keys is 127. More columns get the remainder."""
    keys, width = v.shape
    rest = v
    for first in range(0, out.shape[1], width):
        if first > 0:
            rest = v - out[:keys, :width].astype(np.float32) * scale[:width]
        top = np.zeros(width, np.float32)
        for i in range(keys):
            for j in range(width):
                top[j] = max(top[j], abs(rest[i, j]))
        inverse = np.empty(width, np.float32)
        for j in range(width):
            some = top[j] > np.float32(_TINY)
            scale[first + j] = top[j] / np.float32(_INT8_MAX) if some else np.float32(0)
            inverse[j] = np.float32(_INT8_MAX) / top[j] if some else np.float32(0)
        for i in range(keys):
            for j in range(width):
                out[i, first + j] = _int8(rest[i, j] * inverse[j])


@jit
def _keys(k, out, multiplier):  # type: ignore[no-untyped-def]
    """One step per key, a multiple of the head's unit, after each channel's mean is taken off; returns the unit."""
    keys, width = k.shape
    mean = np.zeros(width, np.float64)
    for i in range(keys):
        for j in range(width):
            mean[j] += k[i, j]
    centre = (mean / keys).astype(np.float32)
    tops = np.zeros(keys, np.float32)
    for i in range(keys):
        for j in range(width):
            tops[i] = max(tops[i], abs(k[i, j] - centre[j]))
    unit = tops.max() / np.float32(_INT8_MAX * c.KEY_MULTIPLIER_MAX)
    if unit * np.float32(_INT8_MAX) < np.float32(_TINY):
        return np.float32(0)
    for i in range(keys):
        m = min(max(np.ceil(tops[i] / (np.float32(_INT8_MAX) * unit)), 1.0), float(c.KEY_MULTIPLIER_MAX))
        multiplier[i] = np.uint8(m)
        inverse = np.float32(1.0 / (m * unit))
        for j in range(width):
            out[i, j] = _int8((k[i, j] - centre[j]) * inverse)
    return unit


@jit
def _row_steps(q, step):  # type: ignore[no-untyped-def]
    """The smallest step of each row that keeps it within 127."""
    for i in range(q.shape[0]):
        top = np.float32(0)
        for j in range(q.shape[1]):
            top = max(top, abs(q[i, j]))
        step[i] = top / np.float32(_INT8_MAX)


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
