"""Sound files for the tests, made on the spot with PyAV, and what is said or heard of them."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from app.audio.reading import SAMPLE_RATE, AudioError, load_audio

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def sweep(rate: int, seconds: float = 3.0, channels: int = 1) -> NDArray[np.int16]:
    """A tone rising from 200 to 3200 Hz, swelling twice a second, in each channel: int16 (n, channels)."""
    t = np.arange(round(rate * seconds)) / rate
    tone = np.sin(2 * np.pi * (200 * t + 3000 / (2 * seconds) * t**2)) * (0.5 + 0.4 * np.sin(4 * np.pi * t))
    return np.repeat(np.round(tone * 16000).astype(np.int16)[:, None], channels, axis=1)


def write(
    path: Path,
    samples: NDArray[Any],
    rate: int,
    codec: str,
    *,
    container: str | None = None,
    options: Mapping[str, str] | None = None,
    muxer: Mapping[str, str] | None = None,
    video_seconds: float = 0.0,
    more_tracks: tuple[NDArray[Any], ...] = (),
) -> Path:
    """Encode int16 or float32 samples (n, channels), beside a black video of `video_seconds`."""
    with av.open(str(path), "w", format=container, options=dict(muxer or {})) as out:
        video = None
        if video_seconds:
            video = out.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        tracks = []
        for data in (samples, *more_tracks):
            stream = out.add_stream(codec, rate=rate, options=dict(options or {}))
            stream.layout = LAYOUTS[data.shape[1]]
            tracks.append((stream, data))
        if video is not None:
            for _ in range(round(video_seconds * 10)):
                out.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))))
            out.mux(video.encode(None))
        for stream, data in tracks:
            form = "flt" if data.dtype == np.float32 else "s16"
            for start in range(0, len(data), rate):
                packed = np.ascontiguousarray(data[start : start + rate]).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(packed, form, LAYOUTS[data.shape[1]])
                frame.sample_rate, frame.pts = rate, start
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return path


def wave(samples: NDArray[Any], rate: int, *, size: int | None = None) -> bytes:
    """A plain WAVE file of int16 or float32 samples (n, channels); `size` is what its header says of them."""
    data = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    channels, width = samples.shape[1], samples.itemsize
    kind = 3 if samples.dtype.kind == "f" else 1
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * channels * width, channels * width, 8 * width)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks) & 0xFFFFFFFF) + b"WAVE" + chunks


def picture(codec: str) -> bytes:
    """A small picture: `codec` is mjpeg or png."""
    context = av.CodecContext.create(codec, "w")
    context.width, context.height = 64, 48
    context.pix_fmt = "yuvj420p" if codec == "mjpeg" else "rgb24"
    context.framerate = 1
    frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, np.uint8)).reformat(format=context.pix_fmt)
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def id3_with_cover(jpeg: bytes) -> bytes:
    """An ID3v2.3 tag that holds a front cover."""
    body = b"\0image/jpeg\0\x03\0" + jpeg
    frame = b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + frame


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


AS_IT_WAS = sweep(SAMPLE_RATE)[:, 0] / np.float32(32768)
VORBIS = {"strict": "experimental"}
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
