"""Which token may come next: openai-whisper's logit filters, for all of its options at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from kernels.arrays import Reals, Tokens
from models.decoding.options import DecodeOptions
from models.openai import Tokenizer

__all__ = ["TokenRules"]


_NEVER = np.float32(-np.inf)
_WINDOW = 30.0  # seconds


class TokenRules:
    """The rules of `whisper.decoding`'s SuppressBlank, SuppressTokens and ApplyTimestampRules.

    Their probability rule compares sums of logits where whisper's compares log-probabilities, which differ by the same
    number.
    """

    def __init__(
        self, tokenizer: Tokenizer, options: DecodeOptions, sample_begin: int, n_audio_ctx: int
    ) -> None:
        """Make the rules for sequences whose first `sample_begin` tokens are given."""
        t = tokenizer
        self._eot, self._timestamp_begin, self._sample_begin = t.eot, t.timestamp_begin, sample_begin
        self._timed = not options.without_timestamps
        suppressed = {token for token in options.suppressed if token >= 0}
        if options.suppressed:
            suppressed |= {t.transcribe, t.translate, t.sot, t.sot_prev, t.sot_lm, t.no_speech}
        if -1 in options.suppressed:
            suppressed |= set(_non_speech_tokens(t))
        if self._timed:
            suppressed.add(t.no_timestamps)
        blank = {*t.encoding.encode_ordinary(" "), t.eot} if options.suppress_blank else set()
        self._always, self._at_first = (
            np.array(sorted(s), np.int64) for s in (suppressed, suppressed | blank)
        )
        latest = options.max_initial_timestamp
        self._first_too_late = (
            t.timestamp_begin + 1 + round(latest * n_audio_ctx / _WINDOW) if latest else None
        )

    def apply(self, logits: Reals, tokens: Tokens) -> None:
        """Set the logits (n, n_vocab) of what may not follow tokens (n, n_tokens) to -inf.

        Sequences that have ended keep their logits.
        """
        first = tokens.shape[1] == self._sample_begin
        for row, read in zip(logits, tokens, strict=True):
            if first or read[-1] != self._eot:
                row[self._at_first if first else self._always] = _NEVER
                if self._timed:
                    self._time(row, read[self._sample_begin :])

    def _time(self, row: Reals, sampled: Tokens) -> None:
        begin = self._timestamp_begin
        text, timestamps = row[:begin], row[begin:]
        stamps = sampled[sampled >= begin]
        last = len(sampled) >= 1 and sampled[-1] >= begin
        penultimate = len(sampled) < 2 or sampled[-2] >= begin
        if last and penultimate:
            timestamps[:] = _NEVER
        elif last:
            row[: self._eot] = _NEVER
        if len(stamps):
            # A segment has a length: its end is later than its start.
            row[begin : stamps[-1] + (0 if last and not penultimate else 1)] = _NEVER
        if not len(sampled):
            text[:] = _NEVER
            if self._first_too_late is not None:
                row[self._first_too_late :] = _NEVER
        top = timestamps.max()
        if top > _NEVER and np.log(np.exp(timestamps - top).sum()) + top > text.max():
            text[:] = _NEVER


def _non_speech_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens that whisper suppresses, as it finds them, but for a check that takes 0.1 s to get ready.

    Before tiktoken encodes a text it looks for special tokens in it, with a pattern of 1,600; these texts have none.
    """
    if "non_speech_tokens" not in vars(tokenizer):
        plain: Any = SimpleNamespace(encoding=SimpleNamespace(encode=tokenizer.encoding.encode_ordinary))
        vars(tokenizer)["non_speech_tokens"] = Tokenizer.non_speech_tokens.func(plain)
    found: tuple[int, ...] = tokenizer.non_speech_tokens
    return found
