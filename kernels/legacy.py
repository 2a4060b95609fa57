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
(one tile of 64 x 64, see `validation.founding_tile`) the `int32` kernel comes to a correlation of 0.97 (shift 3) and
0.92 (shift 4), where the founding report measured 0.85 on a device; what is left fits a stack that ran into the buffer
of the queries behind it, which is inferred, not observed.

Where a row has more keys than a tile's 64, each tile is computed as above, and the outputs are merged here in float,
by each tile's exact share of the whole row's softmax. That is kind to the kernels: they give neither maximum nor sum,
so that tiles could only have been averaged as if all weighed the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.workers import Workers, WorkSpace

SHIFT = 3
"""The shift that the founding report documents: 1 / 8 for the square root of 64."""

BUILT_SHIFT = 4
"""The shift that fits the output range that the founding report measured."""

TILE = 64
"""Keys of a tile."""

_INT8_MAX = 127
_ROWS = 128
_EXP = np.array([round(2**20 * math.exp(-i)) for i in range(128)], np.int64)

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


@dataclass(frozen=True)
class LegacyOperands:
    """INT8 heads, with the steps that the kernels themselves never see.

    Attributes:
        q: queries, int8, shape (n, rows, 64).
        k: keys, int8, shape (n, keys, 64).
        v: values, int8, shape (n, keys, 64).
        score_step: float64, shape (n,): step of Q times step of K.
        value_step: float32, shape (n,): step of V, which is also that of the output.
    """

    q: npt.NDArray[np.int8]
    k: npt.NDArray[np.int8]
    v: npt.NDArray[np.int8]
    score_step: npt.NDArray[np.float64]
    value_step: npt.NDArray[np.float32]


def quantise(
    q: npt.NDArray[np.float32], k: npt.NDArray[np.float32], v: npt.NDArray[np.float32]
) -> LegacyOperands:
    """Round heads to INT8, symmetric, one step per head: max|x| / 127.

    Args:
        q: queries, float32, shape (..., rows, 64), any strides. The leading axes count heads, in C order.
        k: keys, float32, shape (..., keys, 64), any strides.
        v: values, like `k`.

    Raises:
        kernels.contract.ContractError: heads that are not 64 wide, or numbers that are not finite.
    """
    if any(x.shape[-1] != c.HEAD_DIM for x in (q, k, v)):
        raise c.ContractError(f"heads are {c.HEAD_DIM} wide: q is {q.shape}, k is {k.shape}, v is {v.shape}")
    (q8, of_q), (k8, of_k), (v8, of_v) = (_rounded(x) for x in (q, k, v))
    return LegacyOperands(q8, k8, v8, of_q.astype(np.float64) * of_k, of_v)


def _rounded(x: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    heads = x.reshape(-1, *x.shape[-2:])
    top = np.abs(heads).max(axis=(1, 2), initial=0.0)
    if not np.isfinite(top).all():
        raise c.ContractError("queries, keys or values are not finite")
    step = (top / _INT8_MAX).astype(np.float32)
    # A head of zeros, or of what float32 cannot invert, stays zero.
    inverse = np.where(top > 1e-36, _INT8_MAX / np.maximum(top, 1e-36), 0).astype(np.float32)
    rounded = np.rint(heads * inverse[:, None, None])
    return np.clip(rounded, -_INT8_MAX, _INT8_MAX).astype(np.int8), step


def raw_scores(q: npt.NDArray[np.int8], k: npt.NDArray[np.int8], shift: int = SHIFT) -> npt.NDArray[np.int32]:
    """Scores of one head before any clamp: int32, shape (rows, keys)."""
    exact = q.astype(np.float32) @ k.astype(np.float32).T  # at most 2^20, so float32 holds every sum exactly
    return exact.astype(np.int32) >> np.int32(shift)


class LegacyKernel:
    """Either kernel, emulated on the CPU.

    Attributes:
        scores: `int32` or `int8`: what holds the scores.
        shift: of the scores.
    """

    def __init__(self, scores: c.ScoreType, workers: Workers | None = None, shift: int = SHIFT) -> None:
        """Make the kernel; it shares heads among `workers`, or as many threads as there are processors."""
        self.scores = scores
        self.shift = shift
        self._workers = workers or Workers()
        self._space = WorkSpace(_make_space)

    def run(
        self, q: npt.NDArray[np.int8], k: npt.NDArray[np.int8], v: npt.NDArray[np.int8]
    ) -> npt.NDArray[np.float32]:
        """Attention of every head.

        Args:
            q: int8, shape (n, rows, 64).
            k: int8, shape (n, keys, 64).
            v: int8, shape (n, keys, 64).

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
        self._workers.each(lambda h: self._head(q[h], k[h], v[h], out[h]), len(q))
        return out

    def _head(
        self,
        q: npt.NDArray[np.int8],
        k: npt.NDArray[np.int8],
        v: npt.NDArray[np.int8],
        out: npt.NDArray[np.float32],
    ) -> None:
        space = self._space(-(-len(k) // TILE))
        space.keys[:, : len(k)] = k.T
        space.keys[:, len(k) :] = 0
        values = space.values.reshape(-1, c.HEAD_DIM)
        values[: len(k)] = v
        values[len(k) :] = 0
        for start in range(0, len(q), _ROWS):
            queries = q[start : start + _ROWS].astype(np.float32)
            n = len(queries)
            s = np.matmul(queries, space.keys, out=space.scores[:n])
            p, tops, sums = space.probabilities[:, :n], space.tops[:, :n], space.sums[:, :n]
            _probabilities(s, len(k), self.shift, self.scores == "int8", space.x, p, tops, sums)
            # A row's probabilities add up to 127 at most, so these sums are exact in float32 too.
            acc = np.matmul(p, space.values, out=space.products[:, :n])
            _merge(acc, tops, sums, out[start : start + n])


class _Space(NamedTuple):
    keys: Any
    values: Any
    scores: Any
    x: Any
    probabilities: Any
    tops: Any
    sums: Any
    products: Any


def _make_space(tiles: int) -> _Space:
    return _Space(
        keys=np.empty((c.HEAD_DIM, tiles * TILE), np.float32),
        values=np.empty((tiles, TILE, c.HEAD_DIM), np.float32),
        scores=np.empty((_ROWS, tiles * TILE), np.float32),
        x=np.empty(TILE, np.int32),
        probabilities=np.empty((tiles, _ROWS, TILE), np.float32),
        tops=np.empty((tiles, _ROWS), np.int32),
        sums=np.empty((tiles, _ROWS), np.int64),
        products=np.empty((tiles, _ROWS, c.HEAD_DIM), np.float32),
    )


@_jit
def _probabilities(s, valid, shift, int8_scores, x, p, tops, sums):  # type: ignore[no-untyped-def]
    """Exact scores (rows, keys) to probabilities 0..127 (tiles, rows, 64), with each tile's maximum and sum of e.

    A probability depends on x alone, so that 128 divisions a tile are enough.
    """
    i32 = np.int32
    of_x = np.empty(128, np.float32)
    for t in range(p.shape[0]):
        start = t * TILE
        width = min(TILE, valid - start)
        for r in range(s.shape[0]):
            row, weights = s[r, start : start + width], p[t, r]
            top = i32(-2147483648)
            for j in range(width):
                y = i32(i32(row[j]) >> i32(shift))
                x[j] = y
                top = max(top, y)
            if int8_scores:
                top = max(i32(-128), min(i32(127), top))
                for j in range(width):
                    x[j] = max(i32(-128), min(i32(127), x[j]))
            total = np.int64(0)
            furthest = i32(0)
            for j in range(width):
                d = min(i32(i32(top - x[j] + i32(255)) >> i32(8)), i32(127))
                x[j] = d
                furthest = max(furthest, d)
                total += _EXP[d]
            scale = max(total >> 10, 1)
            for i in range(furthest + 1):
                of_x[i] = np.float32(min(((_EXP[i] >> 10) * 127) // scale, 127))
            for j in range(width):
                weights[j] = of_x[x[j]]
            for j in range(width, TILE):
                weights[j] = np.float32(0)
            tops[t, r] = top
            sums[t, r] = total


@_jit
def _merge(acc, tops, sums, out):  # type: ignore[no-untyped-def]
    """The tiles' sums (tiles, rows, 64) to INT8 outputs, and those to their mean by each tile's share of the softmax.

    The rounding pushes negative sums down before a shift that floors.
    """
    tiles, rows, width = acc.shape
    share = np.empty(tiles, np.float32)
    for r in range(rows):
        top = tops[0, r]
        for t in range(1, tiles):
            top = max(top, tops[t, r])
        mass = 0.0
        for t in range(tiles):
            mass += sums[t, r] * math.exp((tops[t, r] - top) / 256)
        for t in range(tiles):
            share[t] = np.float32(sums[t, r] * math.exp((tops[t, r] - top) / 256) / mass)
        for i in range(width):
            out[r, i] = np.float32(0)
        for t in range(tiles):
            for i in range(width):
                a = np.int32(acc[t, r, i])
                a = (a + np.int32(64)) >> np.int32(7) if a >= 0 else (a - np.int32(64)) >> np.int32(7)
                out[r, i] += share[t] * np.float32(max(np.int32(-128), min(np.int32(127), a)))
