"""Products and attention in float32 for the few rows of a decoding step, which take as long as reading their weights.

BLAS is made for many rows: for up to sixteen it takes two or three times as long as the memory does.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

from models.vectorised import exp, jit, largest, parallel

__all__ = ["MOST_ROWS", "Threads", "attend", "attend_one", "multiply", "multiply_half"]

MOST_ROWS = 16
"""With more rows arithmetic takes the time, and BLAS wins."""
_TASK = 32  # rows of the weight in a task
_TOGETHER = 4  # rows of the weight that a number of x is multiplied with

Floats = npt.NDArray[np.float32]


class Threads:
    """Numba's threads: as many as PyTorch uses at the time."""

    def __init__(self) -> None:
        """Launch them, which also sets the number of threads that PyTorch takes, and set that as it was."""
        before = torch.get_num_threads()
        numba.get_num_threads()
        torch.set_num_threads(before)

    def take(self) -> int:
        """Let what is called next run on them, and return how many there are."""
        settings: Any = numba.config
        threads = min(torch.get_num_threads(), int(settings.NUMBA_NUM_THREADS))
        numba.set_num_threads(threads)
        return threads


@jit
def _rows(weights: Floats, i: int, bias: Floats, x: Floats, out: Floats) -> None:
    """Let out (n, 4) be x times four rows of the weights from `i` on, plus four numbers of `bias`."""
    w0, w1, w2, w3 = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
    for k in range(len(x)):
        row = x[k]
        s0 = s1 = s2 = s3 = np.float32(0)
        for j in range(len(row)):
            number = row[j]
            s0 += w0[j] * number
            s1 += w1[j] * number
            s2 += w2[j] * number
            s3 += w3[j] * number
        out[k, 0], out[k, 1] = s0 + bias[0], s1 + bias[1]
        out[k, 2], out[k, 3] = s2 + bias[2], s3 + bias[3]


@parallel
def multiply(weights: Floats, bias: Floats, x: Floats, out: Floats) -> None:
    """Let out (n, n_out) = x (n, n_in) @ weights.T + bias, with weights (n_out, n_in) of at least four rows."""
    n_out = len(weights)
    for task in numba.prange((n_out + _TASK - 1) // _TASK):
        for first in range(task * _TASK, min(n_out, (task + 1) * _TASK), _TOGETHER):
            i = min(first, n_out - _TOGETHER)  # the last four overlap with those before
            _rows(weights, i, bias[i : i + _TOGETHER], x, out[:, i : i + _TOGETHER])


@parallel
def multiply_half(weights: npt.NDArray[np.uint16], x: Floats, out: Floats) -> None:
    """Let out = x @ weights.T, where `weights` (n_out, n_in), four rows or more, are the bits of float16 numbers.

    A float16's exponent and fraction, moved to a float32's place, are that number times 2^-112.
    """
    n_out, n_in = weights.shape
    for task in numba.prange((n_out + _TASK - 1) // _TASK):
        four, nothing = np.empty((_TOGETHER, n_in), np.float32), np.zeros(_TOGETHER, np.float32)
        for first in range(task * _TASK, min(n_out, (task + 1) * _TASK), _TOGETHER):
            i = min(first, n_out - _TOGETHER)
            for r in range(_TOGETHER):
                halves, row = weights[i + r], four[r]
                for j in range(n_in):
                    bits = np.uint32(halves[j])
                    magnitude = (bits & np.uint32(0x7FFF)) << np.uint32(13)
                    sign = (bits & np.uint32(0x8000)) << np.uint32(16)
                    row[j] = np.uint32(magnitude | sign).view(np.float32) * np.float32(2.0**112)
            _rows(four, 0, nothing, x, out[:, i : i + _TOGETHER])


@jit
def attend_one(q: Floats, k: Floats, v: Floats, out: Floats) -> None:
    """Attention of one query (d_head,) of one head to the keys and values (n, d_head), into out (d_head,)."""
    d_head = len(q)
    root = np.float32(1 / np.sqrt(d_head))
    scores = np.empty(len(k), np.float32)
    for t in range(len(k)):
        score = np.float32(0)
        for c in range(d_head):
            score += q[c] * k[t, c]
        scores[t] = score * root
    top = largest(scores)
    total = np.float32(0)
    out[:] = 0
    for t in range(len(k)):
        p = exp(scores[t] - top)
        total += p
        for c in range(d_head):
            out[c] += p * v[t, c]
    for c in range(d_head):
        out[c] /= total


@parallel
def attend(
    q: Floats, keys: Floats, values: Floats, source: npt.NDArray[np.int64], length: int, out: Floats
) -> None:
    """Attention of rows q (n, n_head, d_head), into out of the same shape.

    keys, values : (n_sources, n_head, at least `length`, d_head), of which the first `length` count
    source : which of them each row attends to
    """
    n, n_head = q.shape[:2]
    # Rows that attend to the same come one after the other: what the first has read is in the cache.
    for task in numba.prange(n_head * n):
        h, r = task // n, task % n
        s = source[r]
        attend_one(q[r, h], keys[s, h, :length], values[s, h, :length], out[r, h])
