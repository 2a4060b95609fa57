"""Recordings of any length: openai-whisper's sequential algorithm, and independent pieces in batches.

Both read a stretch of audio window by window: a window is decoded, split at the timestamps that the model
put into its text, and the next one starts where the last complete segment ended. Source of the method:
`whisper.transcribe`, whose results the sequential form reproduces, hallucination rules included.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from whisper.audio import FRAMES_PER_SECOND, HOP_LENGTH, N_FRAMES, SAMPLE_RATE
from whisper.timing import add_word_timestamps
from whisper.tokenizer import Tokenizer
from whisper.utils import get_end

from models.decoding.fallback import decode_with_fallback, detect_languages
from models.decoding.hallucination import drop_hallucinations
from models.decoding.options import DecodeOptions
from models.decoding.recogniser import Recogniser
from models.decoding.results import Segment
from models.decoding.search import Hypothesis
from models.decoding.windows import Draft, Window, is_silent, segment_of, split
from models.features import LogMelFeatures, quiet_pieces

__all__ = ["transcribe_batched", "transcribe_group", "transcribe_windows"]

Progress = Callable[[float, float], None]
LanguageFound = Callable[[str, float], None]

_PROMPT_RESET_TEMPERATURE = 0.5
# A rest of a piece that is shorter, and that the model put no text into, is not worth a window of its own.
_SHORTEST_REST = FRAMES_PER_SECOND // 2


def transcribe_windows(
    recogniser: Recogniser,
    features: LogMelFeatures,
    options: DecodeOptions,
    *,
    on_progress: Progress | None = None,
    on_language: LanguageFound | None = None,
) -> Iterator[Segment]:
    """Transcribe a recording in order, each window prompted with the text before it.

    Args:
        recogniser: encodes each window once, and one more to detect the language where that takes a window that
            is not decoded.
        features: of the recording.
        options: how to decode.
        on_progress: called after each window with the seconds that are done, and the seconds in all.
        on_language: called with the language's code and probability, where it has to be detected.

    Yields:
        The segments of each window as soon as it is decoded. With the model's own encoder, and in float32, they
        are those of `whisper.transcribe`.

    Raises:
        ValueError: the options do not suit the model.
    """
    job = _Job.start(recogniser, features, options, on_language)
    previous = _PreviousText(job)
    spoken_until = 0.0
    count = 0
    for first, last in _clips(job):
        stretch = _Stretch(first, last, spoken_until)
        while stretch.seek < stretch.end:
            window = stretch.window()
            states = job.encode([window])
            result = decode_with_fallback(
                recogniser, states, job.options, prompt=previous.prompt(), windows=[window.seek]
            )[0]
            drafts = _read(job, stretch, window, result, states[0])
            if drafts is not None:
                previous.add(drafts, result.temperature)
            for draft in drafts or ():
                yield segment_of(count, draft, job.options.word_timestamps)
                count += 1
            job.report(stretch.seek, on_progress)
        spoken_until = stretch.spoken_until


def transcribe_batched(
    recogniser: Recogniser,
    features: LogMelFeatures,
    options: DecodeOptions,
    *,
    batch_size: int = 8,
    on_progress: Progress | None = None,
    on_language: LanguageFound | None = None,
) -> Iterator[Segment]:
    """Transcribe a recording as pieces of at most 30 s, several at a time, cut where it is quietest.

    Takes the arguments of `transcribe_windows`, and the number of windows to encode and decode at once.
    Pieces know nothing of each other, as if `condition_on_previous_text` were False; `initial_prompt`
    goes to the first one, or to all with `carry_initial_prompt`. Together they cover every clip exactly
    once. A piece that the model leaves before its end is continued in another window, so that no text is
    lost. Results do not depend on `batch_size`, but for rounding.

    Yields segments in the order of the recording. Raises ValueError where the options do not suit the model.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
    job = _Job.start(recogniser, features, options, on_language)
    pieces = [
        _Stretch(first, last, first / FRAMES_PER_SECOND)
        for clip in _clips(job)
        for first, last in quiet_pieces(features.levels, *clip)
    ]
    waiting, unreported = deque(pieces), deque(pieces)
    prompt = job.initial_prompt
    numbers = itertools.count()
    while waiting:
        alone = bool(prompt) and not options.carry_initial_prompt
        batch = [waiting.popleft() for _ in range(1 if alone else min(batch_size, len(waiting)))]
        windows = [piece.window() for piece in batch]
        states = job.encode(windows)
        results = decode_with_fallback(
            recogniser,
            states,
            job.options,
            prompt=prompt,
            windows=[window.seek for window in windows],
        )
        for piece, window, result, state in zip(batch, windows, results, states, strict=True):
            _continue(job, piece, window, result, state)
        waiting.extendleft(piece for piece in reversed(batch) if piece.seek < piece.end)
        prompt = prompt if options.carry_initial_prompt else []
        while unreported and unreported[0].seek >= unreported[0].end:
            piece = unreported.popleft()
            for draft in piece.drafts:
                yield segment_of(next(numbers), draft, job.options.word_timestamps)
            job.report(piece.end, on_progress)


def transcribe_group(
    recogniser: Recogniser,
    recordings: Sequence[LogMelFeatures],
    options: DecodeOptions,
) -> list[list[Segment]]:
    """Transcribe several recordings at once, each on its own, in as few passes as their windows need.

    Recordings of up to 30 s are one window each, and one pass decodes them all; longer ones are cut as in
    `transcribe_batched`. Where `options.language` is None, each window's language is detected. For a given
    group the result is reproducible to the bit, which a batch that fills up as windows come could not promise.

    Takes the arguments of `transcribe_windows`, for any number of recordings. Returns each one's segments.
    Raises ValueError where the options do not suit the model.
    """
    jobs = [_Job.start(recogniser, features, options, None, detect=False) for features in recordings]
    pieces: list[list[_Stretch]] = [
        [
            _Stretch(first, last, first / FRAMES_PER_SECOND)
            for clip in _clips(job)
            for first, last in quiet_pieces(job.features.levels, *clip)
        ]
        for job in jobs
    ]
    waiting = [(job, piece) for job, its in zip(jobs, pieces, strict=True) for piece in its]
    prompt = jobs[0].initial_prompt if jobs else []
    while waiting:
        windows = [piece.window() for _, piece in waiting]
        states = recogniser.encode(
            torch.stack([job.mel(w) for (job, _), w in zip(waiting, windows, strict=True)])
        )
        results = decode_with_fallback(
            recogniser,
            states,
            jobs[0].options,
            prompt=prompt,
            windows=[window.seek for window in windows],
        )
        for (job, piece), window, result, state in zip(waiting, windows, results, states, strict=True):
            _continue(job, piece, window, result, state)
        waiting = [(job, piece) for job, piece in waiting if piece.seek < piece.end]
        prompt = prompt if options.carry_initial_prompt else []
    return [
        [
            segment_of(number, draft, options.word_timestamps)
            for number, draft in enumerate(draft for piece in its for draft in piece.drafts)
        ]
        for its in pieces
    ]


@dataclass
class _Stretch:
    """Frames `seek` to `end`, still to be read; `spoken_until` is when the last word before them ended."""

    seek: int
    end: int
    spoken_until: float
    drafts: list[Draft] = field(default_factory=list)

    def window(self) -> Window:
        return Window(self.seek, min(N_FRAMES, self.end - self.seek))


class _DecoderOnly:
    """A model whose audio is encoded already, for `whisper.timing.find_alignment`."""

    def __init__(self, model: Any) -> None:
        self.dims = model.dims
        self.device = model.device
        self.decoder = model.decoder
        self.alignment_heads = model.alignment_heads

    def __call__(self, states: Tensor, tokens: Tensor) -> Tensor:
        logits: Tensor = self.decoder(tokens, states)
        return logits


@dataclass(frozen=True)
class _Job:
    """What stays the same over a recording."""

    recogniser: Recogniser
    features: LogMelFeatures
    options: DecodeOptions
    tokenizer: Tokenizer
    initial_prompt: list[int]
    encoded: dict[Window, Tensor]

    @classmethod
    def start(
        cls,
        recogniser: Recogniser,
        features: LogMelFeatures,
        options: DecodeOptions,
        on_language: LanguageFound | None,
        *,
        detect: bool = True,
    ) -> _Job:
        options = options.for_model(recogniser)
        encoded: dict[Window, Tensor] = {}
        if options.language is None and detect:
            states = recogniser.encode(features.leading_window()[None])
            if features.content_frames >= N_FRAMES:
                encoded[Window(0, N_FRAMES)] = states
            memory = recogniser.decoder.attend_to(states)
            probabilities = detect_languages(recogniser, memory)[0]
            language = max(probabilities, key=probabilities.__getitem__)
            options = replace(options, language=language)
            if on_language is not None:
                on_language(language, probabilities[language])
        tokenizer = recogniser.tokenizer(options.language, options.task)
        given = options.initial_prompt
        prompt = [] if given is None else tokenizer.encode(" " + given.strip())
        return cls(recogniser, features, options, tokenizer, prompt, encoded)

    def encode(self, windows: list[Window]) -> Tensor:
        """Encoder states (B, 1500, n_audio_state) of the windows."""
        if len(windows) == 1 and windows[0] in self.encoded:
            return self.encoded.pop(windows[0])
        return self.recogniser.encode(torch.stack([self.mel(window) for window in windows]))

    def mel(self, window: Window) -> Tensor:
        """Log-mel features (n_mels, 3000) of a window."""
        return self.features.window(window.seek, window.size, pad_to=N_FRAMES)

    def report(self, seek: int, on_progress: Progress | None) -> None:
        if on_progress is not None:
            done = min(seek, self.features.content_frames) * HOP_LENGTH / SAMPLE_RATE
            on_progress(done, self.features.duration)


class _PreviousText:
    """The text that the next window is prompted with."""

    def __init__(self, job: _Job) -> None:
        self._options = job.options
        self._initial = job.initial_prompt
        self._tokens = list(job.initial_prompt)
        self._reset = 0
        self._room = job.recogniser.dims.n_text_ctx // 2 - 1

    def prompt(self) -> list[int]:
        if not self._options.carry_initial_prompt:
            return self._tokens[self._reset :]
        rest = self._tokens[max(len(self._initial), self._reset) :]
        room = max(0, self._room - len(self._initial))
        return self._initial + rest[len(rest) - min(room, len(rest)) :]

    def add(self, drafts: list[Draft], temperature: float) -> None:
        self._tokens.extend(token for draft in drafts for token in draft["tokens"])
        if not self._options.condition_on_previous_text or temperature > _PROMPT_RESET_TEMPERATURE:
            self._reset = len(self._tokens)


def _clips(job: _Job) -> list[tuple[int, int]]:
    """The first frame of each clip and the frame after its last, within the recording."""
    content = job.features.content_frames
    points = [round(t * FRAMES_PER_SECOND) for t in job.options.clips] or [0]
    if len(points) % 2 == 1:
        points.append(content)
    return [(first, min(last, content)) for first, last in zip(points[::2], points[1::2], strict=True)]


def _continue(job: _Job, piece: _Stretch, window: Window, result: Hypothesis, states: Tensor) -> None:
    """Add a window to its piece, and leave only a rest that another window should look at."""
    drafts = _read(job, piece, window, result, states) or []
    limit = window.offset + window.duration
    for draft in drafts:
        draft["start"], draft["end"] = min(draft["start"], limit), min(draft["end"], limit)
    piece.drafts.extend(drafts)
    text_follows = bool(result.tokens) and result.tokens[-1] < job.tokenizer.timestamp_begin
    if piece.end - piece.seek < _SHORTEST_REST and not text_follows:
        piece.seek = piece.end


def _read(
    job: _Job, stretch: _Stretch, window: Window, result: Hypothesis, states: Tensor
) -> list[Draft] | None:
    """The segments of a decoded window; moves the stretch on. None where the window is skipped."""
    options = job.options
    if is_silent(result, options):
        stretch.seek += window.size
        return None
    drafts, seek, closed = split(window, result, job.tokenizer, job.recogniser.dims.n_audio_ctx)
    if options.word_timestamps:
        add_word_timestamps(
            segments=drafts,
            model=_DecoderOnly(job.recogniser.weights),
            tokenizer=job.tokenizer,
            mel=states,
            num_frames=window.size,
            prepend_punctuations=options.prepend_punctuations,
            append_punctuations=options.append_punctuations,
            last_speech_timestamp=stretch.spoken_until,
        )
        last_word_end = get_end(drafts)
        if not closed and last_word_end is not None and last_word_end > window.offset:
            seek = round(last_word_end * FRAMES_PER_SECOND)
        if options.hallucination_silence_threshold is not None:
            trusted = drop_hallucinations(
                drafts,
                window,
                job.features,
                threshold=options.hallucination_silence_threshold,
                spoken_until=stretch.spoken_until,
                closed=closed,
            )
            seek = trusted.seek if trusted.seek is not None else seek
            if trusted.drafts is None:
                stretch.seek = max(seek, window.seek + 1)
                return None
            drafts = trusted.drafts
        last_word_end = get_end(drafts)
        if last_word_end is not None:
            stretch.spoken_until = last_word_end
    for draft in drafts:
        if draft["start"] == draft["end"] or draft["text"].strip() == "":
            draft.update(text="", tokens=[], words=[])
    # whisper.transcribe would decode a window without progress again, for ever.
    stretch.seek = seek if seek > window.seek else window.seek + window.size
    return drafts
