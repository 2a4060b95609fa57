"""Segments that a model made up in silence, told by their words' timing and probability.

The rules and their numbers are those of `whisper.transcribe`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from whisper.audio import FRAMES_PER_SECOND
from whisper.utils import get_end

from models.decoding.windows import Draft, Window
from models.features import LogMelFeatures

__all__ = ["Trusted", "drop_hallucinations"]

_PUNCTUATION = "\"'“¿([{-\"'.。,，!！?？:：”)]}、"


@dataclass(frozen=True)
class Trusted:
    """Segments that are no hallucination, None where leading silence is to be skipped before decoding again.

    seek : the frame to go on from, None where it does not change
    """

    drafts: list[Draft] | None
    seek: int | None


def drop_hallucinations(
    drafts: list[Draft],
    window: Window,
    features: LogMelFeatures,
    *,
    threshold: float,
    spoken_until: float,
    closed: bool,
) -> Trusted:
    """Drop segments that are probably hallucinated in silence, and skip that silence.

    drafts : the segments of `window`, with words
    features : of the whole recording
    threshold : silence longer than this is skipped, in seconds
    spoken_until : when the last word before the window ended, in seconds
    closed : whether a timestamp says that no speech follows the last segment
    """
    seek = None
    last_word_end = get_end(drafts)
    if not closed and last_word_end is not None and last_word_end > window.offset:
        if window.full_end - last_word_end > threshold:
            seek = round(last_word_end * FRAMES_PER_SECOND)
        else:
            seek = window.seek + window.size
    first = _next_with_words(drafts)
    if _is_anomalous(first):
        gap = first["start"] - window.offset if first is not None else 0.0
        if gap > threshold:
            return Trusted(None, window.seek + round(gap * FRAMES_PER_SECOND))
    previous_end = spoken_until
    for i, draft in enumerate(drafts):
        if not draft["words"]:
            continue
        if _is_anomalous(draft):
            following = _next_with_words(drafts[i + 1 :])
            next_start = (
                window.offset + window.duration if following is None else following["words"][0]["start"]
            )
            silence_before = (
                draft["start"] - previous_end > threshold
                or draft["start"] < threshold
                or draft["start"] - window.offset < 2.0
            )
            silence_after = (
                next_start - draft["end"] > threshold
                or _is_anomalous(following)
                or window.full_end - draft["end"] < 2.0
            )
            if silence_before and silence_after:
                seek = round(max(window.offset + 1, draft["start"]) * FRAMES_PER_SECOND)
                if features.duration - draft["end"] < threshold:
                    seek = features.content_frames
                return Trusted(drafts[:i], seek)
        previous_end = draft["end"]
    return Trusted(drafts, seek)


def _next_with_words(drafts: list[Draft]) -> Draft | None:
    return next((draft for draft in drafts if draft["words"]), None)


def _is_anomalous(draft: Draft | None) -> bool:
    """Whether the first words of a segment are mostly improbable, very short or very long."""
    if draft is None or not draft["words"]:
        return False
    words = [word for word in draft["words"] if word["word"] not in _PUNCTUATION][:8]
    score = sum(_anomaly(word) for word in words)
    return score >= 3 or score + 0.01 >= len(words)


def _anomaly(word: dict[str, Any]) -> float:
    duration = float(word["end"] - word["start"])
    improbable = 1.0 if word["probability"] < 0.15 else 0.0
    return improbable + max(0.0, 0.133 - duration) * 15 + max(0.0, duration - 2.0)
