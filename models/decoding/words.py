"""When each word of a window was said, and the segments that the model made up in silence, told by that.

The methods, rules and numbers are those of `whisper.timing`, which is PyTorch's and numba's, on what is encoded already
and by the decoder in use, and of `whisper.transcribe`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from models.decoder import Memory, Sequences
from models.decoding.alignment import POSITIONS_PER_SECOND, attended, token_positions
from models.decoding.options import DecodeOptions
from models.decoding.recogniser import Recogniser
from models.decoding.segments import Segment, Window, Word
from models.features import FRAMES_PER_SECOND, LogMelFeatures
from models.openai import Tokenizer

__all__ = ["drop_hallucinations", "last_word_end", "with_words"]

_SENTENCE_ENDS = ".。!！?？"
_PUNCTUATION = "\"'“¿([{-\"'.。,，!！?？:：”)]}、"


@dataclass
class _Timed:
    """A word, or a part of one, and how many tokens it has; seconds from the beginning of its window."""

    text: str
    tokens: int
    start: float
    end: float
    probability: float


def with_words(
    segments: Sequence[Segment],
    window: Window,
    memory: Memory,
    recogniser: Recogniser,
    tokenizer: Tokenizer,
    options: DecodeOptions,
    spoken_until: float,
) -> list[Segment]:
    """Find the words of a window's segments, which then start and end with them.

    `memory` is what the decoder attends to in it; the last word before the window ended at `spoken_until` seconds.
    """
    texts = [[token for token in segment.tokens if token < tokenizer.eot] for segment in segments]
    found = _timings([token for text in texts for token in text], window, memory, recogniser, tokenizer)
    durations = [word.end - word.start for word in found if word.end > word.start]
    usual = min(0.7, float(np.median(durations))) if durations else 0.0
    for before, word in pairwise(found):
        if durations and word.end - word.start > 2 * usual:
            if word.text in _SENTENCE_ENDS:
                word.end = word.start + 2 * usual
            elif before.text in _SENTENCE_ENDS:
                word.start = word.end - 2 * usual
    left = deque(_joined(found, options))
    timed = []
    for segment, text in zip(segments, texts, strict=True):
        words, taken = list[_Timed](), 0
        while left and taken < len(text):
            word = left.popleft()
            taken += word.tokens
            word.start, word.end = (round(window.offset + at, 2) for at in (word.start, word.end))
            words.append(word)
        timed.append(_fitted(segment, words, usual, spoken_until) if words else replace(segment, words=()))
        spoken_until = timed[-1].end if words else spoken_until
    return timed


def _timings(
    text: Sequence[int], window: Window, memory: Memory, recogniser: Recogniser, tokenizer: Tokenizer
) -> list[_Timed]:
    """When the decoder, reading a text, attends to each of its parts: `whisper.timing.find_alignment`."""
    parts, tokens = tokenizer.split_to_word_tokens([*text, tokenizer.eot])
    if len(parts) < 2:
        return []
    begun = len(tokenizer.sot_sequence)
    read = np.array([[*tokenizer.sot_sequence, tokenizer.no_timestamps, *text, tokenizer.eot]], np.int64)
    sequences = Sequences(recogniser.decoder.aligned, memory, 1, read.shape[1])
    logits = sequences.prefill(read, list(range(begun, begun + len(text))))[0, :, : tokenizer.eot]
    logits = logits - logits.max(1, keepdims=True)
    chosen = logits[np.arange(len(text)), list(text)]
    probabilities = np.exp(chosen) / np.exp(logits).sum(1)
    at = token_positions(attended(sequences.attention[0], window.size // 2)[begun:-1]) / POSITIONS_PER_SECOND
    ends = np.cumsum([0, *map(len, tokens[:-1])]).tolist()
    return [
        _Timed(part, last - first, float(at[first]), float(at[last]), float(probabilities[first:last].mean()))
        for part, (first, last) in zip(parts, pairwise(ends), strict=False)
    ]


def _joined(words: Sequence[_Timed], options: DecodeOptions) -> list[_Timed]:
    """Punctuation with the word that it belongs to, whose times stay: `whisper.timing.merge_punctuations`."""
    opened: deque[_Timed] = deque()
    for word in reversed(words):
        if opened and word.text.startswith(" ") and word.text.strip() in options.prepend_punctuations:
            following = opened[0]
            following.text, following.tokens = word.text + following.text, word.tokens + following.tokens
        else:
            opened.appendleft(word)
    joined: list[_Timed] = []
    for word in opened:
        if joined and not joined[-1].text.endswith(" ") and word.text in options.append_punctuations:
            joined[-1].text, joined[-1].tokens = joined[-1].text + word.text, joined[-1].tokens + word.tokens
        else:
            joined.append(word)
    return joined


def _fitted(segment: Segment, words: list[_Timed], usual: float, spoken_until: float) -> Segment:
    """A segment with its words, of which the first and last are no longer than those of `usual` length suggest.

    As `whisper.timing.add_word_timestamps` does it.
    """
    first, last, longest = words[0], words[-1], 2 * usual
    second = words[1] if len(words) > 1 else None
    if first.end - spoken_until > 4 * usual and (
        first.end - first.start > longest or (second is not None and second.end - first.start > 2 * longest)
    ):
        if second is not None and second.end - second.start > longest:
            first.end = second.start = max(second.end / 2, second.end - longest)
        first.start = max(0, first.end - longest)
    start, end = segment.start, segment.end
    if start < first.end and start - 0.5 > first.start:
        first.start = max(0, min(first.end - usual, start))
    else:
        start = first.start
    if end > last.start and end + 0.5 < last.end:
        last.end = max(last.start + usual, end)
    else:
        end = last.end
    told = tuple(Word(word.text, word.start, word.end, word.probability) for word in words)
    return replace(segment, start=start, end=end, words=told)


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
