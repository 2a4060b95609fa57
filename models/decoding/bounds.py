"""Times of segments and words: within the recording, in order, of positive length; those that are so stay as they are.

The model's timestamps run to the end of the 30 s that it is given, past the end of a shorter recording, and the
alignment of words gives some no time at all; `whisper.transcribe` leaves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from models.decoding.segments import Segment, Word

__all__ = ["in_bounds"]

_LEAST = 0.02  # seconds: the model's own step


def in_bounds(segments: Sequence[Segment], first: float, last: float) -> list[Segment]:
    """Segments of one window, in order, from `first`, the end of what came before it, to `last`, its own end."""
    with_text = [segment for segment in segments if segment.text]
    spans = [
        (
            min([s.start, *(word.start for word in s.words or ())]),
            max([s.end, *(word.end for word in s.words or ())]),
        )
        for s in with_text
    ]
    least = _LEAST * max([1, *(len(s.words or ()) for s in with_text)])
    placed = iter(_fitted(spans, min(first, last - _LEAST * len(spans)), last, least))
    result = []
    for segment in segments:
        if segment.text:
            start, end = next(placed)
            words = None if segment.words is None else _words_in_bounds(segment.words, start, end)
            result.append(replace(segment, start=start, end=end, words=words))
        else:
            end = min(segment.end, last)
            result.append(replace(segment, start=min(segment.start, end), end=end))
    return result


def _words_in_bounds(words: Sequence[Word], first: float, last: float) -> tuple[Word, ...]:
    spans = _fitted([(word.start, word.end) for word in words], first, last, _LEAST)
    return tuple(replace(word, start=start, end=end) for word, (start, end) in zip(words, spans, strict=True))


def _fitted(
    spans: Sequence[tuple[float, float]], first: float, last: float, least: float
) -> list[tuple[float, float]]:
    """Spans as near to what they were as one after the other allows, each `least` long or an even share of the room."""
    if spans:
        least = min(least, (last - first) / len(spans))
    fitted, at = [], first
    for after, (start, end) in zip(range(len(spans) - 1, -1, -1), spans, strict=True):
        room = last - after * least  # the others' begins here
        if not (at <= start <= end - least and end <= room):
            start = max(at, round(min(start, room - least), 6))
            end = min(last, round(min(max(end, start + least), room), 6))
        fitted.append((start, end))
        at = end
    return fitted
