"""What decides the result is said: channels, tracks, level, headers that are not true."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from material.audio_files import AS_IT_WAS, likeness, message, sweep, wave, write

from app.audio.reading import SAMPLE_RATE, array_blocks, load_audio, open_audio
from models.languages import language_tag


@pytest.mark.parametrize("right", [-1.0, -0.8])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_channels_that_cancel_give_the_stronger_one(right: float, rate: int) -> None:
    left = sweep(rate)[:, 0] / 32768
    samples = np.stack([left, right * left], axis=1).astype(np.float32)
    with open_audio(io.BytesIO(wave(samples, rate))) as source:
        heard = np.concatenate(list(source.blocks()))
        assert source.findings.notes == [
            "mixing its channels would lose 3 s: the strongest one is taken there"
        ]
    assert np.linalg.norm(heard) == pytest.approx(np.linalg.norm(AS_IT_WAS), rel=0.02)
    with array_blocks(samples, rate) as array:
        np.testing.assert_array_equal(np.concatenate(list(array.blocks())), heard)


def test_sound_in_a_channel_that_is_not_mixed_is_heard() -> None:
    """A recorder's fourth track, where six channels are taken for 5.1, whose fourth is for low frequencies."""
    samples = np.zeros((48000, 6), np.float32)
    samples[:, 3] = AS_IT_WAS
    with open_audio(io.BytesIO(wave(samples, SAMPLE_RATE))) as source:
        np.testing.assert_array_equal(np.concatenate(list(source.blocks())), AS_IT_WAS)
        assert source.findings.notes == [
            "mixing its channels would lose 3 s: the strongest one is taken there"
        ]


def test_channels_with_nothing_in_common_are_mixed() -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (48000, 2)).astype(np.float32)
    with array_blocks(noise) as source:
        heard = np.concatenate(list(source.blocks()))
        assert source.findings.notes == []
    np.testing.assert_allclose(heard, noise.mean(axis=1), atol=1e-6)


def two_tracks(tmp_path: Path, first: int) -> Path:
    plain = write(
        tmp_path / "plain.mka",
        sweep(SAMPLE_RATE) * first,
        SAMPLE_RATE,
        "flac",
        more_tracks=(sweep(SAMPLE_RATE),),
    )
    path = tmp_path / "two.mkv"
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        tracks = [out.add_stream_from_template(stream) for stream in source.streams.audio]
        for track, language in zip(tracks, ("eng", "rus"), strict=True):
            track.metadata["language"] = language
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = tracks[packet.stream_index]
                out.mux(packet)
    return path


@pytest.mark.parametrize("wanted", ["2", "ru", "rus", "ru-RU"])
def test_a_track_by_number_or_language(tmp_path: Path, wanted: str) -> None:
    path = two_tracks(tmp_path, first=0)
    with open_audio(path, track=wanted) as source:
        assert likeness(np.concatenate(list(source.blocks())), AS_IT_WAS)[0] > 0.99
        assert source.findings.notes == []


@pytest.mark.parametrize("wanted", ["0", "3", "fr"])
def test_a_track_that_is_not_there(tmp_path: Path, wanted: str) -> None:
    path = two_tracks(tmp_path, first=0)
    expected = f"two.mkv: audio track {wanted} is not there: it has 1 (eng), 2 (rus)"
    assert message(path, name="two.mkv", track=wanted) == expected


def test_a_silent_default_track_says_that_there_are_others(tmp_path: Path) -> None:
    with open_audio(two_tracks(tmp_path, first=0)) as source:
        assert not any(block.any() for block in source.blocks())
        assert source.findings.notes == ["all silence; audio_track chooses among its others: 2 (rus)"]


@pytest.mark.parametrize("decibels", [-94, -60])
def test_quiet_float_samples_are_not_rounded_away(decibels: int) -> None:
    quiet = (sweep(44100) / 32768 * 10 ** (decibels / 20)).astype(np.float32)
    with open_audio(io.BytesIO(wave(quiet, 44100))) as source:
        heard = np.concatenate(list(source.blocks()))
        assert source.findings.notes[0].startswith("very quiet, its peak is -")
    assert likeness(heard, AS_IT_WAS)[0] > 0.99


def test_samples_on_another_scale_and_clipped_ones_are_told() -> None:
    for samples, note in (
        (sweep(SAMPLE_RATE)[:, 0].astype(np.float32), "samples up to 14399 where full scale is 1.0"),
        (np.clip(AS_IT_WAS * 20, -1, 1), "clipped: "),
    ):
        with array_blocks(samples) as source:
            assert len(list(source.blocks())) == 1
            assert source.findings.notes[0].startswith(note)


def test_a_normal_recording_has_no_notes() -> None:
    with array_blocks(AS_IT_WAS) as source:
        assert len(list(source.blocks())) == 1
        assert source.findings.notes == []


@pytest.mark.parametrize("declared", [32000, 48000 - 2])
def test_a_wave_that_declares_less_than_it_holds_is_read_whole(declared: int) -> None:
    """As one does that passed 4 GB, whose size is what is left over 2^32."""
    samples = np.random.default_rng(1).integers(-9000, 9000, (64000, 1), dtype=np.int16)
    with open_audio(io.BytesIO(wave(samples, SAMPLE_RATE, size=declared))) as source:
        assert sum(map(len, source.blocks())) == 64000
        assert source.findings.notes == [
            f"its header declares {declared / 32000:.1f} s of 4.0 s; all of it is read"
        ]


def test_a_wave_over_4_gb_is_open_at_once_also_where_it_is_silent(tmp_path: Path) -> None:
    size = 4_400_000_000
    with (tmp_path / "big.wav").open("wb") as file:  # nothing of which takes room on the disk
        file.write(wave(np.zeros((1, 2), np.int16), 48000, size=size & 0xFFFFFFFF)[:44])
        file.truncate(44 + size)
    with open_audio(tmp_path / "big.wav") as source:
        assert source.expected_seconds == pytest.approx(size / 192000)
        assert len(next(source.blocks())) == 30 * SAMPLE_RATE


def test_a_wave_with_chunks_after_its_samples_is_as_long_as_it_says() -> None:
    data = wave(sweep(SAMPLE_RATE), SAMPLE_RATE) + b"LIST" + struct.pack("<I", 40000) + bytes(40000)
    with open_audio(io.BytesIO(data)) as source:
        assert sum(map(len, source.blocks())) == 48000
        assert source.findings.notes == []


HELD = {
    "a.aiff": ("pcm_s16be", b"SSND", ">I", 4),
    "24.aiff": ("pcm_s24be", b"SSND", ">I", 4),
    "a.caf": ("pcm_f32le", b"data", ">q", 4),
    "a.w64": ("pcm_s16le", b"data", "<q", 16),
}
"""Files of samples, the name of their chunk, and where after it its length is, packed how."""


def held(tmp_path: Path, name: str, share: float) -> bytes:
    """The bytes of such a file of 3 s whose header says that it has only a share of them."""
    codec, chunk, packing, behind = HELD[name]
    data = bytearray(write(tmp_path / name, sweep(SAMPLE_RATE), SAMPLE_RATE, codec).read_bytes())
    at = data.index(chunk) + behind
    (length,) = struct.unpack_from(packing, data, at)
    struct.pack_into(packing, data, at, int(length * share) // 24 * 24)
    if chunk == b"SSND":
        frames = data.index(b"COMM") + 10
        struct.pack_into(">I", data, frames, int(48000 * share))
    return bytes(data)


@pytest.mark.parametrize("name", HELD)
def test_other_files_of_samples_that_declare_less_than_they_hold_are_read_whole(
    tmp_path: Path, name: str
) -> None:
    data = held(tmp_path, name, 0.5)
    chunk = HELD[name][1]
    for content, notes in (
        (data, ["its header declares 1.5 s of 3.0 s; all of it is read"]),
        (held(tmp_path, name, 0.0), []),
    ):
        with open_audio(io.BytesIO(content)) as source:
            assert source.expected_seconds == pytest.approx(3.0, abs=0.01)
            samples = np.concatenate(list(source.blocks()))
            assert source.findings.notes == notes, chunk
        np.testing.assert_allclose(samples, AS_IT_WAS, atol=1e-6)


@pytest.mark.parametrize("length", [0, 0x7F000008, 0xFFFFFFFF])
def test_an_aiff_that_was_streamed_is_whole(tmp_path: Path, length: int) -> None:
    data = bytearray(write(tmp_path / "a.aiff", sweep(SAMPLE_RATE), SAMPLE_RATE, "pcm_s16be").read_bytes())
    struct.pack_into(">I", data, data.index(b"SSND") + 4, length)
    struct.pack_into(">I", data, data.index(b"COMM") + 10, length // 2)  # frames
    with open_audio(io.BytesIO(data)) as source:
        np.testing.assert_array_equal(np.concatenate(list(source.blocks())), AS_IT_WAS)
        assert source.findings.notes == []


def test_waves_joined_by_their_bytes_are_read_to_the_end() -> None:
    one = wave(np.random.default_rng(2).integers(-9, 9, (48000, 1), dtype=np.int16), SAMPLE_RATE)
    assert len(load_audio(io.BytesIO(one + one))) == pytest.approx(96000, abs=30)


def test_rf64_that_was_streamed_is_read() -> None:
    plain = wave(sweep(SAMPLE_RATE), SAMPLE_RATE, size=0xFFFFFFFF)
    wide = b"ds64" + struct.pack("<IQQQI", 28, 0, 0, 0, 0)
    heard = load_audio(io.BytesIO(b"RF64" + b"\xff" * 4 + b"WAVE" + wide + plain[12:]))
    np.testing.assert_array_equal(heard, AS_IT_WAS)


def test_language_tags_as_users_and_files_write_them() -> None:
    given = ("en-US", "zh_CN.UTF-8", "ger", "nb-NO", "iw", "zh-Hant-HK", "pt-BR", "Klingon")
    assert [language_tag(tag) for tag in given] == ["en", "zh", "de", "no", "he", "zh", "pt", "klingon"]
