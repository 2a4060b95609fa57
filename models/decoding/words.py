"""When each word of a window was said, and the segments that the model made up in silence, told by that.

The methods, rules and numbers are those of `whisper.timing`, on states that are encoded already, and of
`whisper.transcribe`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from models.decoding.options import DecodeOptions
from models.decoding.recogniser import Recogniser
from models.decoding.segments import Segment, Window, Word
from models.features import FRAMES_PER_SECOND, LogMelFeatures
from models.openai import Tokenizer

__all__ = ["drop_hallucinations", "last_word_end", "with_words"]

_PUNCTUATION = "\"'“¿([{-\"'.。,，!！?？:：”)]}、"


class _Encoded:
    """A model whose audio is encoded already, as `whisper.timing.find_alignment` calls it."""

    def __init__(self, weights: Any) -> None:
        self.dims = weights.dims
        self.device = weights.device
        self.decoder = weights.decoder
        self.alignment_heads = weights.alignment_heads

    def __call__(self, states: Any, tokens: Any) -> Any:
        return self.decoder(tokens, states)


def with_words(
    segments: Sequence[Segment],
    window: Window,
    states: npt.NDArray[np.float32],
    recogniser: Recogniser,
    tokenizer: Tokenizer,
    options: DecodeOptions,
    spoken_until: float,
) -> list[Segment]:
    """Find the words of a window's segments, which then start and end with them.

    `states` are the encoder's, float32, shape (n_audio_ctx, n_audio_state); the last word before the window ended at
    `spoken_until` seconds.
    """
    import torch
    from whisper.timing import add_word_timestamps

    # whisper edits dictionaries in place.
    timed: list[dict[str, Any]] = [
        {"seek": s.seek, "start": s.start, "end": s.end, "tokens": s.tokens, "words": []} for s in segments
    ]
    add_word_timestamps(
        segments=timed,
        model=_Encoded(recogniser.weights.whisper),
        tokenizer=tokenizer,
        mel=torch.from_numpy(states),
        num_frames=window.size,
        prepend_punctuations=options.prepend_punctuations,
        append_punctuations=options.append_punctuations,
        last_speech_timestamp=spoken_until,
    )
    return [
        replace(
            segment,
            start=float(found["start"]),
            end=float(found["end"]),
            words=tuple(
                Word(w["word"], float(w["start"]), float(w["end"]), float(w["probability"]))
                for w in found["words"]
            ),
        )
        for segment, found in zip(segments, timed, strict=True)
    ]


def last_word_end(segments: Sequence[Segment]) -> float | None:
    """When the last word ended, or the last segment where none has a word; None where there are no segments."""
    ends = (segment.words[-1].end for segment in reversed(segments) if segment.words)
    return next(ends, segments[-1].end if segments else None)


def drop_hallucinations(
    segments: list[Segment], window: Window, features: LogMelFeatures, threshold: float, spoken_until: float
) -> tuple[list[Segment] | None, int | None]:
    """Drop segments, with words, that are probably hallucinated in silence, and skip that silence.

    Silence is skipped where it is longer than `threshold` seconds; the last word before the window ended at
    `spoken_until` seconds.

    Returns:
        The segments to keep, None where leading silence is to be skipped before decoding again; and the frame to go on
        from, None where it does not change.
    """
    first = _next_with_words(segments)
    if first is not None and _is_anomalous(first):
        gap = first.start - window.offset
        if gap > threshold:
            return None, window.seek + max(1, round(gap * FRAMES_PER_SECOND))
    previous_end = spoken_until
    for i, segment in enumerate(segments):
        if not segment.words:
            continue
        if _is_anomalous(segment):
            following = _next_with_words(segments[i + 1 :])
            next_start = window.offset + window.duration
            if following is not None and following.words:
                next_start = following.words[0].start
            silence_before = (
                segment.start - previous_end > threshold
                or segment.start < threshold
                or segment.start - window.offset < 2.0
            )
            silence_after = (
                next_start - segment.end > threshold
                or _is_anomalous(following)
                or window.full_end - segment.end < 2.0
            )
            if silence_before and silence_after:
                if features.duration - segment.end < threshold:
                    return segments[:i], features.content_frames
                return segments[:i], round(max(window.offset + 1, segment.start) * FRAMES_PER_SECOND)
        previous_end = segment.end
    return segments, None


def _next_with_words(segments: Sequence[Segment]) -> Segment | None:
    return next((segment for segment in segments if segment.words), None)


def _is_anomalous(segment: Segment | None) -> bool:
    """Whether the first words of a segment are mostly improbable, very short or very long."""
    if segment is None or not segment.words:
        return False
    words = [word for word in segment.words if word.word not in _PUNCTUATION][:8]
    score = sum(map(_anomaly, words))
    return score >= 3 or score + 0.01 >= len(words)


def _anomaly(word: Word) -> float:
    duration = word.end - word.start
    improbable = 1.0 if word.probability < 0.15 else 0.0
    return improbable + max(0.0, 0.133 - duration) * 15 + max(0.0, duration - 2.0)
