"""What is no audio, in one line that names it."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from material.audio_files import Unseekable, message, picture, sweep, wave, write

from app.audio.reading import SAMPLE_RATE, AudioError, array_blocks, load_audio


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


def test_errors_can_be_sent_between_processes() -> None:
    error = pickle.loads(pickle.dumps(AudioError("a.wav", "no samples", "record some")))
    assert (error.name, str(error), error.remedy) == ("a.wav", "a.wav: no samples", "record some")
