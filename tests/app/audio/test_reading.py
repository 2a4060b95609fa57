"""Files of every format and arrays: the sound that went in comes out, in bounded memory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from material.audio_files import (
    AS_IT_WAS,
    FORMATS,
    Unseekable,
    id3_with_cover,
    likeness,
    message,
    picture,
    sweep,
    wave,
    write,
)
from numpy.typing import NDArray
from places import ROOT

from app.audio.reading import SAMPLE_RATE, AudioError, array_blocks, load_audio, open_audio
from datasets.utterance import Utterance


def cases() -> list[Any]:
    rates = {"vorbis": [44100], "libopus": [16000, 48000], "aac": [44100, 16000]}
    found = []
    for name, (codec, options) in FORMATS.items():
        for rate in rates.get(codec, [44100]):
            channels = 2 if codec == "vorbis" or rate == 44100 else 1
            found.append(pytest.param(name, codec, options, rate, channels, id=f"{name}-{rate}-{channels}"))
    for rate in (8000, 16000, 22050, 48000, 96000):
        for channels in (1, 2, 6):
            found.append(pytest.param("a.wav", "pcm_s16le", {}, rate, channels, id=f"wav-{rate}-{channels}"))
    found.append(pytest.param("six.m4a", "aac", {}, 48000, 6, id="m4a-48000-6"))
    return found


@pytest.mark.parametrize(("name", "codec", "options", "rate", "channels"), cases())
def test_every_format_gives_the_sound_that_went_in(
    tmp_path: Path, name: str, codec: str, options: dict[str, Any], rate: int, channels: int
) -> None:
    path = write(tmp_path / name, sweep(rate, channels=channels), rate, codec, **options)
    heard = load_audio(path)
    assert heard.dtype == np.float32
    assert heard.ndim == 1
    assert abs(len(heard) / SAMPLE_RATE - 3.0) < 0.12
    alike, lag = likeness(heard, AS_IT_WAS)
    assert alike > 0.99
    assert abs(lag) < 0.07  # ADTS does not say how much of its first 1024 samples is priming
    if channels < 6:
        assert np.linalg.norm(heard) / np.linalg.norm(AS_IT_WAS) == pytest.approx(1, abs=0.1)
    with open_audio(path) as audio:
        assert audio.name == str(path)


@pytest.mark.parametrize("name", ["s16.wav", "s24.wav", "f32.wav", "a.flac", "a.aiff", "alac.m4a"])
def test_lossless_16_khz_mono_is_exact(tmp_path: Path, name: str) -> None:
    codec, _ = FORMATS[name]
    noise = np.random.default_rng(1).integers(-32768, 32768, (50001, 1), dtype=np.int16)
    heard = load_audio(write(tmp_path / name, noise, SAMPLE_RATE, codec))
    np.testing.assert_array_equal(heard, noise[:, 0] / np.float32(32768))


def test_speech_survives_opus(spoken: Utterance) -> None:
    plain = load_audio(spoken.audio)
    assert len(plain) == 225520
    stream = io.BytesIO()
    with av.open(stream, "w", format="webm") as out:
        track = out.add_stream("libopus", rate=48000, layout="mono")
        with av.open(str(spoken.audio)) as source:
            for frame in source.decode(audio=0):
                out.mux(track.encode(frame))
        out.mux(track.encode(None))
    alike, lag = likeness(load_audio(stream), plain)
    assert alike > 0.95
    assert abs(lag) < 0.05


@pytest.mark.parametrize("name", ["s16.wav", "a.flac", "a.mp3", "a.m4a", "a.webm", "opus.ogg"])
def test_path_stream_and_pipe_read_the_same(tmp_path: Path, name: str) -> None:
    codec, options = FORMATS[name]
    path = write(tmp_path / name, sweep(48000, channels=2), 48000, codec, **options)
    expected = load_audio(str(path))
    data = path.read_bytes()
    np.testing.assert_array_equal(load_audio(io.BytesIO(data)), expected)
    np.testing.assert_array_equal(load_audio(Unseekable(data)), expected)  # type: ignore[arg-type]
    with path.open("rb") as stream:
        np.testing.assert_array_equal(load_audio(stream), expected)
        assert not stream.closed
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as out:
            out.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with os.fdopen(reading, "rb") as pipe:
        np.testing.assert_array_equal(load_audio(pipe, name="-"), expected)
    feeder.join()


@pytest.mark.parametrize(
    ("rate", "codec", "name"), [(16000, "pcm_s16le", "a.wav"), (44100, "flac", "a.flac")]
)
def test_blocks_have_the_asked_length_and_join_to_the_whole(
    tmp_path: Path, rate: int, codec: str, name: str
) -> None:
    path = write(tmp_path / name, sweep(rate, 3.25, 2), rate, codec)
    whole = load_audio(path)
    assert len(whole) == 52000
    with open_audio(path) as audio:
        for seconds in (0.3701, 1.0, 3.25, 30.0):
            size = round(seconds * SAMPLE_RATE)
            blocks = list(audio.blocks(seconds))
            assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
            assert 0 < len(blocks[-1]) <= size
            np.testing.assert_array_equal(np.concatenate(blocks), whole)
        for seconds in (0.0, -1.0, 1e-6, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="holds no samples"):
                audio.blocks(seconds)


def test_blocks_stay_as_they_were_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sweep(SAMPLE_RATE), SAMPLE_RATE, "pcm_s16le")
    with open_audio(path) as audio:
        reading = audio.blocks(1.0)
        first = next(reading)
        copy = first.copy()
        next(reading)
        np.testing.assert_array_equal(first, copy)


@pytest.mark.parametrize("wrap", [io.BytesIO, Unseekable])
def test_memory_is_bounded(wrap: Callable[[bytes], Any]) -> None:
    """Five minutes are 19 MB as float32; a block of ten seconds is 0.6 MB."""
    data = wave(np.zeros((300 * SAMPLE_RATE, 1), np.int16), SAMPLE_RATE)
    stream = wrap(data)
    tracemalloc.start()
    try:
        with open_audio(stream) as audio:
            samples = sum(len(block) for block in audio.blocks(10.0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert samples == 300 * SAMPLE_RATE
    assert peak < 3_000_000


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.aac"])
def test_damage_in_the_middle_is_skipped_quietly(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    codec, options = FORMATS[name]
    noisy = sweep(48000, 6.0) + np.random.default_rng(3).integers(-3000, 3000, (288000, 1), dtype=np.int16)
    data = bytearray(write(tmp_path / name, noisy, 48000, codec, **options).read_bytes())
    whole = load_audio(io.BytesIO(data))
    middle = len(data) // 2
    data[middle : middle + 2000] = np.random.default_rng(4).bytes(2000)
    heard = load_audio(io.BytesIO(data))
    assert 5.0 < len(heard) / SAMPLE_RATE < 6.1
    np.testing.assert_array_equal(heard[: 2 * SAMPLE_RATE], whole[: 2 * SAMPLE_RATE])
    # Past the damage, too, it is the same sound (the resampler's phase may have moved by part of a sample).
    alike, _ = likeness(heard[-2 * SAMPLE_RATE :], whole[-2 * SAMPLE_RATE :])
    assert alike > 0.9
    assert capfd.readouterr().err == ""


def test_tags_and_a_cover_are_not_sound(tmp_path: Path) -> None:
    mp3 = write(tmp_path / "a.mp3", sweep(44100), 44100, "libmp3lame").read_bytes()
    expected = load_audio(io.BytesIO(mp3))
    tagged = mp3 + b"TAG" + b"some title".ljust(125, b"\0")
    np.testing.assert_array_equal(load_audio(io.BytesIO(tagged)), expected)
    covered = id3_with_cover(picture("mjpeg")) + mp3
    with av.open(io.BytesIO(covered)) as container:
        assert container.streams.video
    np.testing.assert_array_equal(load_audio(io.BytesIO(covered)), expected)
    assert message(io.BytesIO(covered[: len(covered) // 2]), name="a.mp3").startswith("a.mp3: ends early")


def test_of_two_tracks_the_one_with_more_channels(tmp_path: Path) -> None:
    other = np.zeros((48000, 1), np.int16)
    path = write(tmp_path / "a.mka", other, 16000, "flac", more_tracks=(sweep(SAMPLE_RATE, channels=2),))
    alike, _ = likeness(load_audio(path), AS_IT_WAS)
    assert alike > 0.99


def test_the_format_may_change_on_the_way(tmp_path: Path) -> None:
    parts = [
        write(tmp_path / f"{rate}.aac", sweep(rate, channels=channels), rate, "aac", container="adts")
        for rate, channels in ((44100, 2), (16000, 1))
    ]
    expected = np.concatenate([load_audio(part) for part in parts])
    heard = load_audio(io.BytesIO(b"".join(part.read_bytes() for part in parts)))
    assert len(heard) == pytest.approx(len(expected), abs=50)
    alike, lag = likeness(heard, expected)
    assert alike > 0.99
    assert abs(lag) < 0.01


@pytest.mark.parametrize("channels", [9, 20])
def test_channels_that_have_no_rule_are_averaged(channels: int) -> None:
    samples = sweep(SAMPLE_RATE, channels=channels)
    samples[:, 0] = 0
    heard = load_audio(io.BytesIO(wave(samples, SAMPLE_RATE)))
    np.testing.assert_allclose(heard, AS_IT_WAS * (channels - 1) / channels, atol=1e-5)


def test_an_array_reads_as_a_file_of_its_samples_does() -> None:
    rng = np.random.default_rng(2)
    for rate, channels in ((44100, 2), (8000, 1), (48000, 6), (16000, 2)):
        for samples in (
            rng.integers(-20000, 20000, (rate * 2 + 17, channels), dtype=np.int16),
            rng.uniform(-0.9, 0.9, (rate * 2 + 17, channels)).astype(np.float32),
        ):
            expected = load_audio(io.BytesIO(wave(samples, rate)))
            for form in (samples, samples.T):
                source = array_blocks(form, rate)
                heard = np.concatenate(list(source.blocks(0.7)))
                np.testing.assert_array_equal(heard, expected)


def test_a_16_khz_mono_array_passes_unchanged() -> None:
    floats = np.random.default_rng(5).uniform(-1, 1, 40000)
    for samples, expected in (
        (floats.astype(np.float32), floats.astype(np.float32)),
        (floats, floats.astype(np.float32)),
        ((floats * 32767).astype(np.int16), (floats * 32767).astype(np.int16) / np.float32(32768)),
        (np.array([-(2**31), 2**30], np.int32), np.array([-1.0, 0.5], np.float32)),
    ):
        with array_blocks(samples) as source:
            blocks = list(source.blocks(1.0))
            np.testing.assert_array_equal(np.concatenate(blocks), expected)
            np.testing.assert_array_equal(np.concatenate(list(source.blocks())), expected)
        assert all(block.dtype == np.float32 for block in blocks)


@pytest.mark.parametrize(
    ("samples", "rate", "reason"),
    [
        (np.zeros(0, np.float32), 16000, "no samples"),
        (np.zeros((0, 2), np.float32), 16000, "no samples"),
        (np.zeros((2, 2, 100), np.float32), 16000, "3 axes"),
        (np.float32(1), 16000, "0 axes"),
        (np.zeros((20, 3), np.float32), 16000, "which axis"),
        (np.zeros((200, 300), np.float32), 16000, "which axis"),
        (np.zeros(100, np.uint8), 16000, "type uint8"),
        (np.zeros(100, np.float32), 0, "rate of 0 Hz"),
    ],
)
def test_arrays_that_are_no_audio(samples: NDArray[Any], rate: int, reason: str) -> None:
    with pytest.raises(AudioError, match=f"^array: .*{reason}"):
        array_blocks(np.asarray(samples), rate)


def test_a_reading_left_early_lets_go_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sweep(SAMPLE_RATE), SAMPLE_RATE, "pcm_s16le")
    before = os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else None
    for _ in range(3):
        with open_audio(path) as audio:
            next(audio.blocks(0.5))
        with pytest.raises(ValueError, match="closed"):
            next(audio.blocks())
    with pytest.raises(AudioError):
        open_audio(__file__)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == len(before)


def test_importing_the_module_loads_neither_numpy_nor_av() -> None:
    code = "import sys, app.audio.reading; print(sorted({'av', 'numpy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
