"""Reading pieces window by window: encode, decode, split at the timestamps, and begin the next where the text ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.compute import Context
from models.decoder import Memory
from models.decoding.bounds import in_bounds
from models.decoding.coverage import Coverage, Ledger
from models.decoding.fallback import decode_with_fallback, detect_languages, failed
from models.decoding.options import DecodeOptions
from models.decoding.pieces import Piece, spoken
from models.decoding.recogniser import Recogniser
from models.decoding.search import Hypothesis, prompt_tokens
from models.decoding.segments import Segment, Window, is_silent, split
from models.decoding.words import drop_hallucinations, last_word_end, with_words
from models.features import FRAMES_PER_SECOND, N_FRAMES, LogMelFeatures
from models.voice import Span

LanguageFound = Callable[[str, float], None]
CoverageKnown = Callable[[Coverage], None]

# With the context `auto`: the seconds of silence after the audio, and what all frames are a multiple of, so that the
# encoder's positions, half as many, fill tiles.
_MARGIN = 8.0
_CONTEXT_STEP = 256
# A rest of a piece that is shorter, and that the model put no text into, is not worth a window of its own.
_SHORTEST_REST = FRAMES_PER_SECOND // 2


def padded_frames(frames: int, context: Context, margin: float = _MARGIN) -> int:
    """How many frames a window of so many is encoded as: with the context `auto` no more than it needs.

    `margin` is the seconds of silence that it needs after the audio.
    """
    if context == "full":
        return N_FRAMES
    needed = frames + round(margin * FRAMES_PER_SECOND)
    return min(N_FRAMES, -(-needed // _CONTEXT_STEP) * _CONTEXT_STEP)


class Decoded(NamedTuple):
    """A window and its text.

    Attributes:
        window: of its piece.
        hypothesis: its text.
        memory: what the decoder attended to, of a batch of windows, of which this is the one at `row`.
        row: in `memory`.
    """

    window: Window
    hypothesis: Hypothesis
    memory: Memory
    row: int


class Reader:
    """Reads pieces of recordings with the same options."""

    def __init__(self, recogniser: Recogniser, options: DecodeOptions) -> None:
        self.recogniser = recogniser
        self.options = options.for_model(recogniser.weights)
        self.tokenizer = recogniser.tokenizer(self.options.language, self.options.task)
        # Of the window that the language was detected on: its frames as encoded, and what the decoder attends to.
        self._heard: tuple[Window, int, Memory] | None = None

    def detect_language(self, features: LogMelFeatures, on_language: LanguageFound | None) -> None:
        """Decode in the language of the recording's first 30 s, or from the first speech on where 20 s have none.

        Of the first window that is read, where it is of 30 s or the only one, and decoding need not be whisper's.
        """
        if self.options.language is not None:
            return
        window, mel = self._telling_window(features)
        memory = self.recogniser.decoder.attend_to(self.recogniser.encode(mel[None]))
        if window is not None:
            self._heard = window, mel.shape[1], memory
        probabilities = detect_languages(self.recogniser, memory)[0]
        language = max(probabilities, key=probabilities.__getitem__)
        self.options = replace(self.options, language=language)
        self.tokenizer = self.recogniser.tokenizer(language, self.options.task)
        if on_language is not None:
            on_language(language, probabilities[language])

    def _telling_window(self, features: LogMelFeatures) -> tuple[Window | None, npt.NDArray[np.float32]]:
        """Log-mel (n_mels, frames) that the language is detected on, and the window that reads the same."""
        spans = spoken(features, self.options)
        if spans and not self.recogniser.decoder.exact:
            start, end = spans[0]
            if end - start >= N_FRAMES or (len(spans) == 1 and end > start):
                window = Window(start, min(N_FRAMES, end - start))
                frames = padded_frames(window.size, self.recogniser.context)
                return window, features.window(start, window.size, pad_to=frames)
        first = features.first_sound()
        first = first if first >= N_FRAMES * 2 // 3 else 0
        read = first == 0 and features.content_frames >= N_FRAMES
        return Window(0, N_FRAMES) if read else None, features.leading_window(first)

    def initial_prompt(self) -> list[int]:
        """Its tokens, if one is given."""
        return prompt_tokens(self.tokenizer, self.options.initial_prompt)

    def decode(self, pieces: Sequence[Piece], prompt: Sequence[int]) -> list[Decoded]:
        """Encode and decode the next window of each piece."""
        frames = padded_frames(max(piece.window().size for piece in pieces), self.recogniser.context)
        first = self.options.temperatures[0]
        if frames == N_FRAMES or first > 0:
            return self._decode_in(N_FRAMES, pieces, prompt, self.options)
        once = replace(self.options, temperature=first)
        decoded = self._decode_in(frames, pieces, prompt, once)
        again = [i for i, found in enumerate(decoded) if self._is_doubtful(found.hypothesis)]
        if again:
            whole = self._decode_in(N_FRAMES, [pieces[i] for i in again], prompt, self.options)
            for i, better in zip(again, whole, strict=True):
                decoded[i] = better
        return decoded

    def _decode_in(
        self, frames: int, pieces: Sequence[Piece], prompt: Sequence[int], options: DecodeOptions
    ) -> list[Decoded]:
        windows = [piece.window() for piece in pieces]
        heard, self._heard = self._heard, None
        if heard is not None and windows == [heard[0]] and frames == heard[1]:
            memory = heard[2]
        else:
            mels = [
                piece.features.window(window.seek, window.size, pad_to=frames)
                for piece, window in zip(pieces, windows, strict=True)
            ]
            memory = self.recogniser.decoder.attend_to(self.recogniser.encode(np.stack(mels)))
        hypotheses = decode_with_fallback(
            self.recogniser, memory, options, prompt=prompt, windows=[window.seek for window in windows]
        )
        return [
            Decoded(window, hypothesis, memory, row)
            for row, (window, hypothesis) in enumerate(zip(windows, hypotheses, strict=True))
        ]

    def _is_doubtful(self, hypothesis: Hypothesis) -> bool:
        """Whether a text from less than 30 s looks like the loops that too little silence after the audio gives."""
        longest = self.recogniser.weights.dims.n_text_ctx // 2
        unended = len(hypothesis.tokens) >= longest
        return unended or failed(hypothesis, self.options) or is_silent(hypothesis, self.options)

    def read(self, piece: Piece, decoded: Decoded) -> list[Segment] | None:
        """Split a window into segments, and move its piece on; None where the window is skipped."""
        options, window, hypothesis = self.options, decoded.window, decoded.hypothesis
        if piece.ledger is not None:
            self._note(piece.ledger, window, hypothesis)
        if is_silent(hypothesis, options):
            piece.seek += window.size
            return None
        n_audio_ctx = self.recogniser.weights.dims.n_audio_ctx
        segments, seek, closed = split(window, hypothesis, self.tokenizer, n_audio_ctx)
        if options.word_timestamps:
            memory = decoded.memory.select([decoded.row])
            segments = with_words(
                segments, window, memory, self.recogniser, self.tokenizer, options, piece.spoken_until
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
        piece = Piece(features, first, last, span[0], span[0])
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

    def continue_pieces(self, pieces: Sequence[Piece], prompt: Sequence[int]) -> None:
        """Read the next window of each piece, and leave only a rest that another window should look at."""
        for piece, decoded in zip(pieces, self.decode(pieces, prompt), strict=True):
            piece.segments += self.read(piece, decoded) or ()
            tokens = decoded.hypothesis.tokens
            text_follows = bool(tokens) and tokens[-1] < self.tokenizer.timestamp_begin
            if piece.end - piece.seek < _SHORTEST_REST and not text_follows:
                piece.seek = piece.end


def _without_nothing(segment: Segment) -> Segment:
    """The segment, empty where it has no length or no text."""
    if segment.start != segment.end and segment.text.strip():
        return segment
    return replace(segment, text="", tokens=(), words=None if segment.words is None else ())
