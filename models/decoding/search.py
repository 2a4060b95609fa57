"""The search for a window's text: openai-whisper's decoding task, stepping a decoder.

Logit filters, greedy and beam search, and ranking are `whisper.decoding`'s. What differs is that a batch's
encoded audio is shared by the sequences of each window, and that samples can be drawn reproducibly.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from whisper.decoding import DecodingOptions, DecodingTask, GreedyDecoder, Inference
from whisper.tokenizer import Tokenizer
from whisper.utils import compression_ratio

from models.decoder import CachedDecoder, Memory, Sequences
from models.decoding.recogniser import Recogniser
from models.decoding.token_rules import GreedyChoice, TokenRules

__all__ = ["CachedInference", "Hypothesis", "WindowDecoding"]


class CachedInference(Inference):  # type: ignore[misc]
    """`whisper.decoding.Inference` on a decoder, for one batch of windows."""

    def __init__(
        self, sequences: Sequences, n_group: int, initial_tokens: tuple[int, ...], tokenizer: Tokenizer
    ) -> None:
        self._sequences = sequences
        self._n_group = n_group
        self._prompt_positions = [initial_tokens.index(tokenizer.sot), len(initial_tokens) - 1]
        self._eot = tokenizer.eot

    def logits(self, tokens: Tensor, _: Any) -> Tensor:
        """Compute the logits of a prompt at its start-of-transcript token and its end, then of each last token.

        Args:
            tokens: int64, shape (n_audio * n_group, n_tokens), whose sequences in a group share the prompt.

        Returns:
            float32, shape (n_audio * n_group, 2 or 1, n_vocab).
        """
        if tokens.shape[1] == self._prompt_positions[1] + 1:
            logits = self._sequences.prefill(tokens[:: self._n_group], self._prompt_positions)
            # Position by position in memory, as the rules read those of one.
            return logits.transpose(0, 1).repeat_interleave(self._n_group, dim=1).transpose(0, 1)
        last = tokens[:, -1]
        return self._sequences.step(last, last != self._eot).unsqueeze(1)

    def rearrange_kv_cache(self, source_indices: list[int]) -> None:
        """Let sequence i continue sequence `source_indices[i]`."""
        self._sequences.reorder(source_indices)


@dataclass(frozen=True)
class Hypothesis:
    """The text that one window was decoded to; its fields are those of `whisper.decoding.DecodingResult`.

    `tokens` are of text and timestamps, without prompt and end of text. `avg_logprob` is the mean per token, the end of
    text included. `temperature` is the one that the text was accepted at, or the last that was tried.
    """

    tokens: tuple[int, ...]
    text: str
    language: str
    avg_logprob: float
    no_speech_prob: float
    temperature: float
    compression_ratio: float


class _SeededSampling(GreedyDecoder):  # type: ignore[misc]
    """Sampling in which every window draws from a generator of its own."""

    def __init__(self, temperature: float, eot: int, generators: list[torch.Generator]) -> None:
        super().__init__(temperature, eot)
        self._generators = generators

    def update(self, tokens: Tensor, logits: Tensor, sum_logprobs: Tensor) -> tuple[Tensor, bool]:
        groups = F.softmax(logits / self.temperature, dim=-1).chunk(len(self._generators))
        pairs = zip(groups, self._generators, strict=True)
        next_tokens = torch.cat([torch.multinomial(group, 1, generator=g) for group, g in pairs]).squeeze(1)
        finished = tokens[:, -1] == self.eot
        logprobs = F.log_softmax(logits, dim=-1).gather(1, next_tokens[:, None]).squeeze(1)
        sum_logprobs += logprobs * ~finished
        next_tokens[finished] = self.eot
        return torch.cat([tokens, next_tokens[:, None]], dim=-1), bool((next_tokens == self.eot).all())


def _find_non_speech_tokens(tokenizer: Any) -> None:
    """Fill in the tokens that whisper suppresses, as it finds them, but for a check that takes 0.1 s to get ready.

    Before tiktoken encodes a text it looks for special tokens in it, with a pattern of 1,600; these texts have none.
    """
    if "non_speech_tokens" not in vars(tokenizer):
        plain = SimpleNamespace(encoding=SimpleNamespace(encode=tokenizer.encoding.encode_ordinary))
        vars(tokenizer)["non_speech_tokens"] = Tokenizer.non_speech_tokens.func(plain)


class WindowDecoding(DecodingTask):  # type: ignore[misc]
    """whisper's decoding task, on cross-attention keys and values that are computed elsewhere and shared by a group.

    whisper's own `run` takes one row of encoder states per sequence.
    """

    decoder: Any
    logit_filters: list[Any]
    sot_index: int

    def __init__(self, recogniser: Recogniser, options: DecodingOptions) -> None:
        _find_non_speech_tokens(recogniser.tokenizer(options.language, options.task))
        super().__init__(recogniser.weights, options)
        self._recogniser = recogniser
        self._language_at = self.sot_index + 1
        self.sot_index = 0  # where `CachedInference` puts its logits
        self.logit_filters = [TokenRules(self.logit_filters, self.tokenizer.eot, self.sample_begin)]
        greedy = options.beam_size is None and options.temperature == 0
        if greedy and not isinstance(recogniser.decoder, CachedDecoder):
            # whisper's own choice rounds log-probabilities as whisper does; it takes several times as long.
            self.decoder = GreedyChoice(self.tokenizer.eot)

    def sample_from(self, generators: list[torch.Generator]) -> None:
        """Draw the samples of each window from its own generator."""
        self.decoder = _SeededSampling(self.options.temperature, self.tokenizer.eot, generators)

    @torch.inference_mode()
    def decode(self, memory: Memory, languages: list[str]) -> list[Hypothesis]:
        """Decode every window of `memory`, each in its language."""
        capacity = min(self.n_ctx, self.sample_begin + self.sample_len)
        sequences = Sequences(self._recogniser.decoder, memory, self.n_group, capacity)
        self.inference = self.decoder.inference = CachedInference(
            sequences, self.n_group, self.initial_tokens, self.tokenizer
        )
        self.decoder.reset()
        tokens = torch.tensor([self.initial_tokens]).repeat(len(memory), 1)
        if self.model.is_multilingual:
            spoken = [self.tokenizer.to_language_token(language) for language in languages]
            tokens[:, self._language_at] = torch.tensor(spoken)
        tokens = tokens.repeat_interleave(self.n_group, dim=0)
        tokens, sum_logprobs, no_speech = self._main_loop(torch.empty(0), tokens)
        tokens = tokens.view(len(memory), self.n_group, -1)
        candidates, scores = self.decoder.finalize(tokens, sum_logprobs.view(len(memory), self.n_group))
        sampled = [[self._between(t) for t in group] for group in candidates]
        chosen = self.sequence_ranker.rank(sampled, scores)
        windows = zip(sampled, scores, chosen, languages, no_speech[:: self.n_group], strict=True)
        return [
            self._hypothesis(group[best].tolist(), its_scores[best], language, silence)
            for group, its_scores, best, language, silence in windows
        ]

    def _between(self, tokens: Tensor) -> Tensor:
        """The sampled tokens before the end of text."""
        return tokens[self.sample_begin : int((tokens == self.tokenizer.eot).nonzero()[0, 0])]

    def _hypothesis(self, tokens: list[int], score: float, language: str, no_speech: float) -> Hypothesis:
        text = self.tokenizer.decode(tokens).strip()
        return Hypothesis(
            tokens=tuple(tokens),
            text=text,
            language=language,
            avg_logprob=float(score / (len(tokens) + 1)),
            no_speech_prob=no_speech,
            temperature=float(self.options.temperature),
            compression_ratio=compression_ratio(text),
        )
