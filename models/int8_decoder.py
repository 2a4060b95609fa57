"""Whisper's text decoder in INT8 products, with INT8 audio memory: a step of it is one call of compiled code.

It takes the place of `models.decoder.CachedDecoder`. The weights of its layers are in two INT8 parts, since with one
and bfloat16 in the encoder the word error rate of base moved by 0.15 points.
Between the products everything is float32: residuals, norms, softmax, the cache of the text. The embedding that
tokens are looked up in stays the model's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.decoder import TextCache
from models.few_rows import Threads
from models.int8_linear import BLOCK, Int8Weight, pack_int8, quantise_rows, unpack_int8
from models.int8_step import LayerWeight, Weights, decode_rows, remember_parallel, remember_serial

__all__ = ["Int8Decoder", "Int8Memory", "layer_weight"]


@dataclass(frozen=True)
class Int8Memory:
    """Cross-attention keys and values of a batch of windows, as `models.int8_attention` packs them.

    The arrays begin with (n_audio, n_layer, n_head), key_bias apart; n_keys is n_audio_ctx in whole blocks.

    keys : int8 (.., n_keys / BLOCK, d_head / 4, BLOCK, 4)
    key_scale, key_total : float32 and int32 (.., n_keys)
    key_bias : float32 (n_keys,), 0, and -inf past the last key
    values : int8 (.., d_head / BLOCK, n_keys / 4, BLOCK, 4)
    value_scale : float32 (.., d_head)
    windows : which of the n_audio these are
    """

    keys: npt.NDArray[np.int8]
    key_scale: npt.NDArray[np.float32]
    key_total: npt.NDArray[np.int32]
    key_bias: npt.NDArray[np.float32]
    values: npt.NDArray[np.int8]
    value_scale: npt.NDArray[np.float32]
    windows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.windows)

    def select(self, indices: list[int]) -> Int8Memory:
        """The windows at `indices`, in that order, without a copy."""
        chosen = tuple(self.windows[i] for i in indices)
        return replace(self, windows=chosen)


def _stack(weights: Sequence[Int8Weight]) -> Int8Weight:
    if len(weights) == 1:
        return Int8Weight._make(part[None] for part in weights[0])
    return Int8Weight._make(np.stack(parts) for parts in zip(*weights, strict=True))


def _together(modules: Sequence[Any]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weight and bias of linear layers that have the same input."""
    biases = [
        np.zeros(len(m.weight), np.float32) if m.bias is None else m.bias.detach().numpy() for m in modules
    ]
    return np.concatenate([m.weight.detach().numpy() for m in modules]), np.concatenate(biases)


def layer_weight(modules: Sequence[Sequence[Any]]) -> LayerWeight:
    """The weight of each layer's modules, which have the same input, and what INT8 leaves over of it."""
    main, rest = [], []
    for weight, bias in map(_together, modules):
        main.append(pack_int8(weight, bias))
        rest.append(pack_int8(weight - unpack_int8(main[-1], len(weight))))
    return LayerWeight(_stack(main), _stack(rest))


def _affine(module: Any) -> npt.NDArray[np.float32]:
    return np.stack([module.weight.detach().numpy(), module.bias.detach().numpy()])


class Int8Decoder:
    """The decoder of a `whisper.model.Whisper`, whose weights it quantises; see `CachedDecoder`.

    Raises ValueError where the model's heads are not a multiple of 32 wide.
    """

    def __init__(self, model: Any) -> None:
        decoder = model.decoder
        self.n_head = int(model.dims.n_text_head)
        self.d_model = int(model.dims.n_text_state)
        self.d_head = self.d_model // self.n_head
        self.n_layer = int(model.dims.n_text_layer)
        self._n_vocab = int(model.dims.n_vocab)
        if self.d_head % BLOCK:
            raise ValueError(f"heads {self.d_head} wide; INT8 takes multiples of {BLOCK}")
        blocks = decoder.blocks
        self._weights = Weights(
            query_key_value=layer_weight([(b.attn.query, b.attn.key, b.attn.value) for b in blocks]),
            out=layer_weight([(b.attn.out,) for b in blocks]),
            cross_query=layer_weight([(b.cross_attn.query,) for b in blocks]),
            cross_out=layer_weight([(b.cross_attn.out,) for b in blocks]),
            mlp_in=layer_weight([(b.mlp[0],) for b in blocks]),
            mlp_out=layer_weight([(b.mlp[2],) for b in blocks]),
            norms=np.stack(
                [np.stack([_affine(n) for n in (b.attn_ln, b.cross_attn_ln, b.mlp_ln)]) for b in blocks]
            ),
            last_norm=_affine(decoder.ln),
            embedding=decoder.token_embedding.weight.detach().numpy(),
            positions=decoder.positional_embedding.detach().numpy(),
        )
        self._vocabulary = _stack([pack_int8(self._weights.embedding)])
        self._memory = _stack([pack_int8(*_together((b.cross_attn.key, b.cross_attn.value))) for b in blocks])
        self._threads = Threads()

    def attend_to(self, states: Tensor) -> Int8Memory:
        """Cross-attention keys and values of encoder states, float32 (n_audio, n_audio_ctx, d_model)."""
        n_audio, n_ctx, _ = states.shape
        n_keys = -(-n_ctx // BLOCK) * BLOCK
        heads = (n_audio, self.n_layer, self.n_head)
        keys = np.zeros((*heads, n_keys // BLOCK, self.d_head // 4, BLOCK, 4), np.int8)
        key_scale, key_total = np.zeros((*heads, n_keys), np.float32), np.zeros((*heads, n_keys), np.int32)
        values = np.zeros((*heads, self.d_head // BLOCK, n_keys // 4, BLOCK, 4), np.int8)
        value_scale = np.zeros((*heads, self.d_head), np.float32)
        remember = remember_parallel if self._threads.take() > 1 else remember_serial
        x8 = np.empty((n_ctx, self.d_model), np.uint8)
        for i, state in enumerate(states.float().numpy()):
            scale, zero = quantise_rows(state, x8)
            quads = keys[i].view(np.int32)[..., 0], values[i].view(np.int32)[..., 0]
            remember(
                self._memory, x8, scale, zero, quads[0], key_scale[i], key_total[i], quads[1], value_scale[i]
            )
        bias = np.where(np.arange(n_keys) < n_ctx, np.float32(0), np.float32(-np.inf))
        return Int8Memory(keys, key_scale, key_total, bias, values, value_scale, tuple(range(n_audio)))

    def prefill(self, tokens: Tensor, memory: Int8Memory, cache: TextCache, positions: list[int]) -> Tensor:
        """Run a prompt once per window; see `CachedDecoder.prefill`."""
        n_audio, n_tokens = tokens.shape
        n_group = cache.keys.shape[2]
        sequences = np.repeat(np.arange(n_audio) * n_group, n_tokens)
        places = np.tile(np.arange(n_tokens), n_audio)
        wanted = (np.arange(n_audio)[:, None] * n_tokens + np.array(positions)).ravel()
        logits = self._run(tokens.flatten(), sequences, places, wanted, memory, cache)
        for block in (cache.keys, cache.values):
            block[:, :, 1:, :, :n_tokens] = block[:, :, :1, :, :n_tokens]
        cache.length = n_tokens
        return logits.view(n_audio, len(positions), -1)

    def step(
        self, tokens: Tensor, memory: Int8Memory, cache: TextCache, active: Tensor | None = None
    ) -> Tensor:
        """Run one more token of every sequence; see `CachedDecoder.step`.

        active : bool (n_audio * n_group,); the logits of the others are 0, and they cannot go on
        """
        capacity = cache.keys.shape[4]
        if cache.length >= capacity:
            raise IndexError(f"the cache holds {capacity} tokens")
        rows = np.arange(len(tokens)) if active is None else active.numpy().nonzero()[0]
        positions = np.full(len(rows), cache.length)
        found = self._run(tokens[rows], rows, positions, np.arange(len(rows)), memory, cache)
        cache.length += 1
        if len(rows) == len(tokens):
            return found
        logits = torch.zeros(len(tokens), found.shape[1])
        logits[rows] = found
        return logits

    def _run(
        self,
        tokens: Tensor,
        sequences: npt.NDArray[np.int64],
        positions: npt.NDArray[np.int64],
        wanted: npt.NDArray[np.int64],
        memory: Int8Memory,
        cache: TextCache,
    ) -> Tensor:
        windows = np.array(memory.windows)[sequences // cache.keys.shape[2]]
        logits = np.empty((len(wanted), self._vocabulary.scale.shape[1]), np.float32)
        decode_rows(
            self._weights,
            self._vocabulary,
            tokens.numpy(),
            sequences,
            positions,
            windows,
            wanted,
            cache.keys.flatten(1, 2).numpy(),
            cache.values.flatten(1, 2).numpy(),
            memory.keys,
            memory.key_scale,
            memory.key_total,
            memory.key_bias,
            memory.values,
            memory.value_scale,
            logits,
            self._threads.take(),
        )
        return torch.from_numpy(logits)[:, : self._n_vocab]
