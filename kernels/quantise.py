"""From real queries, keys and values to the contract's integers, and back.

This step is ordinary float32 arithmetic on the host; the contract begins at the integers that it yields. Queries and
keys are rotated; then all is symmetric INT8: one scale per query row, one per head for the keys (whose mean over the
tokens is taken off first, which softmax does not see), one per channel of a head for the values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.workers import Workers

_INT8_MAX = 127.0
_LOGIT = math.log2(math.e) / math.sqrt(c.HEAD_DIM) * (1 << c.FRACTION_BITS)
"""Fixed-point base-2 logits per unit of a real dot product: log2(e) / sqrt(64), with 8 fraction bits."""


def hadamard() -> npt.NDArray[np.float32]:
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

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


@dataclass(frozen=True)
class Quantised:
    """Operands together with what turns their output back into real numbers.

    Attributes:
        operands: the contract's integers, keys and values padded to a whole number of 256.
        value_scale: float32, shape (n, 64): the step of each value channel.
    """

    operands: c.Operands
    value_scale: npt.NDArray[np.float32]

    def dequantise(self, output: npt.NDArray[np.int16], into: npt.NDArray[np.float32]) -> None:
        """Write attention output as real numbers.

        Args:
            output: the kernel's int16, shape (n, rows, 64).
            into: float32, shape (..., rows, 64), any strides, leading axes as those of the queries.
        """
        step = self.value_scale / np.float32(1 << c.OUTPUT_FRACTION_BITS)
        for h, place in enumerate(np.ndindex(into.shape[:-2])):
            np.multiply(output[h], step[h], out=into[place])


def quantise(
    q: npt.NDArray[np.float32],
    k: npt.NDArray[np.float32],
    v: npt.NDArray[np.float32],
    scores: c.ScoreType = "int32",
    *,
    workers: Workers | None = None,
) -> Quantised:
    """Quantise the heads of a layer.

    Args:
        q: queries, float32, shape (..., rows, 64), any strides. The leading axes count heads, in C order.
        k: keys, float32, shape (..., keys, 64), any strides.
        v: values, float32, shape (..., keys, 64), any strides.
        scores: the kernel that the operands are for; `int8` scores count in steps of `INT8_SCORE_STEP`.
        workers: threads to share the heads among; none unless given.

    Returns:
        The operands, with keys and values padded with zeros to a multiple of the largest tile.

    Raises:
        kernels.contract.ContractError: there are no keys, more than the contract allows, or values that are not
            finite.
    """
    heads = list(np.ndindex(q.shape[:-2]))
    rows, keys = q.shape[-2], k.shape[-2]
    padded = -(-keys // max(c.TILE_SIZES)) * max(c.TILE_SIZES)
    if not 1 <= padded <= c.MAX_KEYS:
        raise c.ContractError(f"{keys} keys: the contract is for 1 to {c.MAX_KEYS}")
    n = len(heads)
    operands = c.Operands(
        q=np.empty((n, rows, c.HEAD_DIM), np.int8),
        k=np.zeros((n, padded, c.HEAD_DIM), np.int8),
        v=np.zeros((n, padded, c.HEAD_DIM), np.int8),
        multiplier=np.empty((n, rows), np.uint16),
        shift=np.empty(n, np.int32),
        valid_keys=keys,
    )
    value_scale = np.empty((n, c.HEAD_DIM), np.float32)
    logit = _LOGIT / c.INT8_SCORE_STEP if scores == "int8" else _LOGIT

    def head(h: int) -> None:
        rotated_keys, rotated_queries = k[heads[h]] @ _HADAMARD, q[heads[h]] @ _HADAMARD
        _values(v[heads[h]], operands.v[h], value_scale[h])
        key_step = float(_keys(rotated_keys, operands.k[h]))
        row_step = np.empty(rows, np.float32)
        _row_steps(rotated_queries, row_step)
        # The largest row's multiplier uses all its bits; the shift is the head's own.
        unit = float(row_step.max(initial=0.0)) * key_step * logit
        if not (math.isfinite(unit) and np.isfinite(value_scale[h]).all()):
            raise c.ContractError("queries, keys or values are not finite")
        bits = math.floor(math.log2(c.MULTIPLIER_MAX / unit)) if unit > 0 else c.SHIFT_MAX
        shift = max(c.SHIFT_MIN, min(c.SHIFT_MAX, bits))
        operands.shift[h] = shift
        gain = key_step * logit * 2.0**shift
        _queries(rotated_queries, row_step, gain, operands.multiplier[h], operands.q[h])

    if workers is None:
        for h in range(n):
            head(h)
    else:
        workers.each(head, n)
    return Quantised(operands, value_scale)


@_jit
def _values(v, out, scale):  # type: ignore[no-untyped-def]
    """One step per channel: the largest magnitude over the keys is 127."""
    keys, width = v.shape
    for j in range(width):
        scale[j] = np.float32(0)
    for i in range(keys):
        for j in range(width):
            scale[j] = max(scale[j], abs(v[i, j]))
    inverse = np.empty(width, np.float32)
    for j in range(width):
        scale[j] = scale[j] / np.float32(_INT8_MAX)
        inverse[j] = np.float32(1) / scale[j] if scale[j] > 0 else np.float32(0)
    for i in range(keys):
        for j in range(width):
            out[i, j] = np.int8(np.rint(v[i, j] * inverse[j]))


@_jit
def _keys(k, out):  # type: ignore[no-untyped-def]
    """One step for the head, after each channel's mean is taken off; returns the step."""
    keys, width = k.shape
    mean = np.zeros(width, np.float64)
    for i in range(keys):
        for j in range(width):
            mean[j] += k[i, j]
    centre = (mean / keys).astype(np.float32)
    top = np.float32(0)
    for i in range(keys):
        for j in range(width):
            top = max(top, abs(k[i, j] - centre[j]))
    step = top / np.float32(_INT8_MAX)
    inverse = np.float32(1) / step if step > 0 else np.float32(0)
    for i in range(keys):
        for j in range(width):
            out[i, j] = np.int8(np.rint((k[i, j] - centre[j]) * inverse))
    return step


@_jit
def _row_steps(q, step):  # type: ignore[no-untyped-def]
    """The smallest step of each row that keeps it within 127."""
    for i in range(q.shape[0]):
        top = np.float32(0)
        for j in range(q.shape[1]):
            top = max(top, abs(q[i, j]))
        step[i] = top / np.float32(_INT8_MAX)


@_jit
def _queries(q, row_step, gain, multiplier, out):  # type: ignore[no-untyped-def]
    """Widens each row's step to the next one whose multiplier is an integer, so that the multiplier is exact."""
    for i in range(q.shape[0]):
        m = min(max(np.ceil(row_step[i] * gain), 1.0), float(c.MULTIPLIER_MAX)) if gain > 0 else 1.0
        multiplier[i] = np.uint16(m)
        inverse = np.float32(gain / m) if gain > 0 else np.float32(0)
        for j in range(q.shape[1]):
            x = np.rint(q[i, j] * inverse)
            out[i, j] = np.int8(min(max(x, np.float32(-_INT8_MAX)), np.float32(_INT8_MAX)))
