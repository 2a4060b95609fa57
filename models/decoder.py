"""Whisper's text decoder on a KV cache, with cross-attention keys and values that are computed once per window.

openai-whisper keeps its cache by forward hooks that concatenate tensors, and attends to one row of encoder states per
sequence. Here the cross-attention keys and values of a window are shared by all its beams and samples, and by all its
fallback temperatures, and windows that have ended are no longer computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["AudioMemory", "CachedDecoder", "Decoder", "Memory", "Sequences"]

_WORTH_DROPPING = 0.75
"""Share of the windows still going on at which the others are dropped: it copies the keys and values of those left."""


class Memory(Protocol):
    """Cross-attention keys and values of a batch of windows, as the decoder that made them reads them."""

    def __len__(self) -> int:
        """How many windows these are."""
        ...

    def select(self, indices: list[int]) -> Self:
        """The windows at `indices`, in that order; without a copy where these are all of them."""
        ...


class Decoder(Protocol):
    """A decoder's forward pass; `Sequences` is what to call it through."""

    def attend_to(self, states: Tensor) -> Memory:
        """Cross-attention keys and values of encoder states, float32, shape (windows, n_audio_ctx, n_text_state)."""
        ...

    def start(self) -> Any:
        """An empty KV cache."""
        ...

    def run(
        self,
        tokens: Tensor,
        *,
        cache: Any,
        position: int,
        sources: npt.NDArray[np.int32],
        memory: Any,
        wanted: list[int],
    ) -> Tensor:
        """Run tokens through all layers, and add their keys and values to the cache.

        Args:
            tokens: int64, shape (sequences, tokens), as many sequences to each window of `memory`, in its order.
            cache: from `start`; its rows become those of `tokens`.
            position: of the first token, which is how many the cache holds.
            sources: the row of the cache that each sequence continues; of no meaning where it is empty.
            memory: from `attend_to`.
            wanted: which of the tokens need logits.

        Returns:
            Logits, float32, shape (sequences, wanted, n_vocab).
        """
        ...


class Sequences:
    """Sequences of tokens that a decoder reads, as many of them to each of a batch of windows.

    They are counted over windows and group. All that a window's sequences have in common is computed once.
    """

    def __init__(self, decoder: Decoder, memory: Memory, n_group: int, capacity: int) -> None:
        """Begin `n_group` empty sequences for each window of `memory`, of at most `capacity` tokens."""
        self._decoder, self._memory, self._capacity = decoder, memory, capacity
        self._cache = decoder.start()
        self._length = 0
        self._windows = np.arange(len(memory))
        self._members = np.arange(len(memory) * n_group).reshape(-1, n_group)
        self._rows = np.zeros(self._members.size, np.int32)

    def prefill(self, tokens: Tensor, positions: list[int]) -> Tensor:
        """Read a prompt, once per window.

        Args:
            tokens: int64, shape (windows, tokens), at most as many as the capacity.
            positions: those whose logits are wanted.

        Returns:
            Logits, float32, shape (windows, positions, n_vocab).
        """
        rows = np.arange(len(tokens), dtype=np.int32)
        logits = self._run(tokens, rows, positions)
        self._rows[self._members] = rows[:, None]
        return logits

    def step(self, tokens: Tensor, active: Tensor | None = None) -> Tensor:
        """Read one more token of every sequence.

        Args:
            tokens: int64, shape (sequences,).
            active: bool, shape (sequences,): those that go on; the others cannot do so later.

        Returns:
            Logits, float32, shape (sequences, n_vocab); of sequences that have ended they mean nothing.

        Raises:
            IndexError: the sequences are as long as the capacity allows.
        """
        if self._length >= self._capacity:
            raise IndexError(f"the cache holds {self._capacity} tokens")
        if active is not None:
            self._drop_windows(active.numpy())
        chosen = self._members[self._windows].ravel()
        found = self._run(tokens[chosen, None], self._rows[chosen], [0])[:, 0]
        self._rows[chosen] = np.arange(len(chosen))
        if len(chosen) == len(tokens):
            return found
        return torch.zeros(len(tokens), found.shape[1]).index_copy_(0, torch.from_numpy(chosen), found)

    def reorder(self, sources: list[int]) -> None:
        """Let sequence i continue sequence `sources[i]` of the same window."""
        self._rows = self._rows[sources]

    def _run(self, tokens: Tensor, rows: npt.NDArray[np.int32], wanted: list[int]) -> Tensor:
        logits = self._decoder.run(
            tokens,
            cache=self._cache,
            position=self._length,
            sources=rows,
            memory=self._memory,
            wanted=wanted,
        )
        self._length += tokens.shape[1]
        return logits

    def _drop_windows(self, active: npt.NDArray[np.bool_]) -> None:
        going_on = np.flatnonzero(active[self._members[self._windows]].any(1))
        if 0 < len(going_on) <= _WORTH_DROPPING * len(self._windows):
            self._memory = self._memory.select(going_on.tolist())
            self._windows = self._windows[going_on]


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

    def select(self, indices: list[int]) -> AudioMemory:
        """See `Memory`."""
        if indices == list(range(len(self))):
            return self
        return AudioMemory(tuple(k[indices] for k in self.keys), tuple(v[indices] for v in self.values))


class CachedDecoder:
    """The decoder of a `whisper.model.Whisper`, by that model's own float32 layers: the reference.

    Logits equal those of `model.decoder(tokens, states)` to float32 rounding.
    """

    def __init__(self, model: Any) -> None:
        self._module = model.decoder
        self._n_head = int(model.dims.n_text_head)

    @torch.inference_mode()
    def attend_to(self, states: Tensor) -> AudioMemory:
        """See `Decoder`."""
        layers = [block.cross_attn for block in self._module.blocks]
        return AudioMemory(
            tuple(self._heads(layer.key(states)).contiguous() for layer in layers),
            tuple(self._heads(layer.value(states)).contiguous() for layer in layers),
        )

    def start(self) -> list[tuple[Tensor, Tensor]]:
        """See `Decoder`: keys and values of each layer, shape (sequences, n_head, tokens, d_head)."""
        return []

    @torch.inference_mode()
    def run(
        self,
        tokens: Tensor,
        *,
        cache: list[tuple[Tensor, Tensor]],
        position: int,
        sources: npt.NDArray[np.int32],
        memory: AudioMemory,
        wanted: list[int],
    ) -> Tensor:
        """See `Decoder`."""
        decoder, n_tokens = self._module, tokens.shape[1]
        embedding = decoder.token_embedding.weight
        x = F.embedding(tokens, embedding) + decoder.positional_embedding[position : position + n_tokens]
        past = [(k[sources], v[sources]) for k, v in cache]
        cache.clear()
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
            x = x + block.cross_attn.out(self._join(attended).view(x.shape))
            x = x + block.mlp(block.mlp_ln(x))
        logits: Tensor = decoder.ln(x[:, wanted]) @ embedding.T
        return logits

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self._n_head, -1).transpose(1, 2)

    def _join(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)
