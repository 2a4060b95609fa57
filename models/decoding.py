"""From encoder states to text: decoding options, and decoding with temperature fallback.

The search itself (logit filters, beam search, ranking) is openai-whisper's; the forward pass is
`models.decoder.CachedDecoder`. Fallback follows `whisper.transcribe`, for a batch of windows at once.
"""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from whisper.decoding import DecodingOptions
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE, get_tokenizer

from models.decoder import AudioMemory, CachedDecoder, Hypothesis, TextCache, WindowDecoding

__all__ = [
    "DecodeOptions",
    "Hypothesis",
    "OptionsError",
    "decode_with_fallback",
    "decoder_of",
    "detect_languages",
    "language_code",
]

_decoders: WeakKeyDictionary[Any, CachedDecoder] = WeakKeyDictionary()


class OptionsError(ValueError):
    """Decoding options that contradict each other or the model; the message is one line."""


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode: openai-whisper's options under its names, with its command line's defaults.

    Two differ: decoding is greedy unless `beam_size` is given, as in its Python interface, and `seed` makes
    sampling at temperatures over 0 reproducible (None draws from torch's global generator, as it does).
    `clip_timestamps` is start,end,start,... in seconds, whose last end defaults to the end of the audio.

    Raises OptionsError, a ValueError, where options contradict each other.
    """

    task: str = "transcribe"
    language: str | None = None
    temperature: float | tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    best_of: int | None = 5
    beam_size: int | None = None
    patience: float | None = None
    length_penalty: float | None = None
    suppress_tokens: str | tuple[int, ...] = "-1"
    suppress_blank: bool = True
    max_initial_timestamp: float | None = 1.0
    without_timestamps: bool = False
    initial_prompt: str | None = None
    carry_initial_prompt: bool = False
    condition_on_previous_text: bool = True
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    word_timestamps: bool = False
    prepend_punctuations: str = "\"'“¿([{-"
    append_punctuations: str = "\"'.。,，!！?？:：”)]}、"
    clip_timestamps: str | tuple[float, ...] = "0"
    hallucination_silence_threshold: float | None = None
    seed: int | None = 0

    def __post_init__(self) -> None:
        temperatures, clips = self.temperatures, self.clips
        contradictions = {
            f"task must be transcribe or translate, not {self.task!r}": self.task
            not in ("transcribe", "translate"),
            "temperature must be one or more numbers of 0 or more": not temperatures
            or not all(0 <= t < float("inf") for t in temperatures),
            "best_of must be 1 or more": self.best_of is not None and self.best_of < 1,
            "beam_size must be 1 or more": self.beam_size is not None and self.beam_size < 1,
            "beam_size needs a temperature of 0": self.beam_size is not None and 0 not in temperatures,
            "patience requires beam_size to be given": self.patience is not None and self.beam_size is None,
            "patience times beam_size must round to 1 or more": (self.patience or 1) * (self.beam_size or 1)
            <= 0.5,
            "length_penalty (alpha) must be between 0 and 1": self.length_penalty is not None
            and not 0 <= self.length_penalty <= 1,
            "hallucination_silence_threshold requires word_timestamps": not self.word_timestamps
            and self.hallucination_silence_threshold is not None,
            "clip_timestamps must be seconds in ascending order": any(t < 0 or t != t for t in clips)
            or any(b < a for a, b in pairwise(clips)),
        }
        for message, holds in contradictions.items():
            if holds:
                raise OptionsError(message)
        _ = self.suppressed

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperatures to try in turn."""
        return self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)

    @property
    def clips(self) -> tuple[float, ...]:
        """`clip_timestamps` as seconds."""
        if not isinstance(self.clip_timestamps, str):
            return self.clip_timestamps
        try:
            return tuple(float(t) for t in self.clip_timestamps.split(",")) if self.clip_timestamps else ()
        except ValueError:
            raise OptionsError(
                f"clip_timestamps is not a list of seconds: {self.clip_timestamps!r}"
            ) from None

    @property
    def suppressed(self) -> tuple[int, ...]:
        """`suppress_tokens` as token ids; -1 stands for whisper's non-speech symbols."""
        if not isinstance(self.suppress_tokens, str):
            return self.suppress_tokens
        try:
            return tuple(int(t) for t in self.suppress_tokens.split(",")) if self.suppress_tokens else ()
        except ValueError:
            raise OptionsError(f"suppress_tokens is not a list of ids: {self.suppress_tokens!r}") from None

    def for_model(self, model: Any) -> DecodeOptions:
        """These options with the language as a code, English where the model knows nothing else.

        Raises OptionsError where the model cannot do what they ask for.
        """
        language = None if self.language is None else language_code(self.language)
        if not model.is_multilingual:
            if self.task == "translate":
                raise OptionsError("an English-only model cannot translate; choose a multilingual model")
            if language not in (None, "en"):
                raise OptionsError(f"an English-only model cannot transcribe {LANGUAGES[language]}")
            language = "en"
        elif language is not None and language not in list(LANGUAGES)[: model.num_languages]:
            raise OptionsError(f"this model does not know {LANGUAGES[language]}")
        unknown = [t for t in self.suppressed if not -1 <= t < model.dims.n_vocab]
        if unknown:
            raise OptionsError(f"suppress_tokens names a token that the model does not have: {unknown[0]}")
        return self if language == self.language else replace(self, language=language)


def language_code(language: str) -> str:
    """Whisper's code of a language given by code or English name. Raises OptionsError with a suggestion."""
    name = language.lower()
    if name in LANGUAGES:
        return name
    if name in TO_LANGUAGE_CODE:
        return str(TO_LANGUAGE_CODE[name])
    close = difflib.get_close_matches(name, [*LANGUAGES, *TO_LANGUAGE_CODE], n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise OptionsError(f"unknown language {language!r}{hint}")


def decoder_of(model: Any) -> CachedDecoder:
    """The `CachedDecoder` of a `whisper.model.Whisper`, made once per model."""
    decoder = _decoders.get(model)
    if decoder is None:
        decoder = _decoders[model] = CachedDecoder(model)
    return decoder


def detect_languages(model: Any, memory: AudioMemory) -> list[dict[str, float]]:
    """Probability of every language, for each window of `memory`; the method is `whisper.detect_language`.

    Raises ValueError where the model knows only English.
    """
    if not model.is_multilingual:
        raise ValueError("an English-only model cannot detect languages")
    tokenizer = get_tokenizer(True, num_languages=model.num_languages)
    decoder = decoder_of(model)
    start = torch.full((len(memory), 1), tokenizer.sot)
    cache = TextCache(decoder, len(memory), 1, capacity=1)
    logits = decoder.prefill(start, memory, cache, [0])[:, 0]
    codes, tokens = tokenizer.all_language_codes, list(tokenizer.all_language_tokens)
    probabilities = logits[:, tokens].softmax(dim=-1).tolist()
    return [dict(zip(codes, row, strict=True)) for row in probabilities]


def decode_with_fallback(
    model: Any,
    states: Tensor,
    options: DecodeOptions,
    *,
    prompt: Sequence[int] = (),
    windows: Sequence[int] | None = None,
) -> list[Hypothesis]:
    """Decode a batch of encoded windows; those that fail are decoded again at the next temperature.

    A window fails where its text is too repetitive or too improbable, unless it is silence, as in
    `whisper.transcribe`. The encoder's keys and values are computed once for all temperatures.

    states : float32 (B, n_audio_ctx, n_audio_state)
    prompt : tokens of the previous text, the same for every window
    windows : a number per window from which, with `options.seed`, its samples are drawn, so that they do
        not depend on the batch that the window is in; 0, 1, ... unless given

    Where `options.language` is None each window is decoded in the language that it is detected to be in.
    Raises ValueError where the options do not suit the model.
    """
    options = options.for_model(model)
    decoder = decoder_of(model)
    memory = decoder.attend_to(states)
    numbers = list(range(len(memory))) if windows is None else list(windows)
    if options.language is None:
        languages = [max(p, key=p.__getitem__) for p in detect_languages(model, memory)]
    else:
        languages = [options.language] * len(memory)
    results: dict[int, Hypothesis] = {}
    pending = list(range(len(memory)))
    for temperature in options.temperatures:
        task = WindowDecoding(model, decoder, _whisper_options(options, temperature, prompt))
        if temperature > 0 and options.seed is not None:
            task.sample_from([_generator(options.seed, numbers[i], temperature) for i in pending])
        decoded = task.decode(memory.select(pending), [languages[i] for i in pending])
        results.update(zip(pending, decoded, strict=True))
        pending = [i for i in pending if _failed(results[i], options)]
        if not pending:
            break
    return [results[i] for i in range(len(memory))]


def _failed(result: Hypothesis, options: DecodeOptions) -> bool:
    too_repetitive = (
        options.compression_ratio_threshold is not None
        and result.compression_ratio > options.compression_ratio_threshold
    )
    too_improbable = options.logprob_threshold is not None and result.avg_logprob < options.logprob_threshold
    silent = options.no_speech_threshold is not None and result.no_speech_prob > options.no_speech_threshold
    return (too_repetitive or too_improbable) and not (silent and too_improbable)


def _generator(seed: int, window: int, temperature: float) -> torch.Generator:
    # torch's CPU generator uses 32 bits of its seed.
    return torch.Generator().manual_seed(zlib.crc32(f"{seed} {window} {temperature:.6f}".encode()))


def _whisper_options(options: DecodeOptions, temperature: float, prompt: Sequence[int]) -> DecodingOptions:
    greedy = temperature == 0
    return DecodingOptions(
        task=options.task,
        language=options.language,
        temperature=temperature,
        best_of=None if greedy else options.best_of,
        beam_size=options.beam_size if greedy else None,
        patience=options.patience if greedy else None,
        length_penalty=options.length_penalty,
        prompt=list(prompt),
        # A list of its own for each task: whisper extends it in place.
        suppress_tokens=list(options.suppressed),
        suppress_blank=options.suppress_blank,
        without_timestamps=options.without_timestamps,
        max_initial_timestamp=options.max_initial_timestamp,
        fp16=False,
    )
