"""Decoding options: openai-whisper's, checked against each other and against the model."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import isnan
from typing import Any, TypeVar

from models.languages import language_tag
from models.openai import LANGUAGES, TO_LANGUAGE_CODE
from models.voice import VadOptions

__all__ = ["DecodeOptions", "OptionsError", "language_code"]

_LAST_SECOND = 10_000_000

_Number = TypeVar("_Number", int, float)


class OptionsError(ValueError):
    """Decoding options that contradict each other or the model; the message is one line."""


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode: openai-whisper's options under its names, with its command line's defaults.

    Two differ: decoding is greedy unless `beam_size` is given, as in its Python interface, and `seed` makes
    sampling at temperatures over 0 reproducible (None draws from torch's global generator, as it does). It has no
    `vad`: only what those options call speech is decoded; None decodes everything.
    `clip_timestamps` is start,end,start,... in seconds, whose last end defaults to the end of the audio.

    Raises:
        OptionsError: the options contradict each other.
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
    vad: VadOptions | None = field(default_factory=VadOptions)

    def __post_init__(self) -> None:
        temperatures, clips, beams = self.temperatures, self.clips, self.beam_size
        tasks = ("transcribe", "translate")
        tried = bool(temperatures) and all(t == 0 or 0.001 <= t <= 10 for t in temperatures)
        ascending = all(0 <= t <= _LAST_SECOND for t in clips) and all(a <= b for a, b in pairwise(clips))
        candidates = (self.patience or 1) * (beams or 1)
        thresholds = (
            self.compression_ratio_threshold,
            self.logprob_threshold,
            self.no_speech_threshold,
            self.hallucination_silence_threshold,
        )
        timed = self.word_timestamps or self.hallucination_silence_threshold is None
        for holds, rule in (
            (self.task in tasks, f"task must be transcribe or translate, not {self.task!r}"),
            (tried, "temperature must be one or more numbers, each 0 or from 0.001 to 10"),
            (self.best_of is None or self.best_of >= 1, "best_of must be 1 or more"),
            (beams is None or beams >= 1, "beam_size must be 1 or more"),
            (beams is None or 0 in temperatures, "beam_size needs a temperature of 0"),
            (beams is not None or self.patience is None, "patience requires beam_size to be given"),
            (
                0.5 < candidates <= 10_000,
                "patience times beam_size must round to 1 or more, up to 10,000",
            ),
            (0 <= (self.length_penalty or 0) <= 1, "length_penalty (alpha) must be between 0 and 1"),
            (not any(t is not None and isnan(t) for t in thresholds), "a threshold must be a number"),
            (timed, "hallucination_silence_threshold requires word_timestamps"),
            (ascending, f"clip_timestamps must be seconds in ascending order, up to {_LAST_SECOND}"),
        ):
            if not holds:
                raise OptionsError(rule)
        _ = self.suppressed
        if self.language not in (None, "auto"):
            language_code(str(self.language))

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperatures to try in turn."""
        return self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)

    @property
    def clips(self) -> tuple[float, ...]:
        """`clip_timestamps` as seconds."""
        return _numbers(self.clip_timestamps, float, "clip_timestamps is not a list of seconds")

    @property
    def suppressed(self) -> tuple[int, ...]:
        """`suppress_tokens` as token ids; -1 stands for whisper's non-speech symbols."""
        return _numbers(self.suppress_tokens, int, "suppress_tokens is not a list of ids")

    def for_model(self, model: Any) -> DecodeOptions:
        """These options with the language as a code, English where the model knows nothing else.

        Raises:
            OptionsError: the model, a `whisper.model.Whisper`, cannot do what they ask for.
        """
        language = None if self.language in (None, "auto") else language_code(str(self.language))
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


def _numbers(
    given: str | tuple[_Number, ...], kind: Callable[[str], _Number], problem: str
) -> tuple[_Number, ...]:
    """A tuple as it is, or what a string lists between commas."""
    if not isinstance(given, str):
        return given
    try:
        return tuple(kind(part) for part in given.split(",")) if given else ()
    except ValueError:
        raise OptionsError(f"{problem}: {given!r}") from None


def language_code(language: str) -> str:
    """Whisper's code of a language, given that, the English name, or another tag (`en-US`, `zh_CN`, `ger`).

    Raises:
        OptionsError: there is no such language; with a suggestion.
    """
    name = language.lower()
    if name in LANGUAGES:
        return name
    if name in TO_LANGUAGE_CODE:
        return str(TO_LANGUAGE_CODE[name])
    if language_tag(name) in LANGUAGES:
        return language_tag(name)
    close = difflib.get_close_matches(name, [*LANGUAGES, *TO_LANGUAGE_CODE], n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise OptionsError(f"unknown language {language!r}{hint}")
