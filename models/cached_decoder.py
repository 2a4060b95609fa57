"""Whisper's text decoder in PyTorch, on a KV cache: the reference."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.arrays import Reals, Tokens
from models.decoder import rows_at
from models.weights.building import Model

__all__ = ["AudioMemory", "CachedDecoder"]


@dataclass(frozen=True)
class AudioMemory:
    """Cross-attention keys and values of a batch of windows, in PyTorch.

    Attributes:
        keys: per layer, float32, shape (windows, n_head, n_audio_ctx, d_head).
        values: the same of the values.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.keys[0])

    @property
    def positions(self) -> int:
        """See `models.decoder.Memory`."""
        return self.keys[0].shape[2]

    def select(self, indices: list[int]) -> AudioMemory:
        """See `models.decoder.Memory`."""
        if indices == list(range(len(self))):
            return self
        rows = rows_at(indices)
        return AudioMemory(tuple(k[rows] for k in self.keys), tuple(v[rows] for v in self.values))

    narrowed = select

    def joined(self, others: Sequence[AudioMemory], over: AudioMemory | None = None) -> AudioMemory:
        """See `models.decoder.Memory`."""
        keys, values = zip(*((m.keys, m.values) for m in (self, *others)), strict=True)
        return AudioMemory(*(tuple(map(torch.cat, zip(*x, strict=True))) for x in (keys, values)))


class CachedDecoder:
    """A model's decoder, by the layers of its `whisper.model.Whisper` in float32.

    Logits equal those of `model.whisper.decoder(tokens, states)` to float32 rounding.
    """

    exact = True

    def __init__(self, model: Model) -> None:
        """Decode with `model`."""
        self._model, self._module = model, model.whisper.decoder
        self._n_head = int(model.dims.n_text_head)
        self._followed: Sequence[tuple[int, int]] = ()
        self._attention = np.empty(0, np.float32)

    @cached_property
    def aligned(self) -> CachedDecoder:
        """See `models.decoder.Decoder`."""
        made = copy.copy(self)
        made._followed = self._model.alignment_heads
        made.__dict__["aligned"] = made
        return made

    @torch.inference_mode()
    def attend_to(self, states: Reals) -> AudioMemory:
        """See `models.decoder.Decoder`."""
        layers, x = [block.cross_attn for block in self._module.blocks], torch.from_numpy(states)
        return AudioMemory(
            tuple(self._heads(layer.key(x)).contiguous() for layer in layers),
            tuple(self._heads(layer.value(x)).contiguous() for layer in layers),
        )

    def start(self) -> list[tuple[Tensor, Tensor]]:
        """See `models.decoder.Decoder`: keys and values of each layer, shape (sequences, n_head, tokens, d_head)."""
        return []

    @torch.inference_mode()
    def run(
        self,
        tokens: Tokens,
        *,
        cache: list[tuple[Tensor, Tensor]],
        position: int,
        sources: npt.NDArray[np.int32],
        memory: AudioMemory,
        wanted: list[int],
    ) -> Reals:
        """See `models.decoder.Decoder`."""
        decoder, n_tokens = self._module, tokens.shape[1]
        embedding = decoder.token_embedding.weight
        x = (
            F.embedding(torch.from_numpy(tokens), embedding)
            + decoder.positional_embedding[position : position + n_tokens]
        )
        past = [(k[sources], v[sources]) for k, v in cache]
        cache.clear()
        followed: list[Tensor] = []
        for i, block in enumerate(decoder.blocks):
            y, attn = block.attn_ln(x), block.attn
            q, k, v = (self._heads(layer(y)) for layer in (attn.query, attn.key, attn.value))
            if past:
                k, v = torch.cat([past[i][0], k], 2), torch.cat([past[i][1], v], 2)
            cache.append((k, v))
            x = x + attn.out(self._join(F.scaled_dot_product_attention(q, k, v, is_causal=n_tokens > 1)))
            # The sequences of a window are more queries to the same keys and values.
            y = block.cross_attn.query(block.cross_attn_ln(x)).view(len(memory), -1, x.shape[2])
            attended = F.scaled_dot_product_attention(self._heads(y), memory.keys[i], memory.values[i])
            if mine := [head for layer, head in self._followed if layer == i]:
                q, k = self._heads(y)[:, mine], memory.keys[i][:, mine]
                scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
                by_sequence = scores.softmax(-1).view(len(memory), len(mine), -1, n_tokens, k.shape[2])
                followed.append(by_sequence.transpose(1, 2).flatten(0, 1))
            x = x + block.cross_attn.out(self._join(attended).view(x.shape))
            x = x + block.mlp(block.mlp_ln(x))
        if followed:
            self._attention = torch.cat(followed, 1).numpy()
        logits: Reals = (decoder.ln(x[:, wanted]) @ embedding.T).numpy()
        return logits

    def attention(self, cache: list[tuple[Tensor, Tensor]]) -> Reals:
        """See `models.decoder.Decoder`; of the last run with any cache."""
        return self._attention

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self._n_head, -1).transpose(1, 2)

    def _join(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)
