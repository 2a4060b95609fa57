"""Segments that a model made up in silence, told by their words' timing and probability.

The rules and their numbers are those of `whisper.transcribe`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from whisper.audio import FRAMES_PER_SECOND

from models.decoding.results import Segment, Word
from models.decoding.windows import Window
from models.decoding.words import last_word_end
from models.features import LogMelFeatures

__all__ = ["Trusted", "drop_hallucinations"]

_PUNCTUATION = "\"'“¿([{-\"'.。,，!！?？:：”)]}、"


@dataclass(frozen=True)
class Trusted:
    """What is no hallucination.

    Attributes:
        segments: None where leading silence is to be skipped before decoding again.
        seek: the frame to go on from; None where it does not change.
    """

    segments: list[Segment] | None
    seek: int | None


def drop_hallucinations(
    segments: list[Segment],
    window: Window,
    features: LogMelFeatures,
    *,
    threshold: float,
    spoken_until: float,
    closed: bool,
) -> Trusted:
    """Drop segments that are probably hallucinated in silence, and skip that silence.

    Args:
        segments: of the window, with words.
        window: that they were decoded from.
        features: of the whole recording.
        threshold: silence longer than this is skipped, in seconds.
        spoken_until: when the last word before the window ended, in seconds.
        closed: whether a timestamp says that no speech follows the last segment.
    """
    seek = None
    last_end = last_word_end(segments)
    if not closed and last_end is not None and last_end > window.offset:
        if window.full_end - last_end > threshold:
            seek = round(last_end * FRAMES_PER_SECOND)
        else:
            seek = window.seek + window.size
    first = _next_with_words(segments)
    if first is not None and _is_anomalous(first):
        gap = first.start - window.offset
        if gap > threshold:
            return Trusted(None, window.seek + round(gap * FRAMES_PER_SECOND))
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
                seek = round(max(window.offset + 1, segment.start) * FRAMES_PER_SECOND)
                if features.duration - segment.end < threshold:
                    seek = features.content_frames
                return Trusted(segments[:i], seek)
        previous_end = segment.end
    return Trusted(segments, seek)


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
