from __future__ import annotations

import io
import os
import pickle
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
from material.audio_files import id3_with_cover, picture, sweep, wave, write
from numpy.typing import NDArray
from places import ROOT

from app.audio.reading import SAMPLE_RATE, AudioError, array_blocks, load_audio, open_audio
from datasets.utterance import Utterance

AS_IT_WAS = sweep(SAMPLE_RATE)[:, 0] / np.float32(32768)
VORBIS = {"strict": "experimental"}


def likeness(heard: NDArray[Any], meant: NDArray[Any]) -> tuple[float, float]:
    """The highest normalised cross-correlation, to an eighth of a sample, and the lag of `heard` in s."""
    n = 1 << (len(heard) + len(meant)).bit_length()
    product = np.fft.irfft(np.fft.rfft(heard, n) * np.conj(np.fft.rfft(meant, n)), 8 * n) * 8
    best = int(product.argmax())
    lag = best if best < 4 * n else best - 8 * n
    return float(product[best] / np.linalg.norm(heard) / np.linalg.norm(meant)), lag / 8 / SAMPLE_RATE


def message(source: Any, **options: Any) -> str:
    with pytest.raises(AudioError) as caught:
        load_audio(source, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, Exception)
    return str(caught.value)


def halve(path: Path) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


class Unseekable(io.RawIOBase):
    """A stream like a pipe's, its bytes made on demand."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = min(len(buffer), len(self._rest), 5000)
        buffer[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n


FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "s16.wav": ("pcm_s16le", {}),
    "s24.wav": ("pcm_s24le", {}),
    "f32.wav": ("pcm_f32le", {}),
    "u8.wav": ("pcm_u8", {}),
    "mulaw.wav": ("pcm_mulaw", {}),
    "a.flac": ("flac", {}),
    "a.aiff": ("pcm_s16be", {}),
    "a.mp3": ("libmp3lame", {}),
    "a.m4a": ("aac", {}),
    "alac.m4a": ("alac", {}),
    "a.aac": ("aac", {"container": "adts"}),
    "vorbis.ogg": ("vorbis", {"options": VORBIS}),
    "opus.ogg": ("libopus", {}),
    "a.webm": ("libopus", {}),
    "video.mp4": ("aac", {"video_seconds": 3.0}),
    "video.mkv": ("aac", {"video_seconds": 3.0}),
}


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
        assert audio.duration == pytest.approx(3.0, abs=0.25)


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


def test_what_is_missing_or_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert message(tmp_path / "talk.wav") == f"{tmp_path}/talk.wav: no such file"
    assert message("nowhere.wav", name="call it so") == "call it so: no such file"
    assert message("a\0b.wav") == "a\\x00b.wav: no such file"
    assert message("two\nlines\udcff.wav") == "two\\nlines\\udcff.wav: no such file"
    assert message(tmp_path) == f"{tmp_path}: is a directory"
    (tmp_path / "a.wav").touch()
    assert message(tmp_path / "a.wav") == f"{tmp_path}/a.wav: empty file"
    assert message(io.BytesIO(), name="-") == "-: empty input"
    assert message(Unseekable(b""), name="-") == "-: empty input"

    def refuse(*_: Any, **__: Any) -> None:  # file modes do not stop root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert message("a.flac") == "a.flac: permission denied"


def not_audio() -> dict[str, bytes]:
    random = np.random.default_rng(7)
    return {
        "x.txt": b"The quick brown fox.\n" * 200,
        "photo.jpg": picture("mjpeg"),
        "photo.png": picture("png"),
        "words.srt": b"1\n00:00:00,000 --> 00:00:02,000\nHello\n\n",
        "cut.wav": wave(sweep(SAMPLE_RATE), SAMPLE_RATE)[:20],
        **{f"random{n}": random.bytes(n) for n in (1, 100, 5000, 300_000)},
    }


@pytest.mark.parametrize(("name", "data"), not_audio().items(), ids=list(not_audio()))
def test_what_is_not_audio(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert message(path, name=name) == f"{name}: not audio that FFmpeg's libraries can read"


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile {}\n"),
    ],
)
def test_a_playlist_opens_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, lines: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "other.ts", sweep(SAMPLE_RATE), SAMPLE_RATE, "aac")
    Path(name).write_text(lines.format("other.ts"))
    with av.open(name) as container:  # FFmpeg itself would
        assert container.streams.audio
    assert message(name) == f"{name}: not audio that FFmpeg's libraries can read"


@pytest.mark.parametrize("suffix", ["mp3", "aac", "ac3", "flac", "dts"])
def test_noise_under_a_name_that_ffmpeg_goes_by(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"noise.{suffix}"
    path.write_bytes(np.random.default_rng(8).bytes(300_000))
    assert message(path, name="noise") in (
        "noise: not audio that FFmpeg's libraries can read",
        "noise: nothing in it could be decoded: damaged, or not audio",
        "noise: no samples",
    )


def test_files_without_sound(tmp_path: Path) -> None:
    nothing = np.zeros((0, 1), np.int16)
    assert message(io.BytesIO(wave(nothing, 44100)), name="a.wav") == "a.wav: no samples"
    declared = io.BytesIO(wave(nothing, 44100, size=88200))
    lost = "nothing in it could be decoded: damaged, or not audio"
    assert message(declared, name="a.wav", allow_truncated=True) == f"a.wav: {lost}"
    silent = tmp_path / "v.mp4"
    with av.open(str(silent), "w") as out:
        video = out.add_stream("mpeg4", rate=10)
        video.width, video.height = 64, 48
        out.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))))
        out.mux(video.encode(None))
    assert message(silent, name="v.mp4") == "v.mp4: no audio track"
    flac = bytearray(write(tmp_path / "a.flac", sweep(SAMPLE_RATE), SAMPLE_RATE, "flac").read_bytes())
    flac[8192:] = bytes(len(flac) - 8192)  # the header alone is left: its padding is 8 KiB
    assert message(io.BytesIO(flac), name="a.flac") == f"a.flac: {lost}"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_that_are_not_numbers(bad: float, channels: int) -> None:
    samples = (sweep(44100, channels=channels) / 32768).astype(np.float32)
    assert len(load_audio(io.BytesIO(wave(samples, 44100)))) == 48000
    samples[55125, -1] = bad
    expected = "a.wav: samples that are not numbers (NaN or infinity) at 1.25 s"
    assert message(io.BytesIO(wave(samples, 44100)), name="a.wav") == expected
    with pytest.raises(AudioError, match=r"^mine: samples that are not numbers .* at 1\.25 s$"):
        array_blocks(samples, 44100, name="mine")


FASTSTART = {"muxer": {"movflags": "faststart"}}
DECLARED: dict[str, tuple[str, dict[str, Any]]] = {
    "s16.wav": ("pcm_s16le", {}),
    "f32.wav": ("pcm_f32le", {}),
    "adpcm.wav": ("adpcm_ms", {}),
    "rf64.wav": ("pcm_s16le", {"muxer": {"rf64": "always"}}),
    "a.flac": ("flac", {}),
    "a.aiff": ("pcm_s16be", {}),
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
    there = []
    with open_audio(path, name=name) as audio, pytest.raises(AudioError) as caught:  # noqa: PT012
        assert audio.duration == pytest.approx(6.0, abs=0.1)
        for block in audio.blocks(0.5):
            there.append(block)
    seconds = sum(map(len, there)) / SAMPLE_RATE
    assert 1.5 < seconds < 4.5
    assert str(caught.value) == (
        f"{name}: ends early: {seconds:.1f} s of 6.0 s could be decoded "
        "(--allow-truncated transcribes what is there)"
    )
    with open_audio(path, allow_truncated=True) as audio:
        assert not audio.truncated
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated
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
            assert source.duration == pytest.approx(2 + 17 / rate)


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
        assert not source.truncated


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


class Interrupted(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise KeyboardInterrupt


class Broken(Unseekable):
    def readinto(self, buffer: Any) -> int:
        raise OSError(5, "Input/output error")


def test_interrupts_pass_and_read_errors_are_told() -> None:
    data = wave(sweep(SAMPLE_RATE), SAMPLE_RATE)
    with pytest.raises(KeyboardInterrupt):
        load_audio(Interrupted(data))
    assert message(Broken(data), name="-") == "-: can't be read: Input/output error"


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


def test_errors_can_be_sent_between_processes() -> None:
    error = pickle.loads(pickle.dumps(AudioError("a.wav", "no samples")))
    assert (error.name, str(error)) == ("a.wav", "a.wav: no samples")


def test_importing_the_module_loads_neither_numpy_nor_av() -> None:
    code = "import sys, app.audio.reading; print(sorted({'av', 'numpy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
