"""Media files through FFmpeg's libraries: which are opened, the track, its frames, and the length declared.

The declared length tells where a file's end is missing: the frames that can be decoded come to less.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:  # both are imported where they are used: a command's --help must not wait for them
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# Demuxers of playlists (they open other files and addresses), devices, pictures and plain text.
_NOT_MEDIA = re.compile(
    "alsa|concat|dash|fbdev|ffmetadata|hls|image2|image2pipe|imf|kmsgrab|lavfi|oss|rtp|rtsp|sap|sdp|tty|"
    "video4linux2,v4l2|webm_dash_manifest|x11grab|.*_pipe"
)
_NOT_AUDIO = "not audio that FFmpeg's libraries can read"


class AudioError(Exception):
    """Input that can't be transcribed. `str()` is one line, `name: reason`; `name` is its user's own."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        # A file's name may hold line breaks, or bytes that are not text.
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in self.name)
        return f"{shown}: {self.reason}"


def not_numbers(name: str, seconds: float) -> AudioError:
    """The error for NaN or infinity, `seconds` into the audio."""
    return AudioError(name, f"samples that are not numbers (NaN or infinity) at {seconds:.2f} s")


class Progress:
    """One reading's account: packets met, seconds decoded, seconds that the file's own clock advanced."""

    packets = 0
    decoded = 0.0
    reached = 0.0


def open_container(stream: BinaryIO, name: str) -> InputContainer:
    """A demuxer at the start of a stream that can seek.

    Raises:
        AudioError: it is not audio, or damaged.
        OSError: it can't be read.
    """
    import av

    stream.seek(0)
    demuxers = ",".join(sorted(f for f in av.formats_available if not _NOT_MEDIA.fullmatch(f)))
    try:
        return av.open(
            stream, "r", container_options={"format_whitelist": demuxers}, metadata_errors="replace"
        )
    except av.error.FFmpegError as error:
        stream.seek(4)
        cut = stream.read(4) == b"ftyp"
        reason = "damaged or cut short: its index (moov) can't be read" if cut else _NOT_AUDIO
        raise AudioError(name, reason) from error


def audio_track(container: InputContainer, name: str) -> AudioStream:
    """The default audio track, else the one with most channels.

    Raises:
        AudioError: there is none.
    """
    from av.stream import Disposition

    if not container.streams.audio:
        video = any(not s.disposition & Disposition.attached_pic for s in container.streams.video)
        raise AudioError(name, "no audio track" if video else _NOT_AUDIO)
    decodable = [s for s in container.streams.audio if s.codec_context is not None]
    if not decodable:
        raise AudioError(name, "its audio is in a format that FFmpeg's libraries can't decode")
    return max(decodable, key=lambda s: (bool(s.disposition & Disposition.default), s.channels))


def decoded_frames(container: InputContainer, name: str, progress: Progress) -> Iterator[AudioFrame]:
    """Decode packet by packet, keep the account, and refuse samples that are not numbers."""
    from av.error import FFmpegError

    track = audio_track(container, name)
    # Matroska declares the length of the whole file, on its clock; others a track's, from its own start.
    whole = "matroska" in container.format.name
    start = 0.0 if whole or track.start_time is None else float(track.start_time * (track.time_base or 0))
    packets: Iterator[Any] = container.demux() if whole else container.demux(track)
    end = start
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:  # FFmpeg's command, too, makes do with what came before
            return
        if packet is None:
            return
        if packet.stream_index != track.index:
            if packet.pts is not None:
                passed = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                progress.reached = max(progress.reached, passed)
            continue
        progress.packets += packet.size > 0
        try:
            frames = packet.decode()
        except FFmpegError:
            continue
        for frame in frames:
            _check_finite(frame, name, progress.decoded)
            length = frame.samples / frame.sample_rate
            end = (end if frame.time is None else frame.time) + length
            progress.reached = max(progress.reached, end - start)
            progress.decoded += length
            yield frame


def _check_finite(frame: AudioFrame, name: str, seconds: float) -> None:
    """Raise where a float frame, `seconds` into the audio, holds NaN or infinity: 16 bits would hide it."""
    import numpy as np

    if not frame.format.name.startswith(("flt", "dbl")):
        return
    finite = np.isfinite(frame.to_ndarray())
    if not finite.all():
        finite = finite.T if frame.format.is_planar else finite.reshape(frame.samples, -1)
        raise not_numbers(name, seconds + int(finite.all(axis=1).argmin()) / frame.sample_rate)


def declared_seconds(container: InputContainer, track: AudioStream, stream: BinaryIO) -> float | None:
    """The length that the file itself declares; FFmpeg's figure may be a guess from the file's size."""
    form = container.format.name
    own = float(track.duration * track.time_base) if track.duration and track.time_base else None
    whole = container.duration / 1e6 if container.duration else None
    if form == "wav":
        return _cut_wave_seconds(stream)
    if form in ("flac", "aiff", "au") or (form == "mp3" and _counts_frames(stream)):
        return own
    if "matroska" in form:
        return whole
    if "mp4" in form.split(","):
        return min(own, whole) if own and whole else own  # an edit list may leave out some of the track
    return None


def _cut_wave_seconds(stream: BinaryIO) -> float | None:
    """Seconds that a WAVE file's header declares, where the file holds less: FFmpeg would hide that.

    A writer to a pipe can't know the size and puts 0, or something from about 2^31 up to 2^32 - 1.
    """
    size = stream.seek(0, os.SEEK_END)
    bytes_a_second = 0.0
    wide = 0  # the size of the samples in RF64
    at = 12
    for _ in range(1000):  # far more chunks than any file has
        stream.seek(at)
        head = stream.read(8)
        kind, length = head[:4], int.from_bytes(head[4:], "little")
        at += 8
        if kind == b"ds64":
            wide = int.from_bytes(stream.read(16)[8:], "little")
        elif kind == b"fmt ":
            form = stream.read(20).ljust(20, b"\0")
            tag, rate, block, in_block = (
                int.from_bytes(form[a:b], "little") for a, b in ((0, 2), (4, 8), (12, 14), (18, 20))
            )
            if tag in (1, 3, 6, 7, 0xFFFE):  # PCM of all kinds: a block is one sample of each channel
                in_block = 1
            elif tag not in (2, 0x11, 0x31):  # ADPCM and GSM say how many it is; others do not
                in_block = 0
            bytes_a_second = rate * block / in_block if in_block else 0.0
        elif kind == b"data":
            if length == 0xFFFFFFFF:
                length = wide
            elif length >= 0x7FFF0000:
                return None
            return length / bytes_a_second if bytes_a_second and at + length > size else None
        at += length + length % 2
    return None


def _counts_frames(stream: BinaryIO) -> bool:
    """Whether an MP3's first frame carries a count of frames (Xing, Info or VBRI header)."""
    stream.seek(0)
    head = stream.read(10)
    start = 0
    if head[:3] == b"ID3":  # a tag, its length in four 7-bit bytes
        start = 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False))
    stream.seek(start)
    header = re.search(rb"(?:Xing|Info)...(.)|VBRI", stream.read(1024), re.DOTALL)
    return header is not None and (header[1] is None or bool(header[1][0] & 1))
