"""Attention of the decoder to the audio, with keys and values in INT8.

Keys and values of the audio are the weights of two INT8 products, laid out as `models.int8_linear` has it: a key
is an output channel with a scale of its own, a value's channel is one of as many inputs as there are keys. What
is multiplied with them has 16 bits, as two rows of 8, so that its own rounding does not count.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.int8_linear import BLOCK, SMALLEST, linear_int8, split_rows
from models.vectorised import exp, jit, largest

__all__ = ["attend_to_audio", "pack_values"]

_ROWS = 8  # queries whose scores are in the cache at once


@jit
def pack_values(
    v: npt.NDArray[np.float32], quads: npt.NDArray[np.int32], scale: npt.NDArray[np.float32]
) -> None:
    """Quantise the values v (n_keys, d_head) of a head, by channel, into zeroed blocks of a weight.

    quads : the blocks, seen as int32 (d_head / BLOCK, n_keys / 4, BLOCK)
    """
    n_keys, d_head = v.shape
    most = np.full(d_head, SMALLEST)
    for t in range(n_keys):
        for c in range(d_head):
            most[c] = max(most[c], abs(v[t, c]))
    inverse = np.float32(127) / most
    for c in range(d_head):
        scale[c] = most[c] / np.float32(127)
    four = np.zeros((4, d_head), np.float32)
    for quad in range(-(-n_keys // 4)):
        for i in range(4):
            for c in range(d_head):
                four[i, c] = v[4 * quad + i, c] * inverse[c] if 4 * quad + i < n_keys else np.float32(0)
        for block in range(d_head // BLOCK):
            for lane in range(BLOCK):
                c = block * BLOCK + lane
                bits = np.int32(0)
                for i in range(4):
                    value = np.int32(four[i, c] + np.float32(128.5)) - np.int32(128)
                    bits |= (value & np.int32(255)) << np.int32(8 * i)
                quads[block, quad, lane] = bits


@jit
def attend_to_audio(
    q: npt.NDArray[np.float32],
    k_blocks: npt.NDArray[np.int8],
    k_scale: npt.NDArray[np.float32],
    k_total: npt.NDArray[np.int32],
    k_bias: npt.NDArray[np.float32],
    v_blocks: npt.NDArray[np.int8],
    v_scale: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Attention of queries q (n, d_head) of one head to one window, into out (n, d_head).

    k_bias : 0 for a key, -inf where the last block is filled up
    """
    d_head, n_keys = q.shape[1], len(k_scale)
    root = np.float32(1 / np.sqrt(d_head))
    q8 = np.empty((2 * _ROWS, d_head), np.uint8)
    p8 = np.empty((2 * _ROWS, n_keys), np.uint8)
    x_scale = np.empty(2 * _ROWS, np.float32)
    x_zero = np.empty(2 * _ROWS, np.int32)
    scores = np.empty((2 * _ROWS, n_keys), np.float32)
    nothing, no_total = np.zeros(d_head, np.float32), np.zeros(d_head, np.int32)
    halves = np.empty((2 * _ROWS, d_head), np.float32)
    for first in range(0, len(q), _ROWS):
        n = min(_ROWS, len(q) - first)
        m = 2 * n
        q_scale, q_zero = split_rows(q[first : first + n], q8[:m])
        linear_int8(k_blocks, k_scale, k_total, k_bias, q8[:m], q_scale * root, q_zero, scores)
        for r in range(n):
            high, low = scores[2 * r], scores[2 * r + 1]
            for t in range(n_keys):
                high[t] += low[t]
            top = largest(high)
            total = np.int32(0)
            p_high, p_low = p8[2 * r], p8[2 * r + 1]
            for t in range(n_keys):
                p = np.int32(exp(high[t] - top) * np.float32(65535) + np.float32(0.5))
                total += p
                p_high[t] = p >> 8
                p_low[t] = p & 255
            x_scale[2 * r] = np.float32(256) / np.float32(total)
            x_scale[2 * r + 1] = np.float32(1) / np.float32(total)
            x_zero[2 * r], x_zero[2 * r + 1] = 0, 0
        linear_int8(v_blocks, v_scale, no_total, nothing, p8[:m], x_scale, x_zero, halves)
        for r in range(n):
            for c in range(d_head):
                out[first + r, c] = halves[2 * r, c] + halves[2 * r + 1, c]
