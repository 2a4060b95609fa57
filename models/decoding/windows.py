"""A window of up to 30 s, and the segments that its decoded text is split into at the timestamps in it.

Source of the method: `whisper.transcribe`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from whisper.audio import HOP_LENGTH, N_FRAMES, SAMPLE_RATE

from models.decoding.options import DecodeOptions
from models.decoding.results import Segment, Word
from models.decoding.search import Hypothesis

__all__ = ["Draft", "Window", "is_silent", "segment_of", "split"]

# While a window is worked on its segments are whisper's dicts, because whisper.timing edits them in place.
Draft = dict[str, Any]


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


def is_silent(result: Hypothesis, options: DecodeOptions) -> bool:
    """Whether the window probably holds no speech, and what was decoded from it is improbable."""
    if options.no_speech_threshold is None or result.no_speech_prob <= options.no_speech_threshold:
        return False
    return options.logprob_threshold is None or result.avg_logprob <= options.logprob_threshold


def split(
    window: Window, result: Hypothesis, tokenizer: Any, n_audio_ctx: int
) -> tuple[list[Draft], int, bool]:
    """The segments between pairs of timestamps, the frame to go on from, and whether all was said.

    tokenizer : the `whisper.tokenizer.Tokenizer` that the window was decoded with
    n_audio_ctx : positions of the encoder in 30 s, the resolution of timestamps

    A single timestamp at the end says that no speech follows it. After a pair, the text that follows is
    not complete, and is left to the next window.
    """
    begin = tokenizer.timestamp_begin
    stride = N_FRAMES // n_audio_ctx
    precision = stride * HOP_LENGTH / SAMPLE_RATE
    tokens = list(result.tokens)
    timed = [token >= begin for token in tokens]
    closed = timed[-2:] == [False, True]
    bounds = [i for i in range(1, len(tokens)) if timed[i - 1] and timed[i]]
    if bounds:
        if closed:
            bounds.append(len(tokens))
        drafts = []
        for first, last in itertools.pairwise([0, *bounds]):
            start = window.offset + (tokens[first] - begin) * precision
            end = window.offset + (tokens[last - 1] - begin) * precision
            drafts.append(_draft(tokenizer, window, start, end, tokens[first:last], result))
        step = window.size if closed else (tokens[bounds[-1] - 1] - begin) * stride
        return drafts, window.seek + step, closed
    duration = window.duration
    stamps = [token for token in tokens if token >= begin]
    if stamps and stamps[-1] != begin:
        duration = (stamps[-1] - begin) * precision
    drafts = [_draft(tokenizer, window, window.offset, window.offset + duration, tokens, result)]
    return drafts, window.seek + window.size, closed


def _draft(
    tokenizer: Any, window: Window, start: float, end: float, tokens: list[int], result: Hypothesis
) -> Draft:
    return {
        "seek": window.seek,
        "start": start,
        "end": end,
        "text": tokenizer.decode([token for token in tokens if token < tokenizer.eot]),
        "tokens": tokens,
        "temperature": result.temperature,
        "avg_logprob": result.avg_logprob,
        "compression_ratio": result.compression_ratio,
        "no_speech_prob": result.no_speech_prob,
    }


def segment_of(number: int, draft: Draft, with_words: bool) -> Segment:
    """The segment that a draft has become, with its words only where they are wanted."""
    fields = {**draft, "tokens": tuple(draft["tokens"])}
    words = tuple(
        Word(float(w["start"]), float(w["end"]), w["word"], float(w["probability"]))
        for w in fields.pop("words", ())
    )
    fields["start"], fields["end"] = float(fields["start"]), float(fields["end"])
    return Segment(id=number, **fields, words=words if with_words else None)
