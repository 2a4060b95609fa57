import resource

import librosa
import numpy as np
import pytest
from whisper.audio import N_SAMPLES, log_mel_spectrogram, pad_or_trim

import models.features
from models.features import LogMelFeatures, quiet_pieces
from models.openai import asset


def _audio(n_samples: int) -> np.ndarray:
    rng = np.random.default_rng(n_samples)
    t = np.arange(n_samples) / 16000
    tone = np.sin(2 * np.pi * (200 + 90 * t) * t) * np.sin(2 * np.pi * 0.3 * t) ** 2
    return (0.3 * tone + 0.01 * rng.standard_normal(n_samples)).astype(np.float32)


def _blocks(audio: np.ndarray, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    return np.split(audio, np.sort(rng.integers(0, len(audio) + 1, count - 1)))


ROUNDING = 1e-4
"""Of whisper's own float32 transform, which these frames do not share: measured up to 5e-5, in bins with no energy."""


def test_frames_are_nearer_to_the_exact_ones_than_whispers() -> None:
    audio = _audio(163_333)
    padded = np.pad(np.pad(audio.astype(np.float64), (0, N_SAMPLES)), 200, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi / 400 * np.arange(400))
    spectrum = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, 400)[::160][:3000] * hann)
    mel = np.log10(
        np.maximum(abs(spectrum) ** 2 @ librosa.filters.mel(sr=16000, n_fft=400, n_mels=80).T, 1e-10)
    )
    exact = (np.maximum(mel, mel.max() - 8).T + 4) / 4
    theirs = log_mel_spectrogram(audio, 80, padding=N_SAMPLES)[:, :3000].numpy()
    with LogMelFeatures([audio]) as features:
        assert abs(features.leading_window() - exact).max() < min(1e-5, abs(theirs - exact).max())


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("n_samples", [0, 1, 159, 160, 200, 201, 399, 401, 16000, 163_333])
def test_frames_are_those_of_whisper(n_samples: int, n_mels: int) -> None:
    audio = _audio(n_samples)
    expected = log_mel_spectrogram(audio, n_mels, padding=N_SAMPLES).numpy()
    with LogMelFeatures(_blocks(audio, 9), n_mels) as features:
        assert features.content_frames == expected.shape[1] - 3000 == n_samples // 160
        np.testing.assert_allclose(features.leading_window(), expected[:, :3000], rtol=0, atol=ROUNDING)
        start, size = features.content_frames // 3, features.content_frames // 2
        window = features.window(start, size, pad_to=3000)
        np.testing.assert_allclose(
            window, pad_or_trim(expected[:, start : start + size], 3000), rtol=0, atol=ROUNDING
        )
        past = features.window(start, features.content_frames + 10)
        assert past.shape == (n_mels, features.content_frames + 10)
        assert not past[:, features.content_frames - start :].any()


def test_audio_longer_than_a_window_and_than_the_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.features, "_SPOOL_BYTES", 100_000)
    audio = _audio(16000 * 65 + 7)
    expected = log_mel_spectrogram(audio, 80, padding=N_SAMPLES).numpy()
    whole, pieces = LogMelFeatures([audio]), LogMelFeatures(_blocks(audio, 300))
    for features in (whole, pieces):
        np.testing.assert_allclose(features.leading_window(), expected[:, :3000], rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(features.window(3500, 3000), expected[:, 3500:6500], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("decibels", [-94, -60, 60, 90])
def test_a_level_off_the_scale_is_moved_onto_it(decibels: int) -> None:
    audio = _audio(48000)
    moved, usual = (
        LogMelFeatures([audio * np.float32(10 ** (d / 20))]).window(0, 300) for d in (decibels, 0)
    )
    assert moved.max() == pytest.approx((1.0 + 4.0) / 4.0)
    np.testing.assert_allclose(moved - moved.max(), usual - usual.max(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_are_those_of_librosa(n_mels: int) -> None:
    expected = librosa.filters.mel(sr=16000, n_fft=400, n_mels=n_mels)
    with np.load(asset("mel_filters.npz")) as filters:
        np.testing.assert_array_equal(filters[f"mel_{n_mels}"], expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite_is_refused(value: float) -> None:
    audio = _audio(32000)
    audio[20000] = value
    with pytest.raises(ValueError, match="not finite"):
        LogMelFeatures([audio])


def test_stereo_blocks_and_other_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="one-dimensional"):
        LogMelFeatures([np.zeros((100, 2), np.float32)])
    with pytest.raises(ValueError, match="80 or 128"):
        LogMelFeatures([], 40)


def test_pieces_are_cut_in_the_pauses() -> None:
    levels = np.random.default_rng(1).uniform(-1, 0, 11_000).astype(np.float32)
    pauses = [2500, 4700, 7400, 10_050]
    for pause in pauses:
        levels[pause - 25 : pause + 25] = -6
    pieces = quiet_pieces(levels, 0, 11_000)
    cuts = [last for _, last in pieces[:-1]]
    assert all(abs(cut - pause) <= 15 for cut, pause in zip(cuts, pauses, strict=True))


@pytest.mark.parametrize(("start", "end"), [(0, 12_345), (700, 3_700), (700, 3_701), (5, 6), (9, 9)])
def test_pieces_cover_a_clip_exactly_once(start: int, end: int) -> None:
    levels = np.random.default_rng(2).uniform(-1, 0, 12_345).astype(np.float32)
    pieces = quiet_pieces(levels, start, end)
    frames = [frame for first, last in pieces for frame in range(first, last)]
    assert frames == list(range(start, end))
    assert all(last - first <= 3000 for first, last in pieces)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_audio() -> None:
    def peak(minutes: int) -> int:
        block = _audio(16000 * 60)
        with LogMelFeatures(block for _ in range(minutes)) as features:
            for start in range(0, features.content_frames, 3000):
                features.window(start, 3000)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    # 150 minutes are 290 MB of features, 100 MB of them more than what 100 minutes take.
    assert peak(150) - peak(100) < 30_000
    assert peak(200) - peak(150) < 30_000
