"""A window of up to 30 s, and the segments, with their words, that its text is split into at the timestamps in it.

Source of the method: `whisper.transcribe`.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from models.decoding.options import DecodeOptions
from models.decoding.search import Hypothesis
from models.features import HOP_LENGTH, N_FRAMES, SAMPLE_RATE
from models.openai import Tokenizer

__all__ = ["Segment", "Window", "Word", "is_silent", "split"]


@dataclass(frozen=True)
class Word:
    """A word with its punctuation and leading space; `start` and `end` in seconds of the recording."""

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class Segment:
    """A stretch of speech that the model closed with a timestamp; its fields are those of openai-whisper's JSON.

    `seek` is the first 10 ms frame of the window that it was decoded from; `start` and `end` are seconds of the
    recording; `tokens` are of text and timestamps, and empty, like `text`, where the segment has no text or no length.
    Temperature, probabilities and compression ratio are those of the whole window. `words` is None unless word
    timestamps were asked for.
    """

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The segment as openai-whisper's JSON has it; `words` only where they were asked for."""
        fields = asdict(self) | {"tokens": list(self.tokens)}
        words = fields.pop("words")
        return fields if words is None else {**fields, "words": list(words)}


@dataclass(frozen=True)
class Window:
    """`size` frames from `seek`; zeros follow them up to 30 s."""

    seek: int
    size: int

    @property
    def offset(self) -> float:
        """Where it starts, in seconds of the recording."""
        return float(self.seek * HOP_LENGTH / SAMPLE_RATE)

    @property
    def duration(self) -> float:
        """What it holds of the recording, in seconds."""
        return float(self.size * HOP_LENGTH / SAMPLE_RATE)

    @property
    def full_end(self) -> float:
        """Where it would end with all 30 s, in seconds of the recording."""
        return float((self.seek + N_FRAMES) * HOP_LENGTH / SAMPLE_RATE)


class Judged(Protocol):
    """What a decoder says of its own text; `Hypothesis` has it."""

    @property
    def no_speech_prob(self) -> float:
        """Of the no-speech token at the start of the transcript."""

    @property
    def avg_logprob(self) -> float:
        """The mean per token."""


def is_silent(result: Judged, options: DecodeOptions) -> bool:
    """Whether the window probably holds no speech, and what was decoded from it is improbable."""
    if options.no_speech_threshold is None or result.no_speech_prob <= options.no_speech_threshold:
        return False
    return options.logprob_threshold is None or result.avg_logprob <= options.logprob_threshold


def split(
    window: Window, result: Hypothesis, tokenizer: Tokenizer, n_audio_ctx: int
) -> tuple[list[Segment], int, bool]:
    """Split a window's text between pairs of timestamps.

    A single timestamp at the end says that no speech follows it. After a pair, the text that follows is
    not complete, and is left to the next window. Timestamps are as fine as `n_audio_ctx` positions in 30 s.

    Returns:
        The segments, all with the number 0, the frame to go on from, and whether all was said.
    """
    begin = tokenizer.timestamp_begin
    stride = N_FRAMES // n_audio_ctx
    precision = stride * HOP_LENGTH / SAMPLE_RATE

    def segment(start: float, end: float, tokens: tuple[int, ...]) -> Segment:
        return Segment(
            id=0,
            seek=window.seek,
            start=window.offset + start,
            end=window.offset + end,
            text=tokenizer.decode([token for token in tokens if token < tokenizer.eot]),
            tokens=tokens,
            temperature=result.temperature,
            avg_logprob=result.avg_logprob,
            compression_ratio=result.compression_ratio,
            no_speech_prob=result.no_speech_prob,
        )

    tokens = result.tokens
    timed = [token >= begin for token in tokens]
    closed = timed[-2:] == [False, True]
    bounds = [i for i in range(1, len(tokens)) if timed[i - 1] and timed[i]]
    if bounds:
        if closed:
            bounds.append(len(tokens))
        segments = [
            segment((tokens[a] - begin) * precision, (tokens[b - 1] - begin) * precision, tokens[a:b])
            for a, b in itertools.pairwise([0, *bounds])
        ]
        step = window.size if closed else (tokens[bounds[-1] - 1] - begin) * stride
        return segments, window.seek + step, closed
    stamps = [token - begin for token in tokens if token >= begin]
    end = stamps[-1] * precision if stamps and stamps[-1] else window.duration
    return [segment(0.0, end, tokens)], window.seek + window.size, closed
