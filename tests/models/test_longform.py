import difflib
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import whisper
from places import SPEECH
from whisper.model import ModelDimensions, Whisper

from app.audio.reading import load_audio
from models.decoding.longform import transcribe_batched, transcribe_windows
from models.decoding.options import DecodeOptions
from models.features import LogMelFeatures

pytestmark = pytest.mark.usefixtures("one_thread")

CHAPTER = SPEECH / "LibriSpeech" / "train-clean-100" / "19" / "198"
SECOND = 16000

Array = np.ndarray[Any, np.dtype[np.float32]]


@pytest.fixture(scope="module")
def jfk() -> Array:
    path = SPEECH / "misc" / "jfk.flac"
    if not path.exists():
        pytest.skip(f"no speech at {SPEECH}")
    return load_audio(path)


@pytest.fixture(scope="module")
def chapter() -> Array:
    files = sorted(CHAPTER.glob("*.flac"))
    if not files:
        pytest.skip(f"no speech at {CHAPTER}")
    return np.concatenate([load_audio(file) for file in files])


class CountingEncoder:
    """A model's own encoder, and the windows that it was given."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.windows: list[torch.Tensor] = []

    @torch.no_grad()
    def __call__(self, mel: torch.Tensor) -> torch.Tensor:
        self.windows.extend(mel)
        return self._model.encoder(mel)


def assert_equals_whisper(model: Any, audio: Array, **options: Any) -> list[dict[str, Any]]:
    """Transcribe with both; returns the segments."""
    options = {"temperature": 0.0, "language": "en", **options}
    sampling = options["temperature"] != 0.0
    torch.manual_seed(5)
    theirs = whisper.transcribe(model, audio, fp16=False, **options, **({"best_of": 5} if sampling else {}))
    torch.manual_seed(5)
    encoder = CountingEncoder(model)
    segments = transcribe_windows(
        model, LogMelFeatures([audio]), DecodeOptions(seed=None, **options), encode=encoder
    )
    ours = [segment.to_dict() for segment in segments]
    assert len(ours) == len(theirs["segments"])
    for mine, other in zip(ours, theirs["segments"], strict=True):
        for name in ("id", "seek", "start", "end", "text", "tokens", "temperature"):
            assert mine[name] == other[name], name
        for name in ("avg_logprob", "compression_ratio", "no_speech_prob"):
            assert mine[name] == pytest.approx(other[name], abs=1e-4), name
        if options.get("word_timestamps"):
            for word, expected in zip(mine["words"], other["words"], strict=True):
                assert {**word, "probability": 0} == {**expected, "probability": 0}
                assert word["probability"] == pytest.approx(expected["probability"], abs=1e-4)
    assert len({segment["seek"] for segment in ours}) <= len(encoder.windows)
    return ours


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"word_timestamps": True}, id="words"),
        pytest.param({"beam_size": 5, "initial_prompt": "A President's inaugural address."}, id="beam"),
        pytest.param({"clip_timestamps": "2.5,5.3,8"}, id="clips"),
    ],
)
def test_a_short_recording_is_transcribed_as_by_whisper(
    tiny: Any, jfk: Array, options: dict[str, Any]
) -> None:
    segments = assert_equals_whisper(tiny, jfk, **options)
    assert "country" in "".join(segment["text"] for segment in segments)


def test_windows_that_follow_each_other_as_by_whisper(tiny: Any, chapter: Array) -> None:
    segments = assert_equals_whisper(tiny, chapter[: 40 * SECOND])
    assert len({segment["seek"] for segment in segments}) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="greedy"),
        pytest.param({"beam_size": 5}, id="beam"),
        pytest.param({"word_timestamps": True}, id="words"),
        pytest.param({"condition_on_previous_text": False}, id="unconditioned"),
        pytest.param({"initial_prompt": "A novel by Jane Austen."}, id="prompt"),
        pytest.param({"initial_prompt": "A novel.", "carry_initial_prompt": True}, id="carried"),
        pytest.param({"clip_timestamps": "3,21.5,40"}, id="clips"),
        pytest.param({"without_timestamps": True}, id="untimed"),
        pytest.param({"temperature": (0.0, 0.4, 0.8), "logprob_threshold": -0.2}, id="fallback"),
    ],
)
def test_seventy_seconds_as_by_whisper(tiny: Any, chapter: Array, options: dict[str, Any]) -> None:
    assert assert_equals_whisper(tiny, chapter[: 70 * SECOND], **options)


@pytest.mark.slow
def test_hallucinations_around_silence_are_treated_as_by_whisper(tiny: Any, chapter: Array) -> None:
    noise = np.random.default_rng(0).standard_normal(40 * SECOND).astype(np.float32) * 0.02
    silence = np.zeros(25 * SECOND, np.float32)
    audio = np.concatenate([chapter[: 20 * SECOND], silence, chapter[20 * SECOND : 40 * SECOND], noise])
    assert_equals_whisper(tiny, audio, word_timestamps=True, hallucination_silence_threshold=2.0)


@pytest.mark.parametrize("level", [0.0, 0.02])
def test_silence_and_noise_as_by_whisper(tiny: Any, level: float) -> None:
    audio = np.random.default_rng(0).standard_normal(35 * SECOND).astype(np.float32) * np.float32(level)
    assert_equals_whisper(tiny, audio)
    if level:
        assert assert_equals_whisper(tiny, audio, no_speech_threshold=None)


def test_audio_shorter_than_a_frame_has_no_segments(tiny: Any) -> None:
    encoder = CountingEncoder(tiny)
    for transcribe in (transcribe_windows, transcribe_batched):
        features = LogMelFeatures([np.zeros(100, np.float32)])
        assert list(transcribe(tiny, features, DecodeOptions(), encode=encoder)) == []
    assert not encoder.windows


def test_a_clip_past_the_end_is_cut_there(tiny: Any, jfk: Array) -> None:
    def texts(clips: str) -> list[str]:
        options = DecodeOptions(clip_timestamps=clips)
        found = transcribe_windows(tiny, LogMelFeatures([jfk]), options, encode=CountingEncoder(tiny))
        return [segment.text for segment in found]

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
    encoder = CountingEncoder(model)
    segments = transcribe_windows(
        model,
        LogMelFeatures([audio]),
        DecodeOptions(temperature=0.0, clip_timestamps=clips, without_timestamps=True),
        encode=encoder,
        on_language=lambda language, probability: found.append((language, probability)),
    )
    assert [segment.text for segment in segments] == [s["text"] for s in expected["segments"]]
    assert [language for language, _ in found] == [expected["language"]]
    assert 0 < found[0][1] <= 1
    # A short recording is detected with digital silence after it, and decoded with zeros after it.
    assert len(encoder.windows) == encoded


def _words(text: str) -> list[str]:
    return re.sub(r"[^a-z' ]", " ", text.lower().replace("-", " ")).split()


def _batched(model: Any, audio: Array, batch_size: int, **options: Any) -> tuple[list[Any], list[float]]:
    progress: list[float] = []
    segments = transcribe_batched(
        model,
        LogMelFeatures([audio]),
        DecodeOptions(temperature=0.0, **options),
        encode=CountingEncoder(model),
        batch_size=batch_size,
        on_progress=lambda done, _: progress.append(done),
    )
    return list(segments), progress


def test_pieces_in_batches_lose_and_double_nothing(tiny: Any, chapter: Array) -> None:
    audio = chapter[: 70 * SECOND]
    segments, progress = _batched(tiny, audio, 3)
    alone, _ = _batched(tiny, audio, 1)
    assert [(s.start, s.end, s.text) for s in segments] == [(s.start, s.end, s.text) for s in alone]
    assert [s.id for s in segments] == list(range(len(segments)))
    assert all(b.start >= a.end - 1e-6 for a, b in pairwise(segments))
    assert progress == sorted(progress)
    assert progress[-1] == pytest.approx(70)
    lines = (CHAPTER / "19-198.trans.txt").read_text().splitlines()
    reference = _words(" ".join(line.split(" ", 1)[1] for line in lines))[: len(_words(_text(segments)))]
    matcher = difflib.SequenceMatcher(None, reference, _words(_text(segments)), autojunk=False)
    assert matcher.ratio() > 0.9


def _text(segments: list[Any]) -> str:
    return " ".join(segment.text for segment in segments)


def test_a_prompt_goes_to_the_first_piece_only_unless_carried(
    tiny: Any, chapter: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    import models.decoding.longform

    prompts: list[list[int]] = []
    decode: Callable[..., Any] = models.decoding.longform.decode_with_fallback

    def recording(*args: Any, prompt: list[int], **kwargs: Any) -> Any:
        prompts.append(prompt)
        return decode(*args, prompt=prompt, **kwargs)

    monkeypatch.setattr(models.decoding.longform, "decode_with_fallback", recording)
    _batched(tiny, chapter[: 32 * SECOND], 8, initial_prompt="A novel.")
    assert [bool(prompt) for prompt in prompts][:2] == [True, False]
    prompts.clear()
    _batched(tiny, chapter[: 32 * SECOND], 8, initial_prompt="A novel.", carry_initial_prompt=True)
    assert prompts
    assert all(prompts)
