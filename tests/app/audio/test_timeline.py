"""The time of what is heard: the container's, whatever was left out, lost or damaged on the way."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import pytest
from material.audio_files import VORBIS, likeness, sweep, write
from numpy.typing import NDArray

from app.audio.reading import SAMPLE_RATE, AudioError, AudioSource, open_audio

RATE = 48000
SOUND = sweep(RATE, 4.0)
PLAIN = sweep(SAMPLE_RATE, 4.0)[:, 0] / np.float32(32768)


def placed(path: Path, codec: str, starts: list[float], video_seconds: float = 0.0) -> Path:
    """A file in which SOUND begins at each of `starts`, in seconds of its clock."""
    part = write(path.with_name("part.mkv"), SOUND, RATE, codec, video_seconds=video_seconds)
    with av.open(str(path), "w") as out:
        with av.open(str(part)) as source:
            streams = [
                out.add_stream_from_template(s) for s in (*source.streams.video, *source.streams.audio)
            ]
        packets = []
        for number, start in enumerate(starts):
            with av.open(str(part)) as source:
                for packet in source.demux():
                    video = packet.stream.type == "video"
                    if packet.dts is None or (video and number):
                        continue
                    later = 0 if video else round(start / packet.time_base)
                    packet.pts, packet.dts = packet.pts + later, packet.dts + later
                    packet.stream = streams[0 if video else -1]
                    packets.append((packet.dts * packet.time_base, packet))
        for _, packet in sorted(packets, key=lambda timed: timed[0]):
            out.mux(packet)
    return path


def heard(source: AudioSource) -> NDArray[np.float32]:
    return np.concatenate(list(source.blocks()))


def begins(samples: NDArray[np.float32], start: float) -> bool:
    """Whether the sound begins there, to 0.08 s (AAC's and Opus's first samples, the multiplexers' rounding)."""
    first = max(0, round((start - 0.3) * SAMPLE_RATE))
    alike, lag = likeness(samples[first : first + round(4.6 * SAMPLE_RATE)], PLAIN)
    return alike > 0.9 and abs(first / SAMPLE_RATE + lag - start) < 0.08


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.ts"])
def test_sound_that_begins_after_the_picture(tmp_path: Path, name: str) -> None:
    with open_audio(placed(tmp_path / name, "aac", [5.0], video_seconds=9.0)) as source:
        assert begins(heard(source), 5.0)
        assert source.findings.notes == []


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.ogg", "a.ts", "a.flv"])
def test_a_hole_in_a_track_is_silence(tmp_path: Path, name: str) -> None:
    codec = "libopus" if name in ("a.webm", "a.ogg") else "aac"
    with open_audio(placed(tmp_path / name, codec, [0.0, 14.0])) as source:
        samples = heard(source)
        assert begins(samples, 0.0)
        assert begins(samples, 14.0)
        assert not np.abs(samples[5 * SAMPLE_RATE : 13 * SAMPLE_RATE]).max()
        assert source.findings.undecoded == 0


def test_a_clock_may_begin_anywhere_wobble_and_be_set_back(tmp_path: Path) -> None:
    with open_audio(placed(tmp_path / "a.ts", "aac", [1000.0])) as source:  # a broadcast's
        assert begins(heard(source), 0.0)
    with open_audio(placed(tmp_path / "b.ts", "aac", [1.4, 5.45, 9.42])) as source:
        assert len(heard(source)) / SAMPLE_RATE == pytest.approx(12.1, abs=0.1)
    joined = b"".join(
        placed(tmp_path / name, "aac", [start]).read_bytes()
        for name, start in (("c.ts", 500.0), ("d.ts", 3.0))
    )
    with open_audio(io.BytesIO(joined)) as source:
        samples = heard(source)
        assert begins(samples, 0.0)
        assert begins(samples, 4.05)


DAMAGED: dict[
    str, tuple[str, dict[str, Any], bool]
] = {  # and whether bytes that are gone leave a trace of their time
    "xing.mp3": ("libmp3lame", {}, True),
    "cbr.mp3": ("libmp3lame", {"muxer": {"write_xing": "0"}}, False),
    "a.aac": ("aac", {"container": "adts"}, False),
    "a.ac3": ("ac3", {}, False),
    "a.flac": ("flac", {}, True),
    "a.ogg": ("libopus", {}, True),
    "vorbis.ogg": ("vorbis", {"options": VORBIS}, True),
    "a.webm": ("libopus", {}, True),
    "a.ts": ("aac", {}, True),
    "a.flv": ("aac", {}, True),
    "mp3.flv": ("libmp3lame", {}, True),
}


@pytest.fixture(scope="module")
def noisy() -> Callable[[str], bytes]:
    """By a file's name, 16 s of noise and 4 of sound as its codec has them."""
    samples = np.random.default_rng(3).integers(-8000, 8000, (RATE * 20, 1), dtype=np.int16)
    samples[-RATE * 4 :] = SOUND

    @cache
    def encoded(name: str) -> bytes:
        codec, options, _ = DAMAGED[name]
        channels = 2 if codec == "vorbis" else 1
        with TemporaryDirectory() as folder:
            return write(
                Path(folder) / name, np.repeat(samples, channels, axis=1), RATE, codec, **options
            ).read_bytes()

    return encoded


@pytest.mark.parametrize(
    ("name", "how"),
    [
        (name, how)
        for name in DAMAGED
        for how in ("zeros", "noise", "cut")
        if (name, how) != ("mp3.flv", "cut")  # whose hole is like any other
    ],
)
def test_damage_in_the_middle_is_silence_and_is_told(
    noisy: Callable[[str], bytes], name: str, how: str
) -> None:
    data, traced = noisy(name), DAMAGED[name][2]
    first, last = int(len(data) * 0.3), int(len(data) * 0.45)
    noise = np.random.default_rng(4).bytes(last - first)
    middle = {"zeros": bytes(last - first), "noise": noise, "cut": b""}[how]
    with open_audio(io.BytesIO(data[:first] + middle + data[last:])) as source:
        samples = heard(source)
        notes = source.findings.notes
    assert len(notes) == 1
    if how == "cut" and not traced:
        assert notes[0].startswith("damaged at 0:0")
        return
    assert " s could not be decoded at 0:0" in notes[0]
    assert 2.0 < source.findings.undecoded < 8.0
    assert len(samples) / SAMPLE_RATE == pytest.approx(20.0, abs=0.5)
    assert likeness(samples[-5 * SAMPLE_RATE :], PLAIN)[0] > 0.9
    alike, lag = likeness(samples[15 * SAMPLE_RATE :], PLAIN)
    assert alike > 0.9
    assert lag == pytest.approx(1.0, abs=0.5 if name in ("a.aac", "a.ac3", "cbr.mp3", "xing.mp3") else 0.08)


@pytest.mark.parametrize(("name", "codec"), [("a.wv", "wavpack"), ("a.voc", "pcm_s16le"), ("a.sbc", "sbc")])
def test_where_nothing_can_be_read_after_damage_is_an_error(tmp_path: Path, name: str, codec: str) -> None:
    noisy = np.random.default_rng(3).integers(-8000, 8000, (RATE * 20, 1), dtype=np.int16)
    data = write(tmp_path / name, noisy, RATE, codec, options={"b": "128000"}).read_bytes()
    half = len(data) // 2
    (tmp_path / name).write_bytes(data[:half] + bytes(half // 4) + data[half + half // 4 :])
    with (
        open_audio(tmp_path / name, name=name) as source,
        pytest.raises(AudioError, match=rf"^{name}: damaged: nothing could be read after \d+\.\d s$"),
    ):
        heard(source)


def test_an_end_that_is_missing_is_not_put_where_the_file_is_damaged(tmp_path: Path) -> None:
    noisy = np.random.default_rng(3).integers(-8000, 8000, (RATE * 20, 1), dtype=np.int16)
    data = write(tmp_path / "a.mp3", noisy, RATE, "libmp3lame").read_bytes()
    first, last, end = (int(len(data) * share) for share in (0.2, 0.3, 0.7))
    with open_audio(io.BytesIO(data[:first] + bytes(last - first) + data[last:end]), name="a.mp3") as source:
        with pytest.raises(AudioError, match=r"^a\.mp3: ends early: 1\d\.\d s of 20\.0 s"):
            heard(source)
        assert source.findings.undecoded == pytest.approx(2.0, abs=0.2)
