"""Whisper's text decoder on a KV cache, with cross-attention keys and values that are computed once per window.

openai-whisper keeps its cache by forward hooks that concatenate tensors, and attends to one row of encoder states per
sequence. Here the cross-attention keys and values of a window are shared by all its beams and samples, and by all its
fallback temperatures, and windows that have ended are no longer computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache, partial
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from kernels.arrays import Reals, Tokens
from models.weights.building import Dimensions

__all__ = ["Decoder", "Memory", "Sequences", "batch_invariant", "rows_at"]


_WORTH_DROPPING = 0.75
"""Share of the windows still going on at which the others are dropped: it copies the keys and values of those left."""

_TRIED_TOKENS = 4


class Memory(Protocol):
    """Cross-attention keys and values of a batch of windows, as the decoder that made them reads them."""

    def __len__(self) -> int:
        """How many windows these are."""
        ...

    @property
    def positions(self) -> int:
        """How many encoder states each window has."""
        ...

    def select(self, indices: list[int]) -> Self:
        """The windows at `indices`, in that order; without a copy where they follow each other."""
        ...

    def narrowed(self, indices: list[int]) -> Self:
        """The windows at `indices`, ascending; these are not to be read any more, as their place may be taken."""
        ...

    def joined(self, others: Sequence[Self], over: Self | None = None) -> Self:
        """These windows and those of others, of as many positions; without a copy where there are no others.

        They are written over those of `over`, which nobody reads any more, where it has room: new memory has to be
        cleared by the system first, which can take ten times as long as the copy.
        """
        ...


def rows_at(indices: list[int]) -> slice | list[int]:
    """What takes these rows of an array, without a copy where they follow each other."""
    first, end = indices[0], indices[0] + len(indices)
    return slice(first, end) if indices == list(range(first, end)) else indices


class Decoder(Protocol):
    """A decoder's forward pass; `Sequences` is what to call it through.

    Attributes:
        exact: whether it computes as openai-whisper does, in float32.
    """

    exact: bool

    def __hash__(self) -> int: ...

    @property
    def aligned(self) -> Decoder:
        """The same decoder, on the same memory, which keeps what its alignment heads attend to; see `attention`."""
        ...

    def attend_to(self, states: Reals) -> Memory:
        """Cross-attention keys and values of encoder states, float32, shape (windows, n_audio_ctx, n_text_state)."""
        ...

    def start(self) -> Any:
        """An empty KV cache."""
        ...

    def run(
        self,
        tokens: Tokens,
        *,
        cache: Any,
        position: int,
        sources: npt.NDArray[np.int32],
        memory: Any,
        wanted: list[int],
    ) -> Reals:
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

    def attention(self, cache: Any) -> Reals:
        """What the alignment heads paid attention to in the last run; of an `aligned` decoder.

        Returns:
            Cross-attention probabilities, float32, shape (sequences, heads, tokens, encoder positions).
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

    def prefill(self, tokens: Tokens, positions: list[int]) -> Reals:
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

    def step(self, tokens: Tokens, active: npt.NDArray[np.bool_] | None = None) -> Reals:
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
            self._drop_windows(active)
        chosen = self._members[self._windows].ravel()
        found = self._run(tokens[chosen, None], self._rows[chosen], [0])[:, 0]
        self._rows[chosen] = np.arange(len(chosen))
        if len(chosen) == len(tokens):
            return found
        every = np.zeros((len(tokens), found.shape[1]), np.float32)
        every[chosen] = found
        return every

    @property
    def attention(self) -> Reals:
        """Of the sequences and tokens read last; see `Decoder.attention`."""
        return self._decoder.attention(self._cache)

    def reorder(self, sources: list[int]) -> None:
        """Let sequence i continue sequence `sources[i]` of the same window."""
        self._rows = self._rows[sources]

    def _run(self, tokens: Tokens, rows: npt.NDArray[np.int32], wanted: list[int]) -> Reals:
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
            self._memory = self._memory.narrowed(going_on.tolist())
            self._windows = self._windows[going_on]


@lru_cache(maxsize=2)
def batch_invariant(decoder: Decoder, dims: Dimensions, windows: int, rows: int) -> bool:
    """Whether a window's logits are the same to the bit alone and among up to so many, on this processor.

    Which order a product sums in depends on its kernel, which is chosen by shape and processor and not by what is
    summed: one window's random numbers, several times over, show it. Tried is a prompt and a token after it. PyTorch's
    products do not claim it.

    Args:
        decoder: whose logits these are.
        dims: of its model.
        windows: the most that are decoded at once.
        rows: the most tokens that are read at once, of all windows together.
    """
    if decoder.exact:
        return False
    generator = np.random.default_rng(0)
    states = generator.standard_normal((1, dims.n_audio_ctx, dims.n_audio_state), np.float32)
    one = decoder.attend_to(states)
    several = one.joined([one] * (min(windows, rows) - 1))
    tokens = generator.integers(0, dims.n_vocab, (1, rows))

    def logits(n: int, prompt: int) -> Reals:
        sequences = Sequences(decoder, several.select(list(range(n))), 1, prompt + 1)
        read = tokens.repeat(n, axis=0)
        return np.stack(
            [sequences.prefill(read[:, :prompt], [prompt - 1])[:, 0], sequences.step(read[:, -1])]
        )

    alone = cache(partial(logits, 1))
    shapes = ((n, min(_TRIED_TOKENS, rows // n)) for n in range(2, len(several) + 1))
    return all((logits(n, prompt) == alone(prompt)).all() for n, prompt in shapes)
