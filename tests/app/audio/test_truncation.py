"""Files that end before the length that they declare, and those that only look so."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material.audio_files import AS_IT_WAS, VORBIS, halve, message, sweep, wave, write

from app.audio.reading import SAMPLE_RATE, AudioError, load_audio, open_audio

FASTSTART = {"muxer": {"movflags": "faststart"}}

DECLARED: dict[str, tuple[str, dict[str, Any]]] = {
    "s16.wav": ("pcm_s16le", {}),
    "f32.wav": ("pcm_f32le", {}),
    "adpcm.wav": ("adpcm_ms", {}),
    "mp3.wav": ("libmp3lame", {}),
    "g722.wav": ("g722", {}),
    "a.wv": ("wavpack", {}),
    "rf64.wav": ("pcm_s16le", {"muxer": {"rf64": "always"}}),
    "a.flac": ("flac", {}),
    "a.aiff": ("pcm_s16be", {}),
    "a.caf": ("pcm_s24le", {}),
    "a.w64": ("pcm_s16le", {}),
    "pcm.avi": ("pcm_s16le", {"video_seconds": 6.0}),
    "mp3.avi": ("libmp3lame", {"video_seconds": 6.0}),
    "a.au": ("pcm_s16be", {}),
    "a.mp3": ("libmp3lame", {}),
    "a.m4a": ("aac", FASTSTART),
    "video.mp4": ("aac", {**FASTSTART, "video_seconds": 6.0}),
    "a.webm": ("libopus", {}),
    "a.mka": ("flac", {}),
}


@pytest.mark.parametrize("name", DECLARED)
def test_a_missing_end_is_told_after_what_is_there(tmp_path: Path, name: str) -> None:
    codec, options = DECLARED[name]
    path = write(tmp_path / name, sweep(48000, 6.0), 48000, codec, **options)
    whole = load_audio(path)  # and it is no false alarm
    halve(path)
    there: list[Any] = []
    with open_audio(path, name=name) as audio, pytest.raises(AudioError) as caught:
        there.extend(audio.blocks(0.5))
    seconds = sum(map(len, there)) / SAMPLE_RATE
    assert 1.5 < seconds < 4.5
    assert str(caught.value) == (f"{name}: ends early: {seconds:.1f} s of 6.0 s could be decoded")
    assert caught.value.remedy == "--allow-truncated transcribes what is there"
    heard = load_audio(path, allow_truncated=True)
    np.testing.assert_array_equal(heard, np.concatenate(there))
    same = len(heard) - 2000  # the resampler's and the codec's last window lack what followed
    np.testing.assert_allclose(heard[:same], whole[:same], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.ogg", "vorbis", {"options": VORBIS}),
        ("a.opus", "libopus", {}),
        ("a.aac", "aac", {"container": "adts"}),
        ("cbr.mp3", "libmp3lame", {"muxer": {"write_xing": "0"}}),
        ("vbr.mp3", "libmp3lame", {"muxer": {"write_xing": "0"}, "options": {"flags": "+qscale"}}),
    ],
)
def test_where_no_length_is_declared_a_cut_file_is_just_shorter(
    tmp_path: Path, name: str, codec: str, options: dict[str, Any]
) -> None:
    samples = sweep(48000, 6.0, 2)
    samples[: 48000 * 2] = 0  # a quiet start, which leads an estimate from a variable bit rate astray
    path = write(tmp_path / name, samples, 48000, codec, **options)
    assert len(load_audio(path)) / SAMPLE_RATE == pytest.approx(6.0, abs=0.12)
    assert 1.0 < len(load_audio(halve(path))) / SAMPLE_RATE < 5.0


def test_an_m4a_without_its_index(tmp_path: Path) -> None:
    path = halve(write(tmp_path / "a.m4a", sweep(44100), 44100, "aac"))
    assert message(path, name="a.m4a") == "a.m4a: damaged or cut short: its index (moov) can't be read"


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_a_wave_that_was_streamed_is_whole(size: int) -> None:
    samples = sweep(SAMPLE_RATE)
    heard = load_audio(io.BytesIO(wave(samples, SAMPLE_RATE, size=size)))
    np.testing.assert_array_equal(heard, AS_IT_WAS)


def test_a_wave_may_lack_a_moment_but_not_a_second() -> None:
    samples = sweep(SAMPLE_RATE)
    size = len(samples) * 2
    assert len(load_audio(io.BytesIO(wave(samples, SAMPLE_RATE, size=size + SAMPLE_RATE)))) == 48000
    lacking = io.BytesIO(wave(samples, SAMPLE_RATE, size=size + 2 * SAMPLE_RATE))
    assert message(lacking, name="a.wav").startswith("a.wav: ends early: 3.0 s of 4.0 s")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_sound_that_ends_before_the_picture_is_whole(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, sweep(48000), 48000, "aac", video_seconds=8.0)
    assert len(load_audio(path)) / SAMPLE_RATE == pytest.approx(3.0, abs=0.12)
