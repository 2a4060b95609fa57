"""The INT8 decoder in compiled code: rows of tokens through all layers, and the keys and values of audio."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from models.few_rows import attend_one
from models.int8_attention import attend_to_audio, pack_values
from models.int8_linear import (
    BLOCK,
    Int8Weight,
    linear_int8,
    linear_int8_parallel,
    pack_rows,
    quantise_rows,
    split_rows,
)
from models.vectorised import exp, jit, largest, parallel

__all__ = ["LayerWeight", "Weights", "decode_rows", "linear_layer", "remember_parallel", "remember_serial"]

# Logits that are less than this under the largest are scored again in float32. Most of what INT8 does to the
# probabilities comes from the embedding; this takes it away, for the tokens that a search can choose.
_LIKELY = np.float32(6)
# Starting threads costs as much as about this many multiply-adds on one.
_WORTH_THREADS = 2_000_000


class LayerWeight(NamedTuple):
    """A weight of all layers, along the first axis of each array, in two INT8 parts whose sum it is.

    `rest` is what INT8 leaves over; the bias is in `main` alone.
    """

    main: Int8Weight
    rest: Int8Weight


class Weights(NamedTuple):
    """What a step reads of the model."""

    query_key_value: LayerWeight
    out: LayerWeight
    cross_query: LayerWeight
    cross_out: LayerWeight
    mlp_in: LayerWeight
    mlp_out: LayerWeight
    norms: npt.NDArray[np.float32]  # (n_layer, 3, 2, d_model): before self-attention, cross-attention and MLP
    last_norm: npt.NDArray[np.float32]  # (2, d_model)
    embedding: npt.NDArray[np.float32]  # (n_vocab, d_model)
    positions: npt.NDArray[np.float32]  # (n_text_ctx, d_model)


@jit
def _multiply(
    weight: Int8Weight,
    layer: int,
    x8: npt.NDArray[np.uint8],
    scale: npt.NDArray[np.float32],
    zero: npt.NDArray[np.int32],
    out: npt.NDArray[np.float32],
    threads: int,
) -> None:
    blocks = weight.blocks[layer]
    scales, totals, biases = weight.scale[layer], weight.total[layer], weight.bias[layer]
    if threads > 1 and blocks.size * len(x8) > _WORTH_THREADS:
        linear_int8_parallel(blocks, scales, totals, biases, x8, scale, zero, out)
    else:
        linear_int8(blocks, scales, totals, biases, x8, scale, zero, out)


@jit
def linear_layer(
    weight: LayerWeight, layer: int, x: npt.NDArray[np.float32], out: npt.NDArray[np.float32], threads: int
) -> None:
    """One layer's product with x in 16 bits: the weights are read once for both bytes."""
    x8 = np.empty((2 * len(x), x.shape[1]), np.uint8)
    scale, zero = split_rows(x, x8)
    halves = np.empty((len(x8), out.shape[1]), np.float32)
    rests = np.empty_like(halves)
    _multiply(weight.main, layer, x8, scale, zero, halves, threads)
    _multiply(weight.rest, layer, x8, scale, zero, rests, threads)
    bias = weight.main.bias[layer]
    for r in range(len(x)):
        for c in range(out.shape[1]):
            small = rests[2 * r, c] + rests[2 * r + 1, c]
            out[r, c] = halves[2 * r, c] + (halves[2 * r + 1, c] - bias[c] + small)


@jit
def _score_again(
    x: npt.NDArray[np.float32], embedding: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]
) -> None:
    """Let the logits of likely tokens be those of the embedding in float32."""
    n_vocab, d = embedding.shape
    for r in range(len(x)):
        threshold = largest(logits[r, :n_vocab]) - _LIKELY
        for first in range(0, n_vocab, BLOCK):
            last = min(first + BLOCK, n_vocab)
            if largest(logits[r, first:last]) > threshold:
                for token in range(first, last):
                    if logits[r, token] > threshold:
                        score = np.float32(0)
                        for c in range(d):
                            score += x[r, c] * embedding[token, c]
                        logits[r, token] = score


@jit
def _norm(x: npt.NDArray[np.float32], affine: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
    n = x.shape[1]
    for r in range(len(x)):
        mean = np.float32(0)
        for c in range(n):
            mean += x[r, c]
        mean /= np.float32(n)
        variance = np.float32(0)
        for c in range(n):
            variance += (x[r, c] - mean) * (x[r, c] - mean)
        inverse = np.float32(1) / np.sqrt(variance / np.float32(n) + np.float32(1e-5))
        for c in range(n):
            out[r, c] = (x[r, c] - mean) * inverse * affine[0, c] + affine[1, c]


@jit
def _gelu(x: npt.NDArray[np.float32]) -> None:
    """x (1 + erf(x / sqrt 2)) / 2, with Abramowitz and Stegun's 7.1.26 for erf, within 1.5e-7 of it."""
    flat = x.ravel()
    for i in range(len(flat)):
        z = abs(flat[i]) * np.float32(0.70710678)
        t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * z)
        tail = (
            t
            * (
                np.float32(0.254829592)
                + t
                * (
                    np.float32(-0.284496736)
                    + t
                    * (np.float32(1.421413741) + t * (np.float32(-1.453152027) + t * np.float32(1.061405429)))
                )
            )
            * exp(-z * z)
        )
        half = np.float32(0.5) * tail
        flat[i] *= half if flat[i] < 0 else np.float32(1) - half


def _cross(
    q: npt.NDArray[np.float32],
    starts: npt.NDArray[np.int64],
    windows: npt.NDArray[np.int64],
    layer: int,
    keys: npt.NDArray[np.int8],
    key_scale: npt.NDArray[np.float32],
    key_total: npt.NDArray[np.int32],
    bias: npt.NDArray[np.float32],
    values: npt.NDArray[np.int8],
    value_scale: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    n_head, d = key_scale.shape[2], value_scale.shape[3]
    for task in numba.prange((len(starts) - 1) * n_head):
        group, h = task // n_head, task % n_head
        first, last = starts[group], starts[group + 1]
        w = windows[first]
        attend_to_audio(
            q[first:last, h * d : (h + 1) * d],
            keys[w, layer, h],
            key_scale[w, layer, h],
            key_total[w, layer, h],
            bias,
            values[w, layer, h],
            value_scale[w, layer, h],
            out[first:last, h * d : (h + 1) * d],
        )


_cross_serial, _cross_parallel = jit(_cross), parallel(_cross)


@jit
def decode_rows(
    weights: Weights,
    vocabulary: Int8Weight,
    tokens: npt.NDArray[np.int64],
    sequences: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    windows: npt.NDArray[np.int64],
    wanted: npt.NDArray[np.int64],
    cache_k: npt.NDArray[np.float32],
    cache_v: npt.NDArray[np.float32],
    keys: npt.NDArray[np.int8],
    key_scale: npt.NDArray[np.float32],
    key_total: npt.NDArray[np.int32],
    bias: npt.NDArray[np.float32],
    values: npt.NDArray[np.int8],
    value_scale: npt.NDArray[np.float32],
    logits: npt.NDArray[np.float32],
    threads: int,
) -> None:
    """Run rows of tokens, each at its position of a sequence of the cache; those of a window have to be together.

    Logits (len(wanted), n_vocab) are of the rows `wanted`.
    """
    rows, d = len(tokens), weights.embedding.shape[1]
    n_layer, n_head, d_head = key_scale.shape[1], key_scale.shape[2], value_scale.shape[3]
    n_keys = key_scale.shape[3]
    starts = np.empty(rows + 1, np.int64)
    groups = 0
    for r in range(rows):
        if r == 0 or windows[r] != windows[r - 1]:
            starts[groups] = r
            groups += 1
    starts[groups] = rows
    starts = starts[: groups + 1]
    x = np.empty((rows, d), np.float32)
    for r in range(rows):
        for c in range(d):
            x[r, c] = weights.embedding[tokens[r], c] + weights.positions[positions[r], c]
    y, z, wide = np.empty_like(x), np.empty_like(x), np.empty((rows, 4 * d), np.float32)
    qkv = np.empty((rows, 3 * d), np.float32)
    for layer in range(n_layer):
        _norm(x, weights.norms[layer, 0], y)
        linear_layer(weights.query_key_value, layer, y, qkv, threads)
        for r in range(rows):
            for h in range(n_head):
                for c in range(d_head):
                    cache_k[layer, sequences[r], h, positions[r], c] = qkv[r, d + h * d_head + c]
                    cache_v[layer, sequences[r], h, positions[r], c] = qkv[r, 2 * d + h * d_head + c]
        for r in range(rows):
            for h in range(n_head):
                part = slice(h * d_head, (h + 1) * d_head)
                k = cache_k[layer, sequences[r], h, : positions[r] + 1]
                v = cache_v[layer, sequences[r], h, : positions[r] + 1]
                attend_one(qkv[r, part], k, v, y[r, part])
        linear_layer(weights.out, layer, y, z, threads)
        x += z
        _norm(x, weights.norms[layer, 1], y)
        linear_layer(weights.cross_query, layer, y, z, threads)
        if threads > 1 and rows * n_keys * d > _WORTH_THREADS:
            _cross_parallel(
                z, starts, windows, layer, keys, key_scale, key_total, bias, values, value_scale, y
            )
        else:
            _cross_serial(z, starts, windows, layer, keys, key_scale, key_total, bias, values, value_scale, y)
        linear_layer(weights.cross_out, layer, y, z, threads)
        x += z
        _norm(x, weights.norms[layer, 2], y)
        linear_layer(weights.mlp_in, layer, y, wide, threads)
        _gelu(wide)
        linear_layer(weights.mlp_out, layer, wide, z, threads)
        x += z
    last = np.empty((len(wanted), d), np.float32)
    for i in range(len(wanted)):
        last[i] = x[wanted[i]]
    _norm(last, weights.last_norm, last)
    x8 = np.empty(last.shape, np.uint8)
    scale, zero = quantise_rows(last, x8)
    _multiply(vocabulary, 0, x8, scale, zero, logits, threads)
    _score_again(last, weights.embedding, logits)


def _remember(
    weight: Int8Weight,
    x8: npt.NDArray[np.uint8],
    scale: npt.NDArray[np.float32],
    zero: npt.NDArray[np.int32],
    keys: npt.NDArray[np.int32],
    key_scale: npt.NDArray[np.float32],
    key_total: npt.NDArray[np.int32],
    values: npt.NDArray[np.int32],
    value_scale: npt.NDArray[np.float32],
) -> None:
    """Keys and values (n_layer, n_head, ..), four to an int32, of one window's quantised states (n_keys, d_model)."""
    n_layer, n_head, d_head = value_scale.shape
    for task in numba.prange(n_layer * n_head * 2):
        layer, h, is_value = task // (2 * n_head), task // 2 % n_head, task % 2
        first = (h + is_value * n_head) * (d_head // BLOCK)
        part = slice(first * BLOCK, first * BLOCK + d_head)
        result = np.empty((len(x8), d_head), np.float32)
        linear_int8(
            weight.blocks[layer, first : first + d_head // BLOCK],
            weight.scale[layer, part],
            weight.total[layer, part],
            weight.bias[layer, part],
            x8,
            scale,
            zero,
            result,
        )
        if is_value:
            pack_values(result, values[layer, h], value_scale[layer, h])
        else:
            pack_rows(result, keys[layer, h], key_scale[layer, h], key_total[layer, h])


remember_serial, remember_parallel = jit(_remember), parallel(_remember)
