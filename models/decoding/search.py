"""The search for a window's text: openai-whisper's decoding task, stepping a decoder.

What `whisper.decoding` does at each step is here for greedy search without PyTorch; sampling, beams, and whatever is
compared with openai-whisper to the last bit, choose by its own classes (`models.decoding.choices`). A batch's encoded
audio is shared by the sequences of each window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kernels.arrays import Reals, Tokens
from models.decoder import Memory, Sequences
from models.decoding.options import DecodeOptions
from models.decoding.recogniser import Recogniser
from models.decoding.token_rules import TokenRules
from models.openai import Tokenizer, submodule

__all__ = ["Choice", "GreedyChoice", "Hypothesis", "initial_tokens", "prompt_tokens", "search"]


@dataclass(frozen=True)
class Hypothesis:
    """The text that one window was decoded to; its fields are those of `whisper.decoding.DecodingResult`.

    `tokens` are of text and timestamps, without prompt and end of text. `avg_logprob` is the mean per token, the end of
    text included, and `no_speech_prob` that of the no-speech token at the start of the transcript. `temperature` is the
    one that the text was accepted at, or the last that was tried.
    """

    tokens: tuple[int, ...]
    text: str
    language: str
    avg_logprob: float
    no_speech_prob: float
    temperature: float
    compression_ratio: float


class Choice(Protocol):
    """How the next token of each sequence is chosen, and in the end one sequence of each window."""

    def update(self, tokens: Tokens, logits: Reals, sums: Reals) -> tuple[Tokens, bool]:
        """Append a token to each sequence, which goes on with end of text once it has ended.

        Args:
            tokens: shape (sequences, tokens).
            logits: shape (sequences, n_vocab), -inf for what may not follow.
            sums: each sequence's sum of log-probabilities, shape (sequences,), added to in place.

        Returns:
            The tokens, and whether all sequences have ended.
        """
        ...

    def best(self, tokens: Tokens, sums: Reals) -> list[tuple[Tokens, float]]:
        """The sequence that each window ends with, from the first token sampled to end of text, and its sum."""
        ...


class GreedyChoice:
    """The most probable token, as whisper's at a temperature of 0; see `Choice`."""

    def __init__(self, eot: int, sample_begin: int) -> None:
        """Choose for sequences whose first `sample_begin` tokens are given."""
        self._eot, self._sample_begin = eot, sample_begin

    def update(self, tokens: Tokens, logits: Reals, sums: Reals) -> tuple[Tokens, bool]:
        """See `Choice`."""
        chosen = np.full((len(tokens), 1), self._eot, np.int64)
        for i in np.flatnonzero(tokens[:, -1] != self._eot):
            row = logits[i]
            chosen[i] = row.argmax()
            sums[i] -= np.log(np.exp(row - row[chosen[i]]).sum())
        return np.concatenate([tokens, chosen], axis=1), bool((chosen == self._eot).all())

    def best(self, tokens: Tokens, sums: Reals) -> list[tuple[Tokens, float]]:
        """See `Choice`."""
        return list(zip(tokens[:, self._sample_begin :], sums.tolist(), strict=True))


def prompt_tokens(tokenizer: Tokenizer, prompt: str | None) -> list[int]:
    """The tokens of text that a user gives to go before a transcript; none for None."""
    return [] if prompt is None else tokenizer.encoding.encode_ordinary(" " + prompt.strip())


def search(
    recogniser: Recogniser,
    memory: Memory,
    languages: Sequence[str],
    options: DecodeOptions,
    *,
    prompts: Sequence[Sequence[int]],
    temperature: float = 0.0,
    windows: Sequence[int] = (),
    wanted: Callable[[], Sequence[bool]] | None = None,
) -> list[Hypothesis]:
    """Decode every window of `memory`, each in its language, once.

    Args:
        recogniser: of the model.
        memory: cross-attention keys and values.
        languages: their codes.
        options: how to decode.
        prompts: tokens of the text before each window, of one length, as far as there is room for them.
        temperature: 0 is greedy or, with `beam_size`, a search in beams.
        windows: numbers that the samples are drawn from; see `models.decoding.fallback`.
        wanted: tells before each token which windows are still to be decoded; the text of others ends there.
    """
    tokenizer, dims = recogniser.tokenizer(options.language, options.task), recogniser.weights.dims
    tokens = np.array([initial_tokens(tokenizer, options, p, dims.n_text_ctx) for p in prompts], np.int64)
    begin, longest = tokens.shape[1], dims.n_text_ctx // 2
    rules = TokenRules(tokenizer, options, begin, dims.n_audio_ctx)
    n_group = (options.best_of if temperature > 0 else options.beam_size) or 1
    capacity = min(dims.n_text_ctx, begin + longest)
    sequences = Sequences(recogniser.decoder, memory, n_group, capacity)
    choice: Choice = GreedyChoice(tokenizer.eot, begin)
    if temperature > 0 or options.beam_size is not None or recogniser.decoder.exact:
        from models.decoding.choices import WhispersChoice

        choice = WhispersChoice(tokenizer.eot, begin, options, temperature, windows, sequences.reorder)
    at = tokens[0].tolist().index(tokenizer.sot)
    if recogniser.weights.is_multilingual:
        tokens[:, at + 1] = [tokenizer.to_language_token(language) for language in languages]
    of_prompt = sequences.prefill(tokens, [at, begin - 1])
    no_speech = _probabilities(of_prompt[:, 0], tokenizer.no_speech)
    tokens = tokens.repeat(n_group, axis=0)
    logits, sums, ended = of_prompt[:, 1].repeat(n_group, axis=0), np.zeros(len(tokens), np.float32), False
    for step in range(longest):
        if step:
            if wanted is not None:
                tokens[~np.repeat(wanted(), n_group), -1] = tokenizer.eot
                if (tokens[:, -1] == tokenizer.eot).all():
                    break
            logits = sequences.step(tokens[:, -1], tokens[:, -1] != tokenizer.eot)
        rules.apply(logits, tokens)
        tokens, ended = choice.update(tokens, logits, sums)
        if ended or tokens.shape[1] > dims.n_text_ctx:
            break
    return [
        _hypothesis(tokenizer, sampled, score, language, probability, temperature)
        for (sampled, score), language, probability in zip(
            choice.best(tokens, sums), languages, no_speech, strict=True
        )
    ]


def initial_tokens(
    tokenizer: Tokenizer, options: DecodeOptions, prompt: Sequence[int], n_text_ctx: int
) -> list[int]:
    """What every sequence begins with: the previous text, as far as there is room, and the start of a transcript."""
    plain = options.without_timestamps
    start = tokenizer.sot_sequence_including_notimestamps if plain else tokenizer.sot_sequence
    previous = [tokenizer.sot_prev, *prompt[-(n_text_ctx // 2 - 1) :]] if prompt else []
    return [*previous, *start]


def _probabilities(logits: Reals, token: int) -> list[float]:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return [float(p) for p in weights[:, token] / weights.sum(axis=1)]


def _hypothesis(
    tokenizer: Tokenizer,
    sampled: Tokens,
    score: float,
    language: str,
    no_speech: float,
    temperature: float,
) -> Hypothesis:
    ends = np.flatnonzero(sampled == tokenizer.eot)
    tokens = sampled[: ends[0] if len(ends) else None].tolist()
    text = tokenizer.decode(tokens).strip()
    return Hypothesis(
        tokens=tuple(tokens),
        text=text,
        language=language,
        avg_logprob=score / (len(tokens) + 1),
        no_speech_prob=no_speech,
        temperature=temperature,
        compression_ratio=submodule("utils").compression_ratio(text),
    )
