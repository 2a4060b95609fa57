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

from models.decoder import CachedDecoder, Decoder, Memory, Sequences
from models.decoding.recogniser import Recogniser
from models.decoding.token_rules import GreedyChoice, TokenRules

__all__ = ["CachedInference", "Hypothesis", "WindowDecoding"]


class CachedInference(Inference):  # type: ignore[misc]
    """`whisper.decoding.Inference` on a decoder, for one batch of windows."""

    def __init__(self, decoder: Decoder, n_group: int, capacity: int, sot_index: int, eot: int) -> None:
        self._decoder = decoder
        self._n_group = n_group
        self._capacity = capacity
        self._sot_index = sot_index
        self._eot = eot
        self._sequences: Sequences | None = None

    def logits(self, tokens: Tensor, audio_features: Memory) -> Tensor:
        """Compute the logits of a prompt at its start-of-transcript token and its end, then of each last token.

        Args:
            tokens: int64, shape (n_audio * n_group, n_tokens), whose sequences in a group share the prompt.
            audio_features: of the windows.

        Returns:
            float32, shape (n_audio * n_group, 2 or 1, n_vocab).
        """
        if self._sequences is None:
            self._sequences = Sequences(self._decoder, audio_features, self._n_group, self._capacity)
            logits = self._sequences.prefill(tokens[:: self._n_group], [self._sot_index, tokens.shape[1] - 1])
            return logits.repeat_interleave(self._n_group, dim=0)
        last = tokens[:, -1]
        return self._sequences.step(last, last != self._eot).unsqueeze(1)

    def rearrange_kv_cache(self, source_indices: list[int]) -> None:
        """Let sequence i continue sequence `source_indices[i]`."""
        if self._sequences is not None:
            self._sequences.reorder(source_indices)

    def cleanup_caching(self) -> None:
        """Free the cache."""
        self._sequences = None


@dataclass(frozen=True)
class Hypothesis:
    """The text that one window was decoded to.

    Attributes:
        tokens: of text and timestamps, without prompt and end of text.
        text: without leading and trailing space.
        language: its code.
        avg_logprob: mean natural-log probability per token, the end of text included.
        no_speech_prob: probability of the no-speech token at the start of the transcript.
        temperature: the one that it was accepted at, or the last that was tried.
        compression_ratio: bytes of the text over bytes of the text deflated.
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


def _find_non_speech_tokens(tokenizer: Any) -> None:
    """Fill in the tokens that whisper suppresses, as it finds them, but for a check that takes 0.1 s to get ready.

    Before tiktoken encodes a text it looks for special tokens in it, with a pattern of 1,600; these texts have none.
    """
    if "non_speech_tokens" not in vars(tokenizer):
        plain = SimpleNamespace(encoding=SimpleNamespace(encode=tokenizer.encoding.encode_ordinary))
        vars(tokenizer)["non_speech_tokens"] = Tokenizer.non_speech_tokens.func(plain)


class WindowDecoding(DecodingTask):  # type: ignore[misc]
    """whisper's decoding task, on audio memory that is computed elsewhere and shared by a window's group.

    whisper's own `run` and `_main_loop` take one row of encoder states per sequence, and logits at every
    position of the prompt.
    """

    decoder: Any

    def __init__(self, recogniser: Recogniser, options: DecodingOptions) -> None:
        _find_non_speech_tokens(recogniser.tokenizer(options.language, options.task))
        super().__init__(recogniser.weights, options)
        capacity = min(self.n_ctx, self.sample_begin + self.sample_len)
        decoder = recogniser.decoder
        self.inference = CachedInference(decoder, self.n_group, capacity, self.sot_index, self.tokenizer.eot)
        if options.beam_size is not None:
            self.decoder.inference = self.inference
        elif options.temperature == 0 and not isinstance(decoder, CachedDecoder):
            # whisper's own choice rounds log-probabilities as whisper does; it takes several times as long.
            self.decoder = GreedyChoice(self.tokenizer.eot)
        self._rules = TokenRules(self.logit_filters, self.tokenizer.eot, self.sample_begin)

    def sample_from(self, generators: list[torch.Generator]) -> None:
        """Draw the samples of each window from its own generator."""
        self.decoder = _SeededSampling(self.options.temperature, self.tokenizer.eot, generators)

    @torch.inference_mode()
    def decode(self, memory: Memory, languages: list[str]) -> list[Hypothesis]:
        """Decode every window of `memory`, each in its language."""
        self.decoder.reset()
        tokens = torch.tensor([self.initial_tokens]).repeat(len(memory), 1)
        if self.model.is_multilingual:
            spoken = [self.tokenizer.to_language_token(language) for language in languages]
            tokens[:, self.sot_index + 1] = torch.tensor(spoken)
        tokens, sum_logprobs, no_speech = self._search(memory, tokens.repeat_interleave(self.n_group, dim=0))
        tokens = tokens.view(len(memory), self.n_group, -1)
        candidates, scores = self.decoder.finalize(tokens, sum_logprobs.view(len(memory), self.n_group))
        trimmed = [[self._between(t) for t in group] for group in candidates]
        chosen = self.sequence_ranker.rank(trimmed, scores)
        return [
            self._hypothesis(group[best].tolist(), group_scores[best], language, probability)
            for group, group_scores, best, language, probability in zip(
                trimmed, scores, chosen, languages, no_speech, strict=True
            )
        ]

    def _search(self, memory: Memory, tokens: Tensor) -> tuple[Tensor, Tensor, list[float]]:
        sum_logprobs = torch.zeros(len(tokens))
        no_speech = [float("nan")] * len(memory)
        try:
            for i in range(self.sample_len):
                logits = self.inference.logits(tokens, memory)
                if i == 0 and self.tokenizer.no_speech is not None:
                    at_start = logits[:: self.n_group, 0].softmax(dim=-1)
                    no_speech = at_start[:, self.tokenizer.no_speech].tolist()
                logits = logits[:, -1].contiguous()
                self._rules.apply(logits, tokens)
                tokens, completed = self.decoder.update(tokens, logits, sum_logprobs)
                if completed or tokens.shape[-1] > self.n_ctx:
                    break
        finally:
            self.inference.cleanup_caching()
        return tokens, sum_logprobs, no_speech

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
