"""Nothing invented and nothing lost, by each model, backend and way of decoding that a user has at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from jiwer import wer
from material.sounds import SECOND, Samples, noises, whispered

from app import DecodeOptions, Transcriber, load_model
from app.audio.reading import load_audio
from app.transcript import Transcript
from datasets.utterance import Utterance
from models.decoding.segments import Segment

QUICK = ("tiny.en", "int32")
BATCHES = pytest.mark.parametrize("batch_size", [1, 8])
NEAR = 0.2
"""Seconds by which times may differ."""


@pytest.fixture(
    scope="module",
    params=[
        QUICK,
        *(
            pytest.param(way, marks=pytest.mark.slow)
            for way in (("tiny.en", "cpu"), ("base", "int32"), ("base", "cpu"))
        ),
    ],
    ids="-".join,
)
def transcriber(request: pytest.FixtureRequest, tiny_en: Transcriber) -> Transcriber:
    return tiny_en if request.param == QUICK else load_model(*request.param)


@pytest.fixture(scope="module")
def sentences(spoken: Utterance) -> Samples:
    """Three in 14 s."""
    return load_audio(spoken.audio)


@pytest.fixture(scope="module")
def alone(transcriber: Transcriber, sentences: Samples) -> list[Segment]:
    """What is said in them, with nothing before or after."""
    return told(transcriber.transcribe(sentences, DecodeOptions(language="en")))


def words(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def told(transcript: Transcript, after: float = 0.0, until: float = np.inf) -> list[Segment]:
    """Segments with text between two times."""
    return [s for s in transcript.segments if s.text and s.start >= after and s.end <= until]


def text(segments: list[Segment]) -> str:
    return words("".join(segment.text for segment in segments))


@BATCHES
@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", noises(1))
def test_where_nobody_speaks_there_is_no_word(
    name: str, seconds: float, batch_size: int, transcriber: Transcriber
) -> None:
    assert transcriber.transcribe(noises(seconds)[name], batch_size=batch_size).text == ""


@BATCHES
@pytest.mark.parametrize("between", ["digital silence", "faint white noise"])
def test_what_is_said_on_both_sides_of_a_minute_is_there_with_its_times_and_nothing_between(
    between: str, batch_size: int, transcriber: Transcriber, sentences: Samples, alone: list[Segment]
) -> None:
    options = DecodeOptions(language="en")
    audio = np.concatenate([sentences, noises(60)[between], sentences])
    whole = transcriber.transcribe(audio, options, batch_size=batch_size)
    length, second = len(sentences) / SECOND, len(sentences) / SECOND + 60
    parts = told(whole, until=length + NEAR), told(whole, after=second - NEAR)
    assert len(told(whole)) == sum(map(len, parts))
    for part, offset in zip(parts, (0, second), strict=True):
        assert text(part) == text(alone)
        assert part[0].start - offset == pytest.approx(alone[0].start, abs=NEAR)
        assert part[-1].end - offset == pytest.approx(alone[-1].end, abs=NEAR)


@BATCHES
def test_a_sentence_before_two_minutes_of_noise_is_there_once(
    batch_size: int, transcriber: Transcriber, sentences: Samples
) -> None:
    options = DecodeOptions(language="en")
    first = sentences[: round(2.9 * SECOND)]
    audio = np.concatenate([first, noises(120)["faint white noise"]])
    alone = transcriber.transcribe(first, options)
    assert text(told(transcriber.transcribe(audio, options, batch_size=batch_size))) == words(alone.text)


def test_overlong_silence_does_not_move_the_times_of_words(
    transcriber: Transcriber, sentences: Samples
) -> None:
    options = DecodeOptions(language="en", word_timestamps=True)
    silence = np.zeros(100 * SECOND, np.float32)

    def times(audio: Any, offset: float = 0.0) -> Any:
        found = told(transcriber.transcribe(audio, options))
        return np.array([(w.start - offset, w.end - offset) for s in found for w in s.words or ()])

    alone = times(sentences)
    second = 200 + len(sentences) / SECOND
    found = times(np.concatenate([silence, sentences, silence, sentences, silence]), 100)
    np.testing.assert_allclose(found[: len(alone)], alone, atol=NEAR)
    np.testing.assert_allclose(found[len(alone) :] - (second - 100), alone, atol=NEAR)


@pytest.mark.parametrize(("quieter", "whisper"), [(-40, False), (-20, True)])
def test_a_faint_voice_and_a_whisper_are_read_as_without_voice_activity(
    quieter: float, whisper: bool, transcriber: Transcriber, sentences: Samples
) -> None:
    audio = whispered(sentences, quieter) if whisper else sentences * np.float32(10 ** (quieter / 20))
    read = transcriber.transcribe(audio, DecodeOptions(language="en"))
    everything = transcriber.transcribe(audio, DecodeOptions(language="en", vad=None))
    assert len(read.text) > 100
    assert wer(words(everything.text), words(read.text)) < 0.05
    assert read.coverage is not None
    assert read.coverage.left_over == ()
