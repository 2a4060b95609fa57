"""A stream of samples becomes words: partial ones that may change, and final ones that never do.

Voice activity divides the stream into utterances. While one is spoken, its audio so far is encoded and decoded again
every step, after the words that are final; a word becomes final when the decoder, saying it, listened to audio that is
not at the very end (`models.decoding.streaming`), and all of them when the utterance is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np

from kernels.arrays import Reals
from models.decoding.alignment import POSITIONS_PER_SECOND
from models.decoding.fallback import detect_languages
from models.decoding.options import DecodeOptions
from models.decoding.reader import padded_frames
from models.decoding.recogniser import Recogniser
from models.decoding.search import prompt_tokens
from models.decoding.segments import Word, is_silent
from models.decoding.streaming import Continuation, StreamedWord, continue_text
from models.features import SAMPLE_RATE, LogMelFeatures
from models.voice import FRAME, Ear

__all__ = ["LiveOptions", "LiveText", "LiveTranscriber"]


_FRAME_SECONDS = FRAME / SAMPLE_RATE
_WHOLE = 30.0  # seconds of silence after the audio: a window of 30 s


@dataclass(frozen=True)
class LiveOptions:
    """When a stream is decoded, and when its words are final.

    Attributes:
        step: seconds of audio from one decoding to the next.
        held_back: a word is not final while the decoder, saying it, attends to the last so many seconds.
        held_longer: the same of a word that is less probable than `unsure`.
        unsure: probability.
        margin: seconds of silence that are encoded after the audio, where the context is `auto`: less than of windows
            that are decoded once, since a text that loops is decoded again, at an utterance's end in 30 s.
        threshold: speech begins where its probability reaches this, and ends where it falls 0.15 under it, or under
            half of it where that is more.
        silence: seconds after which an utterance is over.
        before: seconds of audio that are heard before speech begins.
        shortest: seconds of speech that are an utterance.
        longest: seconds of an utterance that are encoded at once; of a longer one the beginning is let go of.
        prompted: how many tokens of the text before an utterance it is decoded after.
    """

    step: float = 0.8
    held_back: float = 0.5
    held_longer: float = 0.9
    unsure: float = 0.7
    margin: float = 4.0
    threshold: float = 0.5
    silence: float = 0.6
    before: float = 0.5
    shortest: float = 0.1
    longest: float = 10.0
    prompted: int = 50


@dataclass(frozen=True)
class LiveText:
    """What is new in a stream.

    Attributes:
        words: that are final from now on, with times in seconds of the stream.
        partial: the text that follows them, as it looks now.
        heard: seconds of the stream that this is of.
        utterance: its number, from 0.
        began: seconds of the stream at which its audio begins, the same as long as it lasts.
        opened: whether somebody has just begun to speak: nothing is decoded yet.
        closed: whether the utterance is over.
        language: of the utterance.
    """

    words: tuple[Word, ...]
    partial: str
    heard: float
    utterance: int
    began: float
    opened: bool
    closed: bool
    language: str


class LiveTranscriber:
    """Transcribes one stream of mono samples at 16 kHz."""

    def __init__(
        self,
        recogniser: Recogniser,
        options: DecodeOptions,
        live: LiveOptions | None = None,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Begin a stream.

        Args:
            recogniser: whose decoder is `Decoder.aligned`.
            options: how to decode; greedy whatever they say.
            live: when.
            turn: in which the utterance so far is decoded, each time, where others compute as well.

        Raises:
            models.decoding.options.OptionsError: the options do not suit the model.
        """
        self._recogniser, self._turn = recogniser, turn
        self._ear = Ear(FRAME)
        self._rest = np.zeros(0, np.float32)
        self._frames: deque[Reals] = deque()
        self._heard = 0  # frames, ever
        self._speech = 0  # frames of it in this utterance; 0 where there is none
        self._quiet = 0  # frames since
        self._undecoded = 0  # frames
        self._words: list[StreamedWord] = []  # final, of the audio that is kept
        self._told_until = 0.0
        self._utterance = 0
        self._began = 0.0
        self._prompt: list[int] = []
        self._options = replace(options, initial_prompt=None)
        self.change(options, live)
        self._spoken = self._language or "en"

    def change(self, options: DecodeOptions, live: LiveOptions | None = None) -> None:
        """Go on by other options, which take no final word back.

        Raises:
            models.decoding.options.OptionsError: they do not suit the model.
        """
        before, self._live = self._options, live or LiveOptions()
        self._options = options.for_model(self._recogniser.weights)
        self._language = self._options.language
        prompt = self._options.initial_prompt
        if prompt != before.initial_prompt:
            tokenizer = self._recogniser.tokenizer(self._language, self._options.task)
            self._prompt = prompt_tokens(tokenizer, prompt or None)

    @property
    def duration(self) -> float:
        """Seconds that were heard."""
        return self._heard * _FRAME_SECONDS

    @property
    def language(self) -> str:
        """Of the last utterance."""
        return self._spoken

    def push(self, samples: Reals, *, hurry: bool = False) -> list[LiveText]:
        """Take samples, float32 (n,), of any number.

        What becomes of them does not depend on how many are pushed at once, unless in a `hurry`: then they are
        decoded only where an utterance ends or is too long, and after the last of them.

        Returns:
            What is new, in order.
        """
        samples = np.concatenate([self._rest, samples.astype(np.float32)])
        count = len(samples) // FRAME
        self._rest = samples[count * FRAME :]
        frames = samples[: count * FRAME].reshape(count, FRAME)
        told: list[LiveText] = []
        for at, (frame, probability) in enumerate(
            zip(frames, self._ear.hear(frames.ravel()).max(axis=0), strict=True)
        ):
            told += self._take(frame, float(probability), hurry and at + 1 < count)
        return told

    def finish(self) -> list[LiveText]:
        """End the stream: what is left is final."""
        told = self.push(np.zeros(-len(self._rest) % FRAME, np.float32))
        return told + self._close()

    def commit(self) -> list[LiveText]:
        """End the utterance, wherever it is; the stream goes on."""
        told = self._close(self._rest)
        self._frames.clear()
        return told

    def clear(self) -> None:
        """Forget what of the utterance is not final; the stream goes on."""
        self._begin_next()
        self._frames.clear()

    def _take(self, frame: Reals, probability: float, later: bool) -> list[LiveText]:
        live, spoke = self._live, self._speech
        self._heard += 1
        self._frames.append(frame)
        if probability >= live.threshold:
            self._speech, self._quiet = self._speech + 1, 0
        elif self._speech and (self._quiet or probability < max(live.threshold - 0.15, live.threshold / 2)):
            self._quiet += 1
        if not self._speech:
            self._wait_for_speech()
            return []
        self._undecoded += 1
        if not spoke:
            self._began = (self._heard - len(self._frames)) * _FRAME_SECONDS
            return [self._said([], "", opened=True)]
        if self._quiet * _FRAME_SECONDS >= live.silence:
            return self._close()
        too_long = len(self._frames) * _FRAME_SECONDS > live.longest
        if self._undecoded * _FRAME_SECONDS < live.step or (later and not too_long):
            return []
        return self._tell()

    def _tell(self) -> list[LiveText]:
        """Decode, and tell what has become final."""
        live, found = self._live, self._decode()
        content = len(self._frames) * _FRAME_SECONDS * POSITIONS_PER_SECOND
        new, count = [], len(self._words)
        if not self._is_looping(found):
            # The last word may go on.
            for word in found.words[count:-1]:
                held = live.held_back if word.probability >= live.unsure else live.held_longer
                if word.attended >= content - held * POSITIONS_PER_SECOND:
                    break
                new.append(word)
        told = self._said(new, "".join(word.text for word in found.words[count + len(new) :]))
        self._words += new
        if len(self._frames) * _FRAME_SECONDS > self._live.longest:
            self._shorten()
        return [told]

    def _close(self, rest: Reals | None = None) -> list[LiveText]:
        """All that was said in the utterance is final; `rest` is heard as well, and stays."""
        told: list[LiveText] = []
        if self._speech:
            new: list[StreamedWord] = []
            if self._speech * _FRAME_SECONDS >= self._live.shortest:
                found = self._decode(rest)
                if self._is_no_text(found) and self._recogniser.context == "auto":
                    found = self._decode(rest, _WHOLE)
                if not self._is_no_text(found):
                    new = list(found.words[len(self._words) :])
            told.append(self._said(new, "", closed=True))
            self._keep_prompt([*self._words, *new])
            self._utterance += 1
        self._begin_next()
        return told

    def _begin_next(self) -> None:
        self._words, self._speech, self._quiet, self._undecoded = [], 0, 0, 0
        self._language = self._options.language
        self._wait_for_speech()

    def _decode(self, rest: Reals | None = None, margin: float | None = None) -> Continuation:
        self._undecoded = 0
        samples = np.concatenate([*self._frames, *([] if rest is None else [rest])])
        with self._turn():
            return self._continue(samples, self._live.margin if margin is None else margin)

    def _continue(self, samples: Reals, margin: float) -> Continuation:
        recogniser = self._recogniser
        with LogMelFeatures([samples], recogniser.weights.dims.n_mels) as features:
            frames = padded_frames(features.content_frames, recogniser.context, margin)
            mel = features.window(0, features.content_frames, pad_to=frames)
        states = recogniser.encode(mel[None, :, :frames])
        memory = recogniser.decoder.attend_to(states)
        if self._language is None:
            found = detect_languages(recogniser, memory)[0]
            self._language = max(found, key=found.__getitem__)
        self._spoken = self._language
        return continue_text(
            recogniser,
            memory,
            min(features.content_frames // 2, states.shape[1]),
            replace(self._options, language=self._language),
            final=[token for word in self._words for token in word.tokens],
            prompt=self._prompt,
        )

    def _is_no_text(self, found: Continuation) -> bool:
        return self._is_looping(found) or is_silent(found, self._options)

    def _is_looping(self, found: Continuation) -> bool:
        limit = self._options.compression_ratio_threshold
        return not found.ended or (limit is not None and found.compression_ratio > limit)

    def _said(
        self, new: list[StreamedWord], partial: str, *, opened: bool = False, closed: bool = False
    ) -> LiveText:
        begin = (self._heard - len(self._frames)) * _FRAME_SECONDS
        heard = self._heard * _FRAME_SECONDS
        words = []
        for word in new:
            start, end = (min(begin + at / POSITIONS_PER_SECOND, heard) for at in (word.start, word.end))
            start = max(start, self._told_until)
            self._told_until = max(start, end)
            words.append(Word(word.text, round(start, 3), round(self._told_until, 3), word.probability))
        return LiveText(
            tuple(words), partial, heard, self._utterance, self._began, opened, closed, self._spoken
        )

    def _keep_prompt(self, words: list[StreamedWord]) -> None:
        if self._options.condition_on_previous_text and self._live.prompted:
            self._prompt += [token for word in words for token in word.tokens]
            self._prompt = self._prompt[-self._live.prompted :]

    def _shorten(self) -> None:
        """Let go of the first part of a long utterance, up to the longest pause between final words.

        Where that is not enough, since what was said is no text, of all that is too long.
        """
        words, kept, frames = self._words, 0, 0
        latest = len(self._frames) * _FRAME_SECONDS * POSITIONS_PER_SECOND
        if words:
            cuts = [i for i in range(1, len(words)) if words[i].start > latest / 2] or [len(words) - 1]
            kept = max(cuts, key=lambda i: words[i].start - words[i - 1].end)
            frames = int(words[kept].start / POSITIONS_PER_SECOND / _FRAME_SECONDS)
        most = round(self._live.longest / _FRAME_SECONDS)
        if len(self._frames) - frames > most:
            frames = len(self._frames) - most
            first = frames * _FRAME_SECONDS * POSITIONS_PER_SECOND
            kept = next((i for i, word in enumerate(words) if word.start >= first), len(words))
        self._keep_prompt(words[:kept])
        moved = round(frames * _FRAME_SECONDS * POSITIONS_PER_SECOND)
        self._words = [replace(w, start=w.start - moved, end=w.end - moved) for w in words[kept:]]
        self._forget(frames)

    def _wait_for_speech(self) -> None:
        """Keep no more than what is heard before speech begins."""
        self._forget(len(self._frames) - round(self._live.before / _FRAME_SECONDS))

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self._frames.popleft()
