"""Recordings of any length: openai-whisper's sequential algorithm, and independent pieces in batches.

Both read a stretch of audio window by window: a window is decoded, split at the timestamps that the model
put into its text, and the next one starts where the last complete segment ended. Source of the method:
`whisper.transcribe`, whose results the sequential form reproduces, hallucination rules included.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from whisper.audio import FRAMES_PER_SECOND, HOP_LENGTH, N_FRAMES, SAMPLE_RATE
from whisper.timing import add_word_timestamps
from whisper.tokenizer import get_tokenizer
from whisper.utils import get_end

from models.decoding import DecodeOptions, Hypothesis, decode_with_fallback, decoder_of, detect_languages
from models.features import LogMelFeatures, quiet_pieces
from models.results import Segment, Word

__all__ = ["Encode", "transcribe_batched", "transcribe_windows"]

Encode = Callable[[Tensor], Tensor]
Progress = Callable[[float, float], None]
LanguageFound = Callable[[str, float], None]
# While a window is worked on its segments are whisper's dicts, because whisper.timing edits them in place.
_Draft = dict[str, Any]

_PROMPT_RESET_TEMPERATURE = 0.5
_PUNCTUATION = "\"'“¿([{-\"'.。,，!！?？:：”)]}、"
# A rest of a piece that is shorter, and that the model put no text into, is not worth a window of its own.
_SHORTEST_REST = FRAMES_PER_SECOND // 2


def transcribe_windows(
    model: Any,
    features: LogMelFeatures,
    options: DecodeOptions,
    *,
    encode: Encode,
    on_progress: Progress | None = None,
    on_language: LanguageFound | None = None,
) -> Iterator[Segment]:
    """Transcribe a recording in order, each window prompted with the text before it.

    model : `whisper.model.Whisper`, float32 on the CPU
    encode : float32 log-mel (B, n_mels, 3000) -> encoder states (B, 1500, n_audio_state); called once per
        window, and once more to detect the language where that takes a window that is not decoded
    on_progress : called after each window with the seconds that are done, and the seconds in all
    on_language : called with the language's code and probability, where it has to be detected

    Yields the segments of each window as soon as it is decoded. With the model's own encoder they are those
    of `whisper.transcribe`. Raises ValueError where the options do not suit the model.
    """
    job = _Job.start(model, features, options, encode, on_language)
    previous = _PreviousText(job)
    spoken_until = 0.0
    count = 0
    for first, last in _clips(job):
        stretch = _Stretch(first, last, spoken_until)
        while stretch.seek < stretch.end:
            window = stretch.window()
            states = job.encode([window])
            result = decode_with_fallback(
                model, states, job.options, prompt=previous.prompt(), windows=[window.seek]
            )[0]
            drafts = _read(job, stretch, window, result, states[0])
            if drafts is not None:
                previous.add(drafts, result.temperature)
            for draft in drafts or ():
                yield _segment(count, draft, job.options.word_timestamps)
                count += 1
            job.report(stretch.seek, on_progress)
        spoken_until = stretch.spoken_until


def transcribe_batched(
    model: Any,
    features: LogMelFeatures,
    options: DecodeOptions,
    *,
    encode: Encode,
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
    job = _Job.start(model, features, options, encode, on_language)
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
            model, states, job.options, prompt=prompt, windows=[window.seek for window in windows]
        )
        for piece, window, result, state in zip(batch, windows, results, states, strict=True):
            _continue(job, piece, window, result, state)
        waiting.extendleft(piece for piece in reversed(batch) if piece.seek < piece.end)
        prompt = prompt if options.carry_initial_prompt else []
        while unreported and unreported[0].seek >= unreported[0].end:
            piece = unreported.popleft()
            for draft in piece.drafts:
                yield _segment(next(numbers), draft, job.options.word_timestamps)
            job.report(piece.end, on_progress)


@dataclass(frozen=True)
class _Window:
    """`size` frames from `seek`; zeros follow them up to 30 s."""

    seek: int
    size: int

    @property
    def offset(self) -> float:
        return float(self.seek * HOP_LENGTH / SAMPLE_RATE)

    @property
    def duration(self) -> float:
        return float(self.size * HOP_LENGTH / SAMPLE_RATE)

    @property
    def full_end(self) -> float:
        return float((self.seek + N_FRAMES) * HOP_LENGTH / SAMPLE_RATE)


@dataclass
class _Stretch:
    """Frames `seek` to `end`, still to be read; `spoken_until` is when the last word before them ended."""

    seek: int
    end: int
    spoken_until: float
    drafts: list[_Draft] = field(default_factory=list)

    def window(self) -> _Window:
        return _Window(self.seek, min(N_FRAMES, self.end - self.seek))


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

    model: Any
    features: LogMelFeatures
    options: DecodeOptions
    encoder: Encode
    tokenizer: Any
    initial_prompt: list[int]
    encoded: dict[_Window, Tensor]

    @classmethod
    def start(
        cls,
        model: Any,
        features: LogMelFeatures,
        options: DecodeOptions,
        encoder: Encode,
        on_language: LanguageFound | None,
    ) -> _Job:
        options = options.for_model(model)
        encoded: dict[_Window, Tensor] = {}
        if options.language is None:
            states = encoder(features.leading_window()[None])
            if features.content_frames >= N_FRAMES:
                encoded[_Window(0, N_FRAMES)] = states
            probabilities = detect_languages(model, decoder_of(model).attend_to(states))[0]
            language = max(probabilities, key=probabilities.__getitem__)
            options = replace(options, language=language)
            if on_language is not None:
                on_language(language, probabilities[language])
        tokenizer = get_tokenizer(
            model.is_multilingual,
            num_languages=model.num_languages,
            language=options.language,
            task=options.task,
        )
        given = options.initial_prompt
        prompt = [] if given is None else tokenizer.encode(" " + given.strip())
        return cls(model, features, options, encoder, tokenizer, prompt, encoded)

    def encode(self, windows: list[_Window]) -> Tensor:
        """Encoder states (B, 1500, n_audio_state) of the windows."""
        if len(windows) == 1 and windows[0] in self.encoded:
            return self.encoded.pop(windows[0])
        mels = [self.features.window(w.seek, w.size, pad_to=N_FRAMES) for w in windows]
        return self.encoder(torch.stack(mels))

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
        self._room = job.model.dims.n_text_ctx // 2 - 1

    def prompt(self) -> list[int]:
        if not self._options.carry_initial_prompt:
            return self._tokens[self._reset :]
        rest = self._tokens[max(len(self._initial), self._reset) :]
        room = max(0, self._room - len(self._initial))
        return self._initial + rest[len(rest) - min(room, len(rest)) :]

    def add(self, drafts: list[_Draft], temperature: float) -> None:
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


def _continue(job: _Job, piece: _Stretch, window: _Window, result: Hypothesis, states: Tensor) -> None:
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
    job: _Job, stretch: _Stretch, window: _Window, result: Hypothesis, states: Tensor
) -> list[_Draft] | None:
    """The segments of a decoded window; moves the stretch on. None where the window is skipped."""
    options = job.options
    if _is_silent(result, options):
        stretch.seek += window.size
        return None
    drafts, seek, closed = _split(job, window, result)
    if options.word_timestamps:
        add_word_timestamps(
            segments=drafts,
            model=_DecoderOnly(job.model),
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
            trusted = _trust(job, window, drafts, stretch.spoken_until, closed)
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


def _is_silent(result: Hypothesis, options: DecodeOptions) -> bool:
    if options.no_speech_threshold is None or result.no_speech_prob <= options.no_speech_threshold:
        return False
    return options.logprob_threshold is None or result.avg_logprob <= options.logprob_threshold


def _split(job: _Job, window: _Window, result: Hypothesis) -> tuple[list[_Draft], int, bool]:
    """The segments between pairs of timestamps, the frame to go on from, and whether all was said.

    A single timestamp at the end says that no speech follows it. After a pair, the text that follows is
    not complete, and is left to the next window.
    """
    begin = job.tokenizer.timestamp_begin
    stride = N_FRAMES // job.model.dims.n_audio_ctx
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
            drafts.append(_draft(job, window, start, end, tokens[first:last], result))
        step = window.size if closed else (tokens[bounds[-1] - 1] - begin) * stride
        return drafts, window.seek + step, closed
    duration = window.duration
    stamps = [token for token in tokens if token >= begin]
    if stamps and stamps[-1] != begin:
        duration = (stamps[-1] - begin) * precision
    drafts = [_draft(job, window, window.offset, window.offset + duration, tokens, result)]
    return drafts, window.seek + window.size, closed


def _draft(
    job: _Job, window: _Window, start: float, end: float, tokens: list[int], result: Hypothesis
) -> _Draft:
    return {
        "seek": window.seek,
        "start": start,
        "end": end,
        "text": job.tokenizer.decode([token for token in tokens if token < job.tokenizer.eot]),
        "tokens": tokens,
        "temperature": result.temperature,
        "avg_logprob": result.avg_logprob,
        "compression_ratio": result.compression_ratio,
        "no_speech_prob": result.no_speech_prob,
    }


def _segment(number: int, draft: _Draft, with_words: bool) -> Segment:
    fields = {**draft, "tokens": tuple(draft["tokens"])}
    words = tuple(
        Word(float(w["start"]), float(w["end"]), w["word"], float(w["probability"]))
        for w in fields.pop("words", ())
    )
    fields["start"], fields["end"] = float(fields["start"]), float(fields["end"])
    return Segment(id=number, **fields, words=words if with_words else None)


@dataclass(frozen=True)
class _Trusted:
    """Segments that are no hallucination, None where leading silence is to be skipped before decoding again.

    seek : the frame to go on from, None where it does not change
    """

    drafts: list[_Draft] | None
    seek: int | None


def _trust(job: _Job, window: _Window, drafts: list[_Draft], spoken_until: float, closed: bool) -> _Trusted:
    """Drop segments that are probably hallucinated in silence, and skip that silence."""
    threshold = job.options.hallucination_silence_threshold or 0.0
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
            return _Trusted(None, window.seek + round(gap * FRAMES_PER_SECOND))
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
                if job.features.duration - draft["end"] < threshold:
                    seek = job.features.content_frames
                return _Trusted(drafts[:i], seek)
        previous_end = draft["end"]
    return _Trusted(drafts, seek)


def _next_with_words(drafts: list[_Draft]) -> _Draft | None:
    return next((draft for draft in drafts if draft["words"]), None)


def _is_anomalous(draft: _Draft | None) -> bool:
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
