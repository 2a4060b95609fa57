"""Whisper's text decoder with a preallocated self-attention cache and shared cross-attention memory.

openai-whisper keeps its cache by forward hooks that concatenate tensors at every token. Here the keys and
values of one window's audio are computed once and shared, as views, by all beams and samples of that
window and by all its fallback temperatures; the cache of the text is a fixed block that is written in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.few_rows import MOST_ROWS, Threads, attend, multiply, multiply_half

__all__ = ["AudioMemory", "CachedDecoder", "TextCache"]


@dataclass(frozen=True)
class AudioMemory:
    """Cross-attention keys and values of a batch of windows, float32.

    keys, values : per layer (n_audio, n_head, n_audio_ctx, d_head)
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.keys[0])

    def select(self, indices: list[int]) -> AudioMemory:
        """The windows at `indices`, in that order; without a copy where these are all of them."""
        if indices == list(range(len(self))):
            return self
        return AudioMemory(tuple(k[indices] for k in self.keys), tuple(v[indices] for v in self.values))


class TextCache:
    """Self-attention keys and values of the tokens so far, in one block per layer.

    keys, values : float32 (n_layer, n_audio, n_group, n_head, capacity, d_head), filled up to `length`
    """

    def __init__(self, decoder: Any, n_audio: int, n_group: int, capacity: int) -> None:
        shape = (decoder.n_layer, n_audio, n_group, decoder.n_head, capacity, decoder.d_head)
        self.keys = torch.empty(shape)
        self.values = torch.empty(shape)
        self.length = 0

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Append (n_audio, n_group or 1, n_head, n_tokens, d_head) to one layer, without moving `length`."""
        stop = self.length + keys.shape[-2]
        self.keys[layer, ..., self.length : stop, :] = keys
        self.values[layer, ..., self.length : stop, :] = values

    def reorder(self, sources: list[int]) -> None:
        """Let sequence i continue sequence `sources[i]`; sequences are counted over audio and group."""
        moved = [i for i, source in enumerate(sources) if i != source]
        if not moved:
            return
        origins = [sources[i] for i in moved]
        for block in (self.keys, self.values):
            filled = block.flatten(1, 2)[..., : self.length, :]
            filled[:, moved] = filled[:, origins]


class _Layer(NamedTuple):
    attn_ln: tuple[Tensor, Tensor]
    query: tuple[Tensor, Tensor]
    key: Tensor
    value: tuple[Tensor, Tensor]
    out: tuple[Tensor, Tensor]
    cross_ln: tuple[Tensor, Tensor]
    cross_query: tuple[Tensor, Tensor]
    cross_key: Tensor
    cross_value: tuple[Tensor, Tensor]
    cross_out: tuple[Tensor, Tensor]
    mlp_ln: tuple[Tensor, Tensor]
    mlp_in: tuple[Tensor, Tensor]
    mlp_out: tuple[Tensor, Tensor]


def _affine(module: Any) -> tuple[Tensor, Tensor]:
    return module.weight.detach(), module.bias.detach()


def _layer(block: Any) -> _Layer:
    return _Layer(
        attn_ln=_affine(block.attn_ln),
        query=_affine(block.attn.query),
        key=block.attn.key.weight.detach(),
        value=_affine(block.attn.value),
        out=_affine(block.attn.out),
        cross_ln=_affine(block.cross_attn_ln),
        cross_query=_affine(block.cross_attn.query),
        cross_key=block.cross_attn.key.weight.detach(),
        cross_value=_affine(block.cross_attn.value),
        cross_out=_affine(block.cross_attn.out),
        mlp_ln=_affine(block.mlp_ln),
        mlp_in=_affine(block.mlp[0]),
        mlp_out=_affine(block.mlp[2]),
    )


class CachedDecoder:
    """The decoder of a `whisper.model.Whisper`, reading that model's float32 CPU weights in place.

    Logits equal those of `model.decoder(tokens, states)` to float32 rounding.
    """

    def __init__(self, model: Any) -> None:
        decoder = model.decoder
        self.n_head = int(model.dims.n_text_head)
        self.d_model = int(model.dims.n_text_state)
        self.d_head = self.d_model // self.n_head
        self.n_ctx = int(model.dims.n_text_ctx)
        self.layers = [_layer(block) for block in decoder.blocks]
        self.n_layer = len(self.layers)
        self._embedding: Tensor = decoder.token_embedding.weight.detach()
        self._positions: Tensor = decoder.positional_embedding.detach()
        self._ln = _affine(decoder.ln)
        self._threads = Threads()
        self._nothing = torch.zeros(self.d_model)
        half = self._embedding.half()
        lossless = torch.equal(half.float(), self._embedding)
        self._half_embedding = half.numpy().view(np.uint16) if lossless else None

    @torch.inference_mode()
    def attend_to(self, states: Tensor) -> AudioMemory:
        """Cross-attention keys and values of encoder states, float32 (n_audio, n_audio_ctx, d_model)."""
        keys, values = [], []
        for layer in self.layers:
            keys.append(self._heads(F.linear(states, layer.cross_key)).contiguous())
            values.append(self._heads(F.linear(states, *layer.cross_value)).contiguous())
        return AudioMemory(tuple(keys), tuple(values))

    @torch.inference_mode()
    def prefill(self, tokens: Tensor, memory: AudioMemory, cache: TextCache, positions: list[int]) -> Tensor:
        """Run a prompt once per window, and give its cache to every sequence of the window's group.

        tokens : int64 (n_audio, n_tokens), n_tokens <= capacity, into an empty cache
        positions : the positions whose logits are wanted

        Returns float32 logits (n_audio, len(positions), n_vocab).
        """
        n_tokens = tokens.shape[1]
        x = F.embedding(tokens, self._embedding) + self._positions[:n_tokens]
        for i, layer in enumerate(self.layers):
            y = self._norm(x, layer.attn_ln)
            q, k, v = (self._heads(z) for z in self._project(y, layer))
            cache.write(i, k.unsqueeze(1), v.unsqueeze(1))
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=n_tokens > 1)
            x = x + F.linear(self._join(attended), *layer.out)
            q = self._heads(F.linear(self._norm(x, layer.cross_ln), *layer.cross_query))
            attended = F.scaled_dot_product_attention(q, memory.keys[i], memory.values[i])
            x = x + F.linear(self._join(attended), *layer.cross_out)
            x = x + self._mlp(x, layer)
        cache.length = n_tokens
        wanted = self._norm(x[:, positions], self._ln)
        return self._logits(wanted.flatten(0, 1)).view(*wanted.shape[:2], -1)

    @torch.inference_mode()
    def step(
        self, tokens: Tensor, memory: AudioMemory, cache: TextCache, active: Tensor | None = None
    ) -> Tensor:
        """Run one more token of every sequence.

        tokens : int64 (n_audio * n_group,)
        active : bool (n_audio * n_group,); the logits of the others are 0, and they cannot go on

        Returns float32 logits (n_audio * n_group, n_vocab). Raises IndexError where the cache is full.
        """
        capacity = cache.keys.shape[4]
        if cache.length >= capacity:
            raise IndexError(f"the cache holds {capacity} tokens")
        rows = torch.arange(len(tokens)) if active is None else active.nonzero()[:, 0]
        audio = rows // cache.keys.shape[2]
        x = F.embedding(tokens[rows], self._embedding) + self._positions[cache.length]
        stop = cache.length + 1
        for i, layer in enumerate(self.layers):
            y = self._norm(x, layer.attn_ln)
            q, k, v = self._project(y, layer)
            keys, values = cache.keys[i].flatten(0, 1), cache.values[i].flatten(0, 1)
            keys[rows, :, cache.length], values[rows, :, cache.length] = self._split(k), self._split(v)
            x = x + self._linear(self._attend(q, keys, values, rows, stop), *layer.out)
            q = self._linear(self._norm(x, layer.cross_ln), *layer.cross_query)
            keys, values = memory.keys[i], memory.values[i]
            x = x + self._linear(self._attend(q, keys, values, audio, keys.shape[2]), *layer.cross_out)
            x = x + self._mlp(x, layer)
        cache.length = stop
        logits = self._logits(self._norm(x, self._ln))
        if len(rows) == len(tokens):
            return logits
        return torch.zeros(len(tokens), logits.shape[1]).index_copy_(0, rows, logits)

    def _project(self, y: Tensor, layer: _Layer) -> tuple[Tensor, Tensor, Tensor]:
        return self._linear(y, *layer.query), self._linear(y, layer.key), self._linear(y, *layer.value)

    def _mlp(self, x: Tensor, layer: _Layer) -> Tensor:
        hidden = F.gelu(self._linear(self._norm(x, layer.mlp_ln), *layer.mlp_in))
        return self._linear(hidden, *layer.mlp_out)

    def _norm(self, x: Tensor, affine: tuple[Tensor, Tensor]) -> Tensor:
        return F.layer_norm(x, (self.d_model,), *affine)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.n_head, self.d_head).transpose(1, 2)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(-1, self.n_head, self.d_head)

    def _join(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """A linear layer of float32 (n, n_in), or any other shape that `torch.nn.functional.linear` takes."""
        if x.ndim != 2 or len(x) > MOST_ROWS:
            return F.linear(x, weight, bias)
        out = torch.empty(len(x), len(weight))
        added = self._nothing[: len(weight)] if bias is None else bias
        self._threads.take()
        multiply(weight.numpy(), added.numpy(), x.numpy(), out.numpy())
        return out

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, source: Tensor, length: int) -> Tensor:
        """Attention of rows q (n, d_model) to the first `length` of the keys and values of their sources."""
        out = torch.empty_like(q)
        self._threads.take()
        attend(
            self._split(q).numpy(),
            keys.numpy(),
            values.numpy(),
            source.numpy(),
            length,
            self._split(out).numpy(),
        )
        return out

    def _logits(self, x: Tensor) -> Tensor:
        """Scores float32 (n, n_vocab) of the rows of x (n, d_model)."""
        if self._half_embedding is None or len(x) > MOST_ROWS:
            return (self._embedding @ x.T).T
        logits = torch.empty(len(x), len(self._embedding))
        self._threads.take()
        multiply_half(self._half_embedding, x.contiguous().numpy(), logits.numpy())
        return logits
