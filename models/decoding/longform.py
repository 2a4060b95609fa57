"""Recordings of any length: openai-whisper's sequential algorithm, and independent pieces in batches.

Both read a piece of audio window by window: a window is decoded, split at the timestamps that the model
put into its text, and the next one starts where the last complete segment ended. Source of the method:
`whisper.transcribe`, whose results the sequential form reproduces, hallucination rules included.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from models.compute import Context
from models.decoding.bounds import in_bounds
from models.decoding.coverage import Coverage, Ledger
from models.decoding.fallback import decode_with_fallback, detect_languages, failed
from models.decoding.options import DecodeOptions
from models.decoding.recogniser import Recogniser
from models.decoding.search import Hypothesis
from models.decoding.segments import Segment, Window, is_silent, split
from models.decoding.words import drop_hallucinations, last_word_end, with_words
from models.features import FRAMES_PER_SECOND, N_FRAMES, LogMelFeatures, quiet_pieces
from models.voice import Span, common

__all__ = [
    "padded_frames",
    "transcribe_batched",
    "transcribe_group",
    "transcribe_windows",
    "window_by_window",
]

Progress = Callable[[float, float], None]
LanguageFound = Callable[[str, float], None]
CoverageKnown = Callable[[Coverage], None]

_PROMPT_RESET_TEMPERATURE = 0.5
# With the context `auto`: the frames of silence after the audio, and what all frames are a multiple of, so that the
# encoder's positions, half as many, fill tiles.
_MARGIN = 8 * FRAMES_PER_SECOND
_CONTEXT_STEP = 256
# A rest of a piece that is shorter, and that the model put no text into, is not worth a window of its own.
_SHORTEST_REST = FRAMES_PER_SECOND // 2
# A pause up to this one is read with the speech on both sides: windows are then where they are without voice activity.
_SHORT_PAUSE = 5 * FRAMES_PER_SECOND


def padded_frames(frames: int, context: Context) -> int:
    """How many frames a window of so many is encoded as: with the context `auto` no more than it needs."""
    if context == "full":
        return N_FRAMES
    return min(N_FRAMES, -(-(frames + _MARGIN) // _CONTEXT_STEP) * _CONTEXT_STEP)


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
    reader = _Reader(recogniser, options)
    reader.detect_language(features, on_language)
    previous = _PreviousText(reader)
    numbers = itertools.count()
    spoken_until = told_until = 0.0
    ledger = _ledger(features, options)
    told: list[Segment] | None = None
    for first, last in _spoken(features, options):
        piece = _Piece(features, first, last, spoken_until, told_until, ledger)
        while not piece.done:
            if told is not None:
                yield told, False
            ((window, states, hypothesis),) = reader.decode([piece], previous.prompt())
            segments = reader.read(piece, window, states, hypothesis)
            if segments is not None:
                previous.add(segments, hypothesis.temperature)
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
    reader = _Reader(recogniser, options)
    reader.detect_language(features, on_language)
    ledger = _ledger(features, options)
    pieces = _pieces(features, options, ledger)
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
    reader = _Reader(recogniser, options)
    ledgers = [_ledger(features, options) for features in recordings]
    pieces = [
        _pieces(features, options, ledger) for features, ledger in zip(recordings, ledgers, strict=True)
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


@dataclass
class _Piece:
    """A part of a recording, read from frame `seek` to before `end`.

    The last word ended at `spoken_until` seconds, the last segment at `told_until`.
    """

    features: LogMelFeatures
    seek: int
    end: int
    spoken_until: float
    told_until: float
    ledger: Ledger | None = None
    segments: list[Segment] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.seek >= self.end

    def window(self) -> Window:
        return Window(self.seek, min(N_FRAMES, self.end - self.seek))


class _Reader:
    """Reads pieces of recordings with the same options."""

    def __init__(self, recogniser: Recogniser, options: DecodeOptions) -> None:
        self.recogniser = recogniser
        self.options = options.for_model(recogniser.weights)
        self.tokenizer = recogniser.tokenizer(self.options.language, self.options.task)
        self._first_states: npt.NDArray[np.float32] | None = None

    def detect_language(self, features: LogMelFeatures, on_language: LanguageFound | None) -> None:
        """Decode in the language of the recording's first 30 s, or from the first speech on where 20 s have none."""
        if self.options.language is not None:
            return
        first = features.first_sound()
        first = first if first >= N_FRAMES * 2 // 3 else 0
        states = self.recogniser.encode(features.leading_window(first)[None])
        if first == 0 and features.content_frames >= N_FRAMES:
            self._first_states = states
        probabilities = detect_languages(self.recogniser, self.recogniser.decoder.attend_to(states))[0]
        language = max(probabilities, key=probabilities.__getitem__)
        self.options = replace(self.options, language=language)
        self.tokenizer = self.recogniser.tokenizer(language, self.options.task)
        if on_language is not None:
            on_language(language, probabilities[language])

    def initial_prompt(self) -> list[int]:
        """Its tokens, if one is given."""
        prompt = self.options.initial_prompt
        return [] if prompt is None else self.tokenizer.encoding.encode_ordinary(" " + prompt.strip())

    def decode(
        self, pieces: Sequence[_Piece], prompt: Sequence[int]
    ) -> list[tuple[Window, npt.NDArray[np.float32], Hypothesis]]:
        """Encode and decode the next window of each piece; with it come its states and its text."""
        frames = padded_frames(max(piece.window().size for piece in pieces), self.recogniser.context)
        first = self.options.temperatures[0]
        if frames == N_FRAMES or first > 0:
            return self._decode_in(N_FRAMES, pieces, prompt, self.options)
        once = replace(self.options, temperature=first)
        decoded = self._decode_in(frames, pieces, prompt, once)
        again = [i for i, (_, _, hypothesis) in enumerate(decoded) if self._is_doubtful(hypothesis)]
        if again:
            whole = self._decode_in(N_FRAMES, [pieces[i] for i in again], prompt, self.options)
            for i, better in zip(again, whole, strict=True):
                decoded[i] = better
        return decoded

    def _decode_in(
        self, frames: int, pieces: Sequence[_Piece], prompt: Sequence[int], options: DecodeOptions
    ) -> list[tuple[Window, npt.NDArray[np.float32], Hypothesis]]:
        windows = [piece.window() for piece in pieces]
        states = self._first_states if windows == [Window(0, N_FRAMES)] else None
        self._first_states = None
        if states is None:
            mels = [
                piece.features.window(window.seek, window.size, pad_to=frames)
                for piece, window in zip(pieces, windows, strict=True)
            ]
            states = self.recogniser.encode(np.stack(mels))
        hypotheses = decode_with_fallback(
            self.recogniser, states, options, prompt=prompt, windows=[window.seek for window in windows]
        )
        return list(zip(windows, states, hypotheses, strict=True))

    def _is_doubtful(self, hypothesis: Hypothesis) -> bool:
        """Whether a text from less than 30 s looks like the loops that too little silence after the audio gives."""
        longest = self.recogniser.weights.dims.n_text_ctx // 2
        unended = len(hypothesis.tokens) >= longest
        return unended or failed(hypothesis, self.options) or is_silent(hypothesis, self.options)

    def read(
        self, piece: _Piece, window: Window, states: npt.NDArray[np.float32], hypothesis: Hypothesis
    ) -> list[Segment] | None:
        """Split a window into segments, and move its piece on; None where the window is skipped."""
        options = self.options
        if piece.ledger is not None:
            self._note(piece.ledger, window, hypothesis)
        if is_silent(hypothesis, options):
            piece.seek += window.size
            return None
        n_audio_ctx = self.recogniser.weights.dims.n_audio_ctx
        segments, seek, closed = split(window, hypothesis, self.tokenizer, n_audio_ctx)
        if options.word_timestamps:
            segments = with_words(
                segments, window, states, self.recogniser, self.tokenizer, options, piece.spoken_until
            )
            last_end = last_word_end(segments)
            silence = options.hallucination_silence_threshold
            if not closed and last_end is not None and last_end > window.offset:
                quiet = silence is None or window.full_end - last_end > silence
                seek = round(last_end * FRAMES_PER_SECOND) if quiet else window.seek + window.size
            if silence is not None:
                kept, skip_to = drop_hallucinations(
                    segments, window, piece.features, silence, piece.spoken_until
                )
                seek = seek if skip_to is None else skip_to
                if kept is None:
                    piece.seek = seek
                    return None
                segments = kept
            last_end = last_word_end(segments)
            if last_end is not None:
                piece.spoken_until = last_end
        # whisper.transcribe would decode a window without progress again, for ever.
        piece.seek = seek if seek > window.seek else window.seek + window.size
        told = [_without_nothing(segment) for segment in segments]
        told = in_bounds(told, piece.told_until, window.offset + window.duration)
        if (
            piece.ledger is not None
            and not closed
            and hypothesis.tokens
            and piece.seek >= window.seek + window.size
        ):
            piece.ledger.unended(told[-1])
        piece.told_until = max([piece.told_until, *(segment.end for segment in told if segment.text)])
        return told

    def checked(
        self, features: LogMelFeatures, ledger: Ledger | None, segments: list[Segment], until: int | None
    ) -> list[Segment]:
        """Segments as the ledger leaves them, of the recording up to a frame, or to its end."""
        if ledger is None:
            return segments
        seconds = None if until is None else until / FRAMES_PER_SECOND
        return ledger.check(segments, seconds, partial(self._again, features))

    def closed(
        self,
        features: LogMelFeatures,
        ledger: Ledger | None,
        segments: list[Segment],
        on_coverage: CoverageKnown | None,
    ) -> list[Segment]:
        """The last segments as the ledger leaves them, up to the recording's end; then what became of its speech."""
        last = self.checked(features, ledger, segments, None)
        if ledger is not None and on_coverage is not None:
            on_coverage(ledger.coverage())
        return last

    def _again(self, features: LogMelFeatures, span: Span, temperature: float) -> list[Segment]:
        """Decode a part in which somebody speaks, on its own."""
        first, last = (min(round(at * FRAMES_PER_SECOND), features.content_frames) for at in span)
        piece = _Piece(features, first, last, span[0], span[0])
        options = self.options
        higher = tuple(t for t in options.temperatures if t >= temperature) or (temperature,)
        self.options = replace(
            options, temperature=higher, beam_size=None, patience=None, no_speech_threshold=None
        )
        try:
            while not piece.done:
                self.continue_pieces([piece], [])
        finally:
            self.options = options
        return piece.segments

    def _note(self, ledger: Ledger, window: Window, hypothesis: Hypothesis) -> None:
        """Put down how decoding ended, where that was not at the end of the text."""
        limit, end = self.options.compression_ratio_threshold, window.offset + window.duration
        if len(hypothesis.tokens) >= self.recogniser.weights.dims.n_text_ctx // 2:
            ledger.note("token limit", window.offset, end)
        if limit is not None and hypothesis.compression_ratio > limit:
            ledger.note("loop", window.offset, end, hypothesis.text.strip())

    def continue_pieces(self, pieces: Sequence[_Piece], prompt: Sequence[int]) -> None:
        """Read the next window of each piece, and leave only a rest that another window should look at."""
        for piece, (window, states, hypothesis) in zip(pieces, self.decode(pieces, prompt), strict=True):
            piece.segments += self.read(piece, window, states, hypothesis) or ()
            tokens = hypothesis.tokens
            text_follows = bool(tokens) and tokens[-1] < self.tokenizer.timestamp_begin
            if piece.end - piece.seek < _SHORTEST_REST and not text_follows:
                piece.seek = piece.end


class _PreviousText:
    """The text that the next window is prompted with."""

    def __init__(self, reader: _Reader) -> None:
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


def _clips(features: LogMelFeatures, options: DecodeOptions) -> list[tuple[int, int]]:
    """The first frame of each clip and the frame after its last, within the recording."""
    content = features.content_frames
    points = [round(t * FRAMES_PER_SECOND) for t in options.clips] or [0]
    if len(points) % 2 == 1:
        points.append(content)
    return [(first, min(last, content)) for first, last in zip(points[::2], points[1::2], strict=True)]


def _ledger(features: LogMelFeatures, options: DecodeOptions) -> Ledger | None:
    return None if features.voice is None else Ledger(features.voice, _clips(features, options))


def _spoken(features: LogMelFeatures, options: DecodeOptions) -> list[tuple[int, int]]:
    """The clips, or what is speech in them, short pauses with it."""
    clips = _clips(features, options)
    if features.voice is None:
        return clips
    frames = [
        (int(a * FRAMES_PER_SECOND), math.ceil(b * FRAMES_PER_SECOND)) for a, b in features.voice.spans()
    ]
    spoken: list[tuple[int, int]] = []
    for clip in clips:
        joined: list[tuple[int, int]] = []
        for first, last in common([clip], frames):
            if joined and first - joined[-1][1] <= _SHORT_PAUSE:
                joined[-1] = joined[-1][0], last
            else:
                joined.append((first, last))
        spoken += joined
    return spoken


def _pieces(features: LogMelFeatures, options: DecodeOptions, ledger: Ledger | None) -> list[_Piece]:
    """The clips, divided where they are quietest."""
    return [
        _Piece(features, first, last, first / FRAMES_PER_SECOND, first / FRAMES_PER_SECOND, ledger)
        for clip in _spoken(features, options)
        for first, last in quiet_pieces(features.loudness, *clip)
    ]


def _without_nothing(segment: Segment) -> Segment:
    """The segment, empty where it has no length or no text."""
    if segment.start != segment.end and segment.text.strip():
        return segment
    return replace(segment, text="", tokens=(), words=None if segment.words is None else ())


def _report(piece: _Piece, on_progress: Progress | None) -> None:
    if on_progress is not None:
        on_progress(min(piece.seek, piece.end) / FRAMES_PER_SECOND, piece.features.duration)
