import numpy as np
import pytest
import torch
from material.sounds import SECOND, noises
from silero_vad import load_silero_vad
from silero_vad.utils_vad import get_speech_timestamps_from_probs

import models.voice
from models.decoding.longform import transcribe_batched, transcribe_windows
from models.decoding.options import DecodeOptions
from models.decoding.recogniser import Recogniser
from models.features import LogMelFeatures
from models.voice import VadOptions, VoiceActivity, common, speech_spans, without

RANDOM = np.random.default_rng(3)


def heard(audio: np.ndarray, options: VadOptions | None = None, blocks: int = 1) -> VoiceActivity:
    """What voice activity is in samples that come in blocks of random lengths."""
    voice = VoiceActivity(options)
    cuts = np.sort(RANDOM.integers(0, len(audio) + 1, blocks - 1))
    passed = list(voice.listen(np.split(audio.astype(np.float32), cuts)))
    np.testing.assert_array_equal(np.concatenate(passed), audio.astype(np.float32))
    return voice


@pytest.mark.parametrize("name", noises(1))
def test_what_is_no_speech_is_not_taken_for_it(name: str) -> None:
    assert heard(noises(20)[name]).spans() == []


@pytest.mark.parametrize("decibels", [20, 0, -20, -40, -60, -80])
def test_a_quiet_voice_is_a_voice(decibels: int, sentences: np.ndarray) -> None:
    assert heard(np.clip(sentences * 10 ** (decibels / 20), -1, 1)).spans() == [(0, len(sentences) / SECOND)]


def test_a_quiet_voice_after_a_loud_one_is_a_voice_and_a_level_that_would_only_clip_is_left_out(
    sentences: np.ndarray,
) -> None:
    voice = heard(np.concatenate([sentences, np.zeros(20 * SECOND), sentences * 0.001]))
    (first, second) = voice.spans()
    assert (first[0], second[1]) == (0, voice.duration)
    assert (first[1], second[0]) == (pytest.approx(14.3, abs=0.6), pytest.approx(34, abs=0.6))
    assert [bool(level[:512].any()) for level in voice._levels] == [True, True, False]


@pytest.mark.parametrize("after", ["nothing", "digital silence", "faint white noise"])
@pytest.mark.parametrize("decibels", [0, -40])
def test_a_voice_ends_at_one_time_whatever_its_level_and_what_follows(
    decibels: int, after: str, sentences: np.ndarray
) -> None:
    follows = noises(5).get(after, np.zeros(0))
    ((_, end),) = heard(np.concatenate([sentences * 10 ** (decibels / 20), follows])).ends()
    assert end == pytest.approx(14.05, abs=0.1)


def test_probabilities_are_those_of_the_package(
    sentences: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.voice, "_GAINS", (1.0,))
    network = load_silero_vad()
    padded = np.pad(sentences, (0, -len(sentences) % 512))
    with torch.no_grad():
        expected = [float(network(torch.from_numpy(part), SECOND)) for part in padded.reshape(-1, 512)]
    np.testing.assert_allclose(heard(sentences).probabilities, expected, atol=2e-3)


def test_probabilities_do_not_depend_on_the_blocks(sentences: np.ndarray) -> None:
    whole = heard(sentences).probabilities
    assert len(whole) == -(-len(sentences) // 512)
    np.testing.assert_allclose(heard(sentences, blocks=200).probabilities, whole, atol=1e-5)


@pytest.mark.parametrize("samples", [0, 1, 511, 512, 513])
def test_the_shortest_recordings(samples: int) -> None:
    voice = heard(np.zeros(samples))
    assert (len(voice.probabilities), voice.duration) == (-(-samples // 512), samples / SECOND)
    assert voice.spans() == []
    assert not voice.is_speech(np.arange(3) / 100).any()


@pytest.mark.parametrize("seed", range(20))
def test_stretches_are_those_of_the_package(seed: int) -> None:
    """But for the ends, where it hears less silence and takes the pause before a recording's end for speech."""
    random = np.random.default_rng(seed)
    steps = random.random(40) < 0.5
    probabilities = np.repeat(steps, random.integers(1, 30, 40)) * 0.6 + random.random() * 0.3
    probabilities = np.concatenate(
        [[0] * 80, probabilities + random.normal(0, 0.1, len(probabilities)), [0] * 80]
    )
    silence, speech = int(random.integers(50, 800)), int(random.integers(0, 400))
    theirs = get_speech_timestamps_from_probs(
        list(probabilities), min_speech_duration_ms=speech, min_silence_duration_ms=silence, speech_pad_ms=30
    )
    ours = speech_spans(
        probabilities.astype(np.float32),
        len(probabilities) * 512 / SECOND,
        VadOptions(min_speech_duration_ms=speech, min_silence_duration_ms=silence, speech_pad_ms=30),
    )
    expected = [(span["start"] / SECOND, span["end"] / SECOND) for span in theirs]
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_short_silence_at_the_ends_is_heard_with_speech() -> None:
    probabilities = np.zeros(400, np.float32)
    probabilities[50:100] = probabilities[250:360] = 1
    options = VadOptions(min_silence_duration_ms=2000, speech_pad_ms=0)
    assert speech_spans(probabilities, 12.8, options) == [(0, 3.2), (8.0, 12.8)]
    options = VadOptions(min_silence_duration_ms=1000, speech_pad_ms=0)
    assert speech_spans(probabilities, 12.8, options) == [(1.6, 3.2), (8.0, 11.52)]


def test_what_two_lists_have_in_common() -> None:
    assert common([(0, 4), (6, 9)], [(1, 2), (3, 7), (8, 8), (9, 12)]) == [(1, 2), (3, 4), (6, 7)]


@pytest.mark.parametrize("seed", range(50))
def test_what_is_in_both_and_in_one_alone_is_all_of_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    edges = [sorted(set(random.integers(0, 60, 2 * random.integers(0, 9)).tolist())) for _ in range(2)]
    spans, others = ([(a, b) for a, b in zip(e[::2], e[1::2], strict=False)] for e in edges)

    def units(them: list[tuple[int, int]]) -> set[int]:
        return {i for start, end in them for i in range(int(start), int(end))}

    assert units(common(spans, others)) == units(spans) & units(others)
    assert units(without(spans, others)) == units(spans) - units(others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "vad_threshold must be between 0 and 1, not 0"),
        ({"threshold": float("nan")}, "vad_threshold must be between 0 and 1, not nan"),
        ({"neg_threshold": 0.7}, "vad_neg_threshold must be between 0 and the threshold, not 0.7"),
        ({"speech_pad_ms": -1}, "vad_speech_pad_ms must be 0 or more, not -1"),
    ],
)
def test_thresholds_that_make_no_sense(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VadOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [1, 4])
def test_noise_between_two_parts_is_not_decoded_and_times_are_of_the_recording(
    batch: int, recogniser: Recogniser, sentences: np.ndarray
) -> None:
    noise = (RANDOM.standard_normal(45 * SECOND) * 0.002).astype(np.float32)
    audio = np.concatenate([sentences, noise, sentences])
    encoded = 0

    def encode(mel: np.ndarray) -> np.ndarray:
        nonlocal encoded
        encoded += len(mel)
        return recogniser.encode(mel)

    counting = Recogniser(recogniser.weights, encode, recogniser.decoder)
    with LogMelFeatures([audio], vad=VadOptions()) as features:
        options = DecodeOptions(temperature=0.0)
        if batch == 1:
            segments = list(transcribe_windows(counting, features, options))
        else:
            segments = list(transcribe_batched(counting, features, options, batch_size=batch))
    one = len(sentences) / SECOND
    second = one + 45
    assert encoded == 2
    assert "".join(s.text for s in segments if s.end <= one + 0.4).strip()
    assert all(s.end <= one + 0.4 or s.start >= second - 0.4 for s in segments)
    after = [s for s in segments if s.start >= second - 0.4]
    assert after[0].start == pytest.approx(second, abs=0.2)
    assert after[-1].end == pytest.approx(second + one, abs=0.2)
