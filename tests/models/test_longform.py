from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import whisper
from material.small_models import model_of, recogniser_of
from whisper.model import ModelDimensions, Whisper

from app.audio.reading import load_audio
from kernels.arrays import Reals
from models.attention import open_attention
from models.decoding.longform import transcribe_batched, transcribe_windows
from models.decoding.options import DecodeOptions
from models.decoding.recogniser import Recogniser, encoder_of
from models.decoding.segments import Segment
from models.features import LogMelFeatures

pytestmark = pytest.mark.usefixtures("one_thread")

SECOND = 16000


@pytest.fixture(scope="module")
def long(sentences: Reals) -> Reals:
    """The sentences four times in 64 s, with pauses that put the borders of windows into other words each time."""
    pauses = [np.zeros(round(seconds * SECOND), np.float32) for seconds in (1.3, 4.1, 0.4, 1.8)]
    return np.concatenate([part for pause in pauses for part in (sentences, pause)])


class CountingEncoder:
    """A recogniser's encoder, and the windows that it was given."""

    def __init__(self, recogniser: Recogniser) -> None:
        self._encode = recogniser.encode
        self.windows: list[Reals] = []

    def __call__(self, mel: Reals) -> Reals:
        self.windows.extend(mel)
        return self._encode(mel)


def assert_equals_whisper(recogniser: Recogniser, audio: Reals, **options: Any) -> list[dict[str, Any]]:
    """Transcribe with both; returns the segments. Theirs may end after the recording, and hold words of no length."""
    options = {"temperature": 0.0, "language": "en", **options}
    sampling = options["temperature"] != 0.0
    torch.manual_seed(5)
    drawn = {"best_of": 5} if sampling else {}
    theirs = whisper.transcribe(recogniser.weights.whisper, audio, fp16=False, **options, **drawn)
    torch.manual_seed(5)
    encoder = CountingEncoder(recogniser)
    segments = transcribe_windows(
        replace(recogniser, encode=encoder), LogMelFeatures([audio]), DecodeOptions(seed=None, **options)
    )
    ours = [segment.to_dict() for segment in segments]
    assert len(ours) == len(theirs["segments"])
    for mine, other in zip(ours, theirs["segments"], strict=True):
        other["end"] = min(other["end"], len(audio) // 160 / 100)
        for name in ("id", "seek", "start", "end", "text", "tokens", "temperature"):
            assert mine[name] == other[name], name
        for name in ("avg_logprob", "compression_ratio", "no_speech_prob"):
            assert mine[name] == pytest.approx(other[name], abs=1e-4), name
        if options.get("word_timestamps"):
            for word, expected in zip(mine["words"], other["words"], strict=True):
                near = 0.02 * sum(w["start"] == w["end"] for w in other["words"]) + 1e-6
                assert word["word"] == expected["word"]
                assert word["start"] == pytest.approx(expected["start"], abs=near)
                assert word["end"] == pytest.approx(expected["end"], abs=near)
                assert word["probability"] == pytest.approx(expected["probability"], abs=1e-4)
    assert len({segment["seek"] for segment in ours}) <= len(encoder.windows)
    return ours


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"word_timestamps": True}, id="words"),
        pytest.param({"beam_size": 5, "initial_prompt": "A day by the sea."}, id="beam"),
        pytest.param({"clip_timestamps": "2.5,5.3,8"}, id="clips"),
    ],
)
def test_a_short_recording_is_transcribed_as_by_whisper(
    recogniser: Recogniser, sentences: Reals, options: dict[str, Any]
) -> None:
    segments = assert_equals_whisper(recogniser, sentences, **options)
    assert "market" in "".join(segment["text"] for segment in segments)


def test_windows_that_follow_each_other_as_by_whisper(recogniser: Recogniser, long: Reals) -> None:
    segments = assert_equals_whisper(recogniser, long[: 40 * SECOND])
    assert len({segment["seek"] for segment in segments}) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="greedy"),
        pytest.param({"beam_size": 5}, id="beam"),
        pytest.param({"word_timestamps": True}, id="words"),
        pytest.param({"condition_on_previous_text": False}, id="unconditioned"),
        pytest.param({"initial_prompt": "A day by the sea."}, id="prompt"),
        pytest.param({"initial_prompt": "A day.", "carry_initial_prompt": True}, id="carried"),
        pytest.param({"clip_timestamps": "3,21.5,40"}, id="clips"),
        pytest.param({"without_timestamps": True}, id="untimed"),
        pytest.param({"temperature": (0.0, 0.4, 0.8), "logprob_threshold": -0.2}, id="fallback"),
    ],
)
def test_a_minute_as_by_whisper(recogniser: Recogniser, long: Reals, options: dict[str, Any]) -> None:
    assert assert_equals_whisper(recogniser, long, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"temperature": (0.0, 0.4, 0.8), "logprob_threshold": -0.2}], ids=str
)
def test_a_chapter_as_by_whisper(recogniser: Recogniser, speech: Path, options: dict[str, Any]) -> None:
    files = sorted((speech / "LibriSpeech" / "train-clean-100" / "19" / "198").glob("*.flac"))
    chapter = np.concatenate([load_audio(file) for file in files])
    assert assert_equals_whisper(recogniser, chapter[: 70 * SECOND], **options)


@pytest.mark.slow
def test_hallucinations_around_silence_are_treated_as_by_whisper(
    recogniser: Recogniser, sentences: Reals
) -> None:
    noise = np.random.default_rng(0).standard_normal(40 * SECOND).astype(np.float32) * 0.02
    silence = np.zeros(25 * SECOND, np.float32)
    audio = np.concatenate([sentences, sentences, silence, sentences, sentences, noise])
    assert_equals_whisper(recogniser, audio, word_timestamps=True, hallucination_silence_threshold=2.0)


@pytest.mark.parametrize("level", [0.0, 0.02])
def test_silence_and_noise_as_by_whisper(recogniser: Recogniser, level: float) -> None:
    audio = np.random.default_rng(0).standard_normal(35 * SECOND).astype(np.float32) * np.float32(level)
    assert_equals_whisper(recogniser, audio)
    if level:
        assert assert_equals_whisper(recogniser, audio, no_speech_threshold=None)


def test_audio_shorter_than_a_frame_has_no_segments(recogniser: Recogniser) -> None:
    encoder = CountingEncoder(recogniser)
    for transcribe in (transcribe_windows, transcribe_batched):
        features = LogMelFeatures([np.zeros(100, np.float32)])
        assert list(transcribe(replace(recogniser, encode=encoder), features, DecodeOptions())) == []
    assert not encoder.windows


def test_a_clip_past_the_end_is_cut_there(recogniser: Recogniser, sentences: Reals) -> None:
    def texts(clips: str) -> list[str]:
        options = DecodeOptions(clip_timestamps=clips)
        return [s.text for s in transcribe_windows(recogniser, LogMelFeatures([sentences]), options)]

    assert texts("0,500") == texts("0")
    assert texts("400,500") == []


@pytest.mark.parametrize(("seconds", "encoded"), [(35, 1), (5, 2)])
def test_the_language_is_detected_on_the_first_thirty_seconds(seconds: int, encoded: int) -> None:
    torch.manual_seed(0)
    model = Whisper(ModelDimensions(80, 1500, 64, 1, 1, 51865, 448, 64, 1, 1)).eval()
    torch.nn.init.normal_(model.decoder.positional_embedding)
    audio = np.random.default_rng(0).standard_normal(seconds * SECOND).astype(np.float32) * 0.1
    clips = f"0,{min(seconds, 30)}"
    expected = whisper.transcribe(
        model, audio, fp16=False, temperature=0.0, clip_timestamps=clips, without_timestamps=True
    )
    found: list[tuple[str, float]] = []
    encoder = CountingEncoder(recogniser_of(model_of(model)))
    segments = transcribe_windows(
        replace(recogniser_of(model_of(model)), encode=encoder),
        LogMelFeatures([audio]),
        DecodeOptions(temperature=0.0, clip_timestamps=clips, without_timestamps=True),
        on_language=lambda language, probability: found.append((language, probability)),
    )
    assert [segment.text for segment in segments] == [s["text"] for s in expected["segments"]]
    assert [language for language, _ in found] == [expected["language"]]
    assert 0 < found[0][1] <= 1
    # A short recording is detected with digital silence after it, and decoded with zeros after it.
    assert len(encoder.windows) == encoded


@pytest.mark.parametrize("silence", [0, 19, 40])
def test_the_language_is_detected_on_speech(silence: int, sentences: Reals) -> None:
    torch.manual_seed(0)
    recogniser = recogniser_of(model_of(Whisper(ModelDimensions(80, 1500, 64, 1, 1, 51865, 448, 64, 1, 1))))
    encoder = CountingEncoder(recogniser)
    features = LogMelFeatures([np.zeros(silence * SECOND, np.float32), sentences])
    options = DecodeOptions(temperature=0.0, without_timestamps=True, language="auto")
    next(transcribe_windows(replace(recogniser, encode=encoder), features, options), None)
    expected = features.leading_window(4000 if silence == 40 else 0)
    np.testing.assert_array_equal(encoder.windows[0], expected)


@pytest.mark.parametrize(("clips", "more"), [("0", 0), ("1.5,4", 0), ("0,1,3,4", 1)])
def test_what_decodes_fast_encodes_a_window_once_for_language_text_and_words(
    clips: str, more: int, sentences: Reals, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = Whisper(ModelDimensions(80, 1500, 64, 1, 1, 51865, 64, 64, 1, 1)).eval()
    torch.nn.init.normal_(model.decoder.positional_embedding)
    recogniser = recogniser_of(model_of(model), "int8")
    attended: list[int] = []
    attend_to = recogniser.decoder.attend_to
    monkeypatch.setattr(
        recogniser.decoder, "attend_to", lambda states: attended.append(len(states)) or attend_to(states)
    )
    found: list[str] = []

    def read(language: str | None) -> tuple[list[Segment], int]:
        encoder = CountingEncoder(recogniser)
        attended.clear()
        options = DecodeOptions(
            temperature=0.0,
            clip_timestamps=clips,
            without_timestamps=True,
            word_timestamps=True,
            language=language,
        )
        segments = transcribe_windows(
            replace(recogniser, encode=encoder),
            LogMelFeatures([sentences[: 5 * SECOND]]),
            options,
            on_language=lambda language, _: found.append(language),
        )
        segments = list(segments)
        assert sum(attended) == len(encoder.windows)
        return segments, len(encoder.windows)

    segments, windows = read(None)
    assert any(segment.words for segment in segments)
    (language,) = found
    assert read(language) == (segments, windows - more)


def of_any_length(recogniser: Recogniser) -> tuple[Recogniser, CountingEncoder]:
    """With our own encoder, as whisper's takes 30 s alone, and the context `auto`."""
    encoder = encoder_of(recogniser.weights, open_attention("cpu"), context="auto")
    counting = CountingEncoder(replace(recogniser, encode=encoder))
    return replace(recogniser, encode=counting, context="auto"), counting


@pytest.mark.parametrize(("seconds", "frames"), [(2, 1024), (14, 2304), (22.5, 3000)])
def test_a_short_context_holds_the_audio_and_eight_seconds(
    seconds: float, frames: int, sentences: Reals, recogniser: Recogniser
) -> None:
    audio = np.resize(sentences, round(seconds * SECOND))
    given, encoder = of_any_length(recogniser)
    segments = list(transcribe_windows(given, LogMelFeatures([audio]), DecodeOptions(temperature=0.0)))
    assert segments
    assert encoder.windows[0].shape == (80, frames)
    if seconds < 20:
        (whole,) = LogMelFeatures([audio]).window(0, 3000)[None]
        np.testing.assert_array_equal(encoder.windows[0], whole[:, :frames])


def test_what_is_doubtful_in_a_short_context_is_decoded_in_the_whole_one(
    sentences: Reals, recogniser: Recogniser
) -> None:
    options = DecodeOptions(temperature=(0.0, 0.4), logprob_threshold=0.0)  # no text is that probable
    features = LogMelFeatures([sentences])
    given, encoder = of_any_length(recogniser)
    found = list(transcribe_windows(given, features, options))
    assert [window.shape[1] for window in encoder.windows] == [2304, 3000]
    assert found == list(transcribe_windows(replace(given, context="full"), features, options))


def test_a_text_without_an_end_is_doubtful() -> None:
    torch.manual_seed(0)
    recogniser = recogniser_of(model_of(Whisper(ModelDimensions(80, 1500, 64, 1, 1, 51864, 448, 64, 1, 1))))
    given, encoder = of_any_length(recogniser)
    options = DecodeOptions(
        temperature=0.0,
        compression_ratio_threshold=None,
        logprob_threshold=None,
        no_speech_threshold=None,
        suppress_tokens=(50256,),
    )
    next(transcribe_windows(given, LogMelFeatures([np.zeros(SECOND, np.float32)]), options), None)
    assert [window.shape[1] for window in encoder.windows[:2]] == [1024, 3000]


@pytest.mark.parametrize("batch", [0, 4])
@pytest.mark.parametrize("words", [False, True])
def test_segments_and_words_are_within_the_recording(
    usual: Recogniser, sentences: Reals, words: bool, batch: int
) -> None:
    options = DecodeOptions(temperature=0.0, word_timestamps=words)
    for start, seconds in ((0.0, 0.6), (2.0, 1.15), (4.3, 2.5), (9.0, 4.7)):
        cut = sentences[round(start * SECOND) : round((start + seconds) * SECOND)]
        features = LogMelFeatures([cut])
        if batch:
            segments = list(transcribe_batched(usual, features, options, batch_size=batch))
        else:
            segments = list(transcribe_windows(usual, features, options))
        times = [(segment.start, segment.end) for segment in segments if segment.text]
        assert all(0 <= a < b <= len(cut) / SECOND for a, b in times)
        assert all(one[1] <= other[0] for one, other in pairwise(times))
        for segment in segments:
            spans = [(word.start, word.end) for word in segment.words or ()]
            assert all(segment.start <= a < b <= segment.end for a, b in spans)
            assert all(one[1] <= other[0] for one, other in pairwise(spans))


def _batched(
    recogniser: Recogniser, audio: Reals, batch_size: int, **options: Any
) -> tuple[list[Segment], list[float]]:
    progress: list[float] = []
    segments = transcribe_batched(
        recogniser,
        LogMelFeatures([audio]),
        DecodeOptions(temperature=0.0, **options),
        batch_size=batch_size,
        on_progress=lambda done, _: progress.append(done),
    )
    return list(segments), progress


def test_pieces_in_batches_lose_and_double_nothing(recogniser: Recogniser, long: Reals) -> None:
    audio = long[: 48 * SECOND]
    segments, progress = _batched(recogniser, audio, 2)
    alone, _ = _batched(recogniser, audio, 1)
    assert [(s.start, s.end, s.text) for s in segments] == [(s.start, s.end, s.text) for s in alone]
    assert [s.id for s in segments] == list(range(len(segments)))
    assert all(b.start >= a.end - 1e-6 for a, b in pairwise(segments))
    assert progress == sorted(progress)
    assert progress[-1] == pytest.approx(len(audio) / SECOND, abs=0.01)
    text = "".join(segment.text for segment in segments).lower()
    for words in (
        "wakes before the sun",
        "a lighthouse turns its last",
        "full of voices",
        "fish has been sold",
    ):
        assert text.count(words) == 3, words


def test_a_prompt_goes_to_the_first_piece_only_unless_carried(
    usual: Recogniser, long: Reals, monkeypatch: pytest.MonkeyPatch
) -> None:
    import models.decoding.reader

    prompts: list[list[int]] = []
    decode: Callable[..., Any] = models.decoding.reader.decode_with_fallback

    def recording(*args: Any, prompt: list[int], **kwargs: Any) -> Any:
        prompts.append(prompt)
        return decode(*args, prompt=prompt, **kwargs)

    monkeypatch.setattr(models.decoding.reader, "decode_with_fallback", recording)
    _batched(usual, long[: 32 * SECOND], 8, initial_prompt="A day.")
    assert [bool(prompt) for prompt in prompts][:2] == [True, False]
    prompts.clear()
    _batched(usual, long[: 32 * SECOND], 8, initial_prompt="A day.", carry_initial_prompt=True)
    assert prompts
    assert all(prompts)
