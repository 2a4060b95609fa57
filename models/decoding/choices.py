"""openai-whisper's own choice of the next token, in PyTorch: greedy, by sampling, or in beams."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from whisper.decoding import BeamSearchDecoder, GreedyDecoder, MaximumLikelihoodRanker

from kernels.arrays import Reals, Tokens
from models.decoding.options import DecodeOptions

__all__ = ["WhispersChoice"]


class WhispersChoice:
    """A `whisper.decoding.TokenDecoder` on NumPy's arrays, with whisper's ranking; see `models.decoding.search.Choice`.

    With a seed every window draws its samples from a generator of its own.
    """

    def __init__(
        self,
        eot: int,
        sample_begin: int,
        options: DecodeOptions,
        temperature: float,
        windows: Sequence[int],
        reorder: Callable[[list[int]], None],
    ) -> None:
        """Make the choice that the options ask for at that temperature; beams `reorder` the decoder's sequences."""
        self._eot, self._sample_begin = eot, sample_begin
        self._ranker = MaximumLikelihoodRanker(options.length_penalty)
        self._n_group = 1
        self._decoder: Any = GreedyDecoder(temperature, eot)
        if temperature > 0:
            self._n_group = options.best_of or 1
            if options.seed is not None:
                generators = [_generator(options.seed, window, temperature) for window in windows]
                self._decoder = _SeededSampling(temperature, eot, generators)
        elif options.beam_size is not None:
            self._n_group = options.beam_size
            inference = SimpleNamespace(rearrange_kv_cache=reorder)
            self._decoder = BeamSearchDecoder(options.beam_size, eot, inference, options.patience)

    def update(self, tokens: Tokens, logits: Reals, sums: Reals) -> tuple[Tokens, bool]:
        """See `models.decoding.search.Choice`."""
        found, ended = self._decoder.update(*map(torch.from_numpy, (tokens, logits, sums)))
        return found.numpy(), bool(ended)

    def best(self, tokens: Tokens, sums: Reals) -> list[tuple[Tokens, float]]:
        """See `models.decoding.search.Choice`."""
        grouped = torch.from_numpy(tokens).view(-1, self._n_group, tokens.shape[1])
        candidates, scores = self._decoder.finalize(grouped, torch.from_numpy(sums).view(-1, self._n_group))
        sampled = [
            [t[self._sample_begin : int((t == self._eot).nonzero()[0, 0])] for t in group]
            for group in candidates
        ]
        chosen = self._ranker.rank(sampled, scores)
        return [
            (group[i].numpy(), float(of_group[i]))
            for group, of_group, i in zip(sampled, scores, chosen, strict=True)
        ]


class _SeededSampling(GreedyDecoder):  # type: ignore[misc]
    """Sampling in which every window draws from a generator of its own."""

    def __init__(self, temperature: float, eot: int, generators: list[torch.Generator]) -> None:
        super().__init__(temperature, eot)
        self._generators = generators

    def update(self, tokens: Tensor, logits: Tensor, sum_logprobs: Tensor) -> tuple[Tensor, bool]:
        groups = F.softmax(logits / self.temperature, dim=-1).chunk(len(self._generators))
        drawn = [
            torch.multinomial(group, 1, generator=generator)
            for group, generator in zip(groups, self._generators, strict=True)
        ]
        next_tokens = torch.cat(drawn).squeeze(1)
        finished = tokens[:, -1] == self.eot
        logprobs = F.log_softmax(logits, dim=-1).gather(1, next_tokens[:, None]).squeeze(1)
        sum_logprobs += logprobs * ~finished
        next_tokens[finished] = self.eot
        return torch.cat([tokens, next_tokens[:, None]], dim=-1), bool((next_tokens == self.eot).all())


def _generator(seed: int, window: int, temperature: float) -> torch.Generator:
    # torch's CPU generator uses 32 bits of its seed.
    return torch.Generator().manual_seed(zlib.crc32(f"{seed} {window} {temperature:.6f}".encode()))
