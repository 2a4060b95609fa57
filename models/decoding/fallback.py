"""From encoder states to text: detecting the language, and decoding with temperature fallback.

Fallback follows `whisper.transcribe`, for a batch of windows at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.decoder import Memory, Sequences
from models.decoding.options import DecodeOptions
from models.decoding.recogniser import Recogniser
from models.decoding.search import Hypothesis, search

__all__ = ["decode_with_fallback", "detect_languages", "failed"]


def detect_languages(recogniser: Recogniser, memory: Memory) -> list[dict[str, float]]:
    """The probability of every language's code, for each window; the method is `whisper.detect_language`.

    Raises:
        ValueError: the model knows only English.
    """
    if not recogniser.weights.is_multilingual:
        raise ValueError("an English-only model cannot detect languages")
    tokenizer, decoder = recogniser.tokenizer(), recogniser.decoder
    start = np.full((len(memory), 1), tokenizer.sot)
    logits = Sequences(decoder, memory, n_group=1, capacity=1).prefill(start, [0])[:, 0]
    codes, tokens = tokenizer.all_language_codes, list(tokenizer.all_language_tokens)
    chosen = np.exp(logits[:, tokens] - logits[:, tokens].max(axis=1, keepdims=True))
    probabilities = chosen / chosen.sum(axis=1, keepdims=True)
    return [dict(zip(codes, row.tolist(), strict=True)) for row in probabilities]


def decode_with_fallback(
    recogniser: Recogniser,
    memory: Memory,
    options: DecodeOptions,
    *,
    prompt: Sequence[int] = (),
    windows: Sequence[int] | None = None,
) -> list[Hypothesis]:
    """Decode a batch of windows; those that fail are decoded again at the next temperature.

    A window fails where its text is too repetitive or too improbable, unless it is silence, as in
    `whisper.transcribe`.

    Args:
        recogniser: of the model.
        memory: cross-attention keys and values of the encoded windows, for all temperatures.
        options: without a language each window is decoded in the one that it is detected to be in.
        prompt: tokens of the previous text, the same for every window.
        windows: a number per window from which, with `options.seed`, its samples are drawn, so that they do
            not depend on the batch that the window is in; 0, 1, ... unless given.

    Raises:
        ValueError: the options do not suit the model.
    """
    options = options.for_model(recogniser.weights)
    numbers = list(range(len(memory))) if windows is None else list(windows)
    if options.language is None:
        languages = [max(p, key=p.__getitem__) for p in detect_languages(recogniser, memory)]
    else:
        languages = [options.language] * len(memory)
    results: dict[int, Hypothesis] = {}
    pending = list(range(len(memory)))
    for temperature in options.temperatures:
        decoded = (recogniser.search or search)(
            recogniser,
            memory.select(pending),
            [languages[i] for i in pending],
            options,
            prompts=[prompt] * len(pending),
            temperature=temperature,
            windows=[numbers[i] for i in pending],
        )
        results.update(zip(pending, decoded, strict=True))
        pending = [i for i in pending if failed(results[i], options)]
        if not pending:
            break
    return [results[i] for i in range(len(memory))]


def failed(result: Hypothesis, options: DecodeOptions) -> bool:
    """Whether a text is too repetitive or too improbable, and not because there is silence."""
    ratio, logprob = options.compression_ratio_threshold, options.logprob_threshold
    too_repetitive = ratio is not None and result.compression_ratio > ratio
    too_improbable = logprob is not None and result.avg_logprob < logprob
    silent = options.no_speech_threshold is not None and result.no_speech_prob > options.no_speech_threshold
    return (too_repetitive or too_improbable) and not (silent and too_improbable)
