"""The two kernels of the founding report, kept to show what they do to word errors.

They are not this project's kernels and keep to none of its contract: no scale reaches them but a fixed shift, and
the exponential steps by whole powers of e of the score / 256. Both take INT8 queries, keys and values of heads 64 wide:

    score       = (Q . K) >> shift                              shift 3 as documented, 4 as built
    score       = clamp(score, -128, 127)                       `int8` only; `int32` keeps it
    x           = clamp((score - row's maximum) >> 8, -127, 0)
    e           = table[-x],  table[i] = round(2^20 e^-i)
    probability = min(((e >> 10) * 127) / max(sum of e >> 10, 1), 127)      integer division
    output      = clamp((acc + 64 or, where acc < 0, acc - 64) >> 7, -128, 127),  acc = sum of probability * V

This is an emulation: bit for bit what that arithmetic gives, not what a device gave. On the founding report's test data
(one tile of 64 x 64, see `kernels.validation`) the `int32` kernel comes to a correlation of 0.97 (shift 3) and
0.92 (shift 4), where the founding report measured 0.85 on a device; what is left fits a stack that ran into the buffer
of the queries behind it, which is inferred, not observed.

Where a row has more keys than a tile's 64, each tile is computed as above, and the outputs are merged here in float,
by each tile's exact share of the whole row's softmax. That is kind to the kernels: they give neither maximum nor sum,
so that tiles could only have been averaged as if all weighed the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.arrays import Doubles, Int8, Reals
from kernels.workers import Workers

SHIFT = 3  # that the founding report documents: 1 / 8 for the square root of 64
BUILT_SHIFT: dict[c.ScoreType, int] = {"int32": 4}  # that fits the outputs of the kernel that it measured
TILE = 64  # keys


_INT8_MAX = 127
_ROWS = 128
_NEVER = -(1 << 30)
_EXP = np.array([round(2**20 * math.exp(-i)) for i in range(128)], np.int32)


class LegacyOperands(NamedTuple):
    """INT8 heads, shape (n, rows or keys, 64), with the steps that the kernels themselves never see.

    Attributes:
        score_step: float64, shape (n,): step of Q times step of K.
        value_step: float32, shape (n,): step of V, which is also that of the output.
    """

    q: Int8
    k: Int8
    v: Int8
    score_step: Doubles
    value_step: Reals


def quantise(q: Reals, k: Reals, v: Reals) -> LegacyOperands:
    """Round heads, (..., rows or keys, 64) of any strides, to INT8, symmetric, one step per head: max|x| / 127.

    Raises:
        kernels.contract.ContractError: heads that are not 64 wide, or numbers that are not finite.
    """
    if any(x.shape[-1] != c.HEAD_DIM for x in (q, k, v)):
        raise c.ContractError(f"heads are {c.HEAD_DIM} wide: q is {q.shape}, k is {k.shape}, v is {v.shape}")
    (q8, of_q), (k8, of_k), (v8, of_v) = (_rounded(x) for x in (q, k, v))
    return LegacyOperands(q8, k8, v8, of_q.astype(np.float64) * of_k, of_v)


def _rounded(x: Reals) -> tuple[Int8, Reals]:
    heads = x.reshape(-1, *x.shape[-2:])
    top = np.abs(heads).max(axis=(1, 2), initial=0.0)
    if not np.isfinite(top).all():
        raise c.ContractError("queries, keys or values are not finite")
    # A head of zeros, or of what float32 cannot invert, stays zero.
    inverse = np.where(top > 1e-36, _INT8_MAX / np.maximum(top, 1e-36), 0).astype(np.float32)
    rounded = np.clip(np.rint(heads * inverse[:, None, None]), -_INT8_MAX, _INT8_MAX)
    return rounded.astype(np.int8), (top / _INT8_MAX).astype(np.float32)


def raw_scores(q: Int8, k: Int8, shift: int = SHIFT) -> npt.NDArray[np.int32]:
    """Scores of one head before any clamp: int32, shape (rows, keys)."""
    exact = q.astype(np.float32) @ k.astype(np.float32).T  # at most 2^20, so float32 holds every sum exactly
    return exact.astype(np.int32) >> np.int32(shift)


def attention(q: Int8, k: Int8, v: Int8, scores: c.ScoreType, workers: Workers, shift: int = SHIFT) -> Reals:
    """Either kernel on every head, of shape (n, rows or keys, 64).

    Returns:
        float32, shape (n, rows, 64), in V's step: of a single tile the kernel's INT8 values as they are.

    Raises:
        kernels.contract.ContractError: shapes or dtypes that do not fit together, or no key.
    """
    if any(x.dtype != np.int8 or x.ndim != 3 or x.shape[2] != c.HEAD_DIM for x in (q, k, v)):
        raise c.ContractError(f"q, k and v have to be int8 of (heads, rows or keys, {c.HEAD_DIM})")
    if k.shape != v.shape or len(q) != len(k):
        raise c.ContractError(f"q, k and v do not fit together: {q.shape}, {k.shape}, {v.shape}")
    if not 1 <= k.shape[1] <= c.MAX_KEYS:
        raise c.ContractError(f"{k.shape[1]} keys: 1 <= keys <= {c.MAX_KEYS}")
    out = np.empty(q.shape, np.float32)
    workers.each(lambda h: _head(q[h], k[h], v[h], scores, shift, out[h]), len(q))
    return out


def _head(q: Int8, k: Int8, v: Int8, scores: c.ScoreType, shift: int, out: Reals) -> None:
    tiles = -(-len(k) // TILE)
    padding = ((0, tiles * TILE - len(k)), (0, 0))
    keys = np.pad(k, padding)
    values = np.pad(v, padding).astype(np.float32).reshape(tiles, TILE, c.HEAD_DIM)
    for start in range(0, len(q), _ROWS):
        rows = slice(start, start + _ROWS)
        s = raw_scores(q[rows], keys, shift)
        if scores == "int8":
            s = np.clip(s, -128, 127)
        s[:, len(k) :] = _NEVER
        s = s.reshape(-1, tiles, TILE).transpose(1, 0, 2)
        top = s.max(axis=2, keepdims=True)
        e = _EXP[np.minimum((top - s + 255) >> 8, len(_EXP) - 1)]
        total = e.sum(axis=2, keepdims=True, dtype=np.int32)
        scale = np.maximum(total >> 10, 1).astype(np.float32)
        # Of numbers this small float32 rounds no quotient up to a whole number.
        p = np.minimum(np.floor(((e >> 10) * 127).astype(np.float32) / scale), 127)
        # A row's probabilities add up to 127 at most, so these sums are exact in float32 too.
        acc = np.matmul(p, values).astype(np.int32)
        output = np.clip(np.where(acc >= 0, acc + 64, acc - 64) >> 7, -128, 127)
        share = total * np.exp((top - top.max(axis=0)) / 256)
        share /= share.sum(axis=0)
        np.sum(share.astype(np.float32) * output.astype(np.float32), axis=0, out=out[rows])
