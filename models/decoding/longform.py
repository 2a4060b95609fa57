"""Recordings of any length: openai-whisper's sequential algorithm, and independent pieces in batches.

Both read a piece of audio window by window: a window is decoded, split at the timestamps that the model
put into its text, and the next one starts where the last complete segment ended. Source of the method:
`whisper.transcribe`, whose results the sequential form reproduces, hallucination rules included.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from models.decoding.options import DecodeOptions
from models.decoding.pieces import Piece, ledger_of, pieces_of, spoken
from models.decoding.reader import CoverageKnown, LanguageFound, Reader
from models.decoding.recogniser import Recogniser
from models.decoding.segments import Segment
from models.features import FRAMES_PER_SECOND, LogMelFeatures

__all__ = [
    "transcribe_batched",
    "transcribe_group",
    "transcribe_windows",
    "window_by_window",
]

Progress = Callable[[float, float], None]

_PROMPT_RESET_TEMPERATURE = 0.5


def transcribe_windows(
    recogniser: Recogniser, features: LogMelFeatures, options: DecodeOptions, **told: Any
) -> Iterator[Segment]:
    """The segments of `window_by_window`, which it takes the arguments of and raises the errors of."""
    for segments, _ in window_by_window(recogniser, features, options, **told):
        yield from segments


def window_by_window(
    recogniser: Recogniser,
    features: LogMelFeatures,
    options: DecodeOptions,
    *,
    on_progress: Progress | None = None,
    on_language: LanguageFound | None = None,
    on_coverage: CoverageKnown | None = None,
) -> Iterator[tuple[list[Segment], bool]]:
    """Transcribe a recording in order, each window prompted with the text before it.

    Each window is encoded once, and one more where the language is detected on a window that is not decoded.

    Args:
        recogniser: of the model.
        features: of the recording.
        options: how to decode.
        on_progress: called after each window with the seconds that are done, and the seconds in all.
        on_language: called with the language's code and probability, where it has to be detected.
        on_coverage: called in the end, where the features were made with a voice, with what became of its speech.

    Yields:
        The segments of each window as soon as it is decoded, and whether it was the last. With the model's own encoder,
        in float32 and without a voice, they are those of `whisper.transcribe`.

    Raises:
        ValueError: the options do not suit the model.
    """
    reader = Reader(recogniser, options)
    reader.detect_language(features, on_language)
    previous = _PreviousText(reader)
    numbers = itertools.count()
    spoken_until = told_until = 0.0
    ledger = ledger_of(features, options)
    told: list[Segment] | None = None
    for first, last in spoken(features, options):
        piece = Piece(features, first, last, spoken_until, told_until, ledger)
        while not piece.done:
            if told is not None:
                yield told, False
            (decoded,) = reader.decode([piece], previous.prompt())
            segments = reader.read(piece, decoded)
            if segments is not None:
                previous.add(segments, decoded.hypothesis.temperature)
            checked = reader.checked(features, ledger, segments or [], piece.seek)
            told = [replace(segment, id=next(numbers)) for segment in checked]
            _report(piece, on_progress)
        spoken_until, told_until = piece.spoken_until, piece.told_until
    rest = [
        replace(segment, id=next(numbers)) for segment in reader.closed(features, ledger, [], on_coverage)
    ]
    yield (told or []) + rest, True


def transcribe_batched(
    recogniser: Recogniser,
    features: LogMelFeatures,
    options: DecodeOptions,
    *,
    batch_size: int = 8,
    on_progress: Progress | None = None,
    on_language: LanguageFound | None = None,
    on_coverage: CoverageKnown | None = None,
) -> Iterator[Segment]:
    """Transcribe a recording as pieces of at most 30 s, several at a time, cut where it is quietest.

    Pieces know nothing of each other, as if `condition_on_previous_text` were False; `initial_prompt`
    goes to the first one, or to all with `carry_initial_prompt`. Together they cover every clip exactly
    once. A piece that the model leaves before its end is continued in another window, so that no text is
    lost. Results do not depend on `batch_size`, but for rounding.

    Takes and raises what `transcribe_windows` does, and `batch_size`, the number of windows to decode at once.

    Yields:
        Segments in the order of the recording.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
    reader = Reader(recogniser, options)
    reader.detect_language(features, on_language)
    ledger = ledger_of(features, options)
    pieces = pieces_of(features, options, ledger)
    waiting, unreported = deque(pieces), deque(pieces)
    prompt = reader.initial_prompt()
    numbers = itertools.count()
    while waiting:
        alone = bool(prompt) and not options.carry_initial_prompt
        batch = [waiting.popleft() for _ in range(1 if alone else min(batch_size, len(waiting)))]
        reader.continue_pieces(batch, prompt)
        waiting.extendleft(piece for piece in reversed(batch) if not piece.done)
        prompt = prompt if options.carry_initial_prompt else []
        while unreported and unreported[0].done:
            piece = unreported.popleft()
            for segment in reader.checked(features, ledger, piece.segments, piece.end):
                yield replace(segment, id=next(numbers))
            _report(piece, on_progress)
    for segment in reader.closed(features, ledger, [], on_coverage):
        yield replace(segment, id=next(numbers))


def transcribe_group(
    recogniser: Recogniser,
    recordings: Sequence[LogMelFeatures],
    options: DecodeOptions,
    *,
    on_coverage: CoverageKnown | None = None,
) -> list[list[Segment]]:
    """Transcribe several recordings at once, each on its own, in as few passes as their windows need.

    Recordings of up to 30 s are one window each, and one pass decodes them all; longer ones are cut as in
    `transcribe_batched`. Where `options.language` is None, each window's language is detected. For a given
    group the result is reproducible to the bit, which a batch that fills up as windows come could not promise.

    Returns:
        Each recording's segments; `on_coverage` is called for each that was made with a voice, in order.

    Raises:
        ValueError: the options do not suit the model.
    """
    reader = Reader(recogniser, options)
    ledgers = [ledger_of(features, options) for features in recordings]
    pieces = [
        pieces_of(features, options, ledger) for features, ledger in zip(recordings, ledgers, strict=True)
    ]
    waiting = [piece for its in pieces for piece in its]
    prompt = reader.initial_prompt()
    while waiting:
        reader.continue_pieces(waiting, prompt)
        waiting = [piece for piece in waiting if not piece.done]
        prompt = prompt if options.carry_initial_prompt else []
    results = []
    for features, ledger, its in zip(recordings, ledgers, pieces, strict=True):
        segments = [segment for piece in its for segment in piece.segments]
        segments = reader.closed(features, ledger, segments, on_coverage)
        results.append([replace(segment, id=number) for number, segment in enumerate(segments)])
    return results


class _PreviousText:
    """The text that the next window is prompted with."""

    def __init__(self, reader: Reader) -> None:
        self._options = reader.options
        self._initial = reader.initial_prompt()
        self._tokens = list(self._initial)
        self._reset = 0
        self._room = reader.recogniser.weights.dims.n_text_ctx // 2 - 1

    def prompt(self) -> list[int]:
        if not self._options.carry_initial_prompt:
            return self._tokens[self._reset :]
        rest = self._tokens[max(len(self._initial), self._reset) :]
        room = max(0, self._room - len(self._initial))
        return self._initial + rest[len(rest) - min(room, len(rest)) :]

    def add(self, segments: Sequence[Segment], temperature: float) -> None:
        self._tokens.extend(token for segment in segments for token in segment.tokens)
        if not self._options.condition_on_previous_text or temperature > _PROMPT_RESET_TEMPERATURE:
            self._reset = len(self._tokens)


def _report(piece: Piece, on_progress: Progress | None) -> None:
    if on_progress is not None:
        on_progress(min(piece.seek, piece.end) / FRAMES_PER_SECOND, piece.features.duration)
