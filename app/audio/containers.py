"""Media files through FFmpeg's libraries: which are opened, their tracks, and the length that they declare.

The declared length tells where a file's end is missing: the frames that can be decoded come to less.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from models.languages import language_tag

if TYPE_CHECKING:  # both are imported where they are used: a command's --help must not wait for them
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


def open_container(stream: BinaryIO, name: str) -> InputContainer:
    """A demuxer at the start of a stream that can seek.

    Raises:
        AudioError: it is not audio, or damaged.
        OSError: it can't be read.
    """
    import av

    demuxers = ",".join(sorted(f for f in av.formats_available if not _NOT_MEDIA.fullmatch(f)))
    data = wave_data(stream)
    options = {"ignore_length": "1"} if data is not None and data.goes_on else {}
    stream.seek(0)
    try:
        return av.open(
            stream,
            "r",
            options=options,
            container_options={"format_whitelist": demuxers},
            metadata_errors="replace",
        )
    except av.error.FFmpegError as error:
        stream.seek(4)
        cut = stream.read(4) == b"ftyp"
        reason = "damaged or cut short: its index (moov) can't be read" if cut else _NOT_AUDIO
        raise AudioError(name, reason) from error


def audio_tracks(container: InputContainer, name: str) -> list[AudioStream]:
    """All audio tracks, in the file's order.

    Raises:
        AudioError: there is none, or none that can be decoded.
    """
    from av.stream import Disposition

    tracks = list(container.streams.audio)
    if not tracks:
        video = any(not s.disposition & Disposition.attached_pic for s in container.streams.video)
        raise AudioError(name, "no audio track" if video else _NOT_AUDIO)
    if all(track.codec_context is None for track in tracks):
        raise AudioError(name, "its audio is in a format that FFmpeg's libraries can't decode")
    return tracks


def chosen_track(tracks: Sequence[AudioStream], name: str, wanted: str | None) -> AudioStream:
    """The track that is wanted, by its number from 1 or its language; else the default, or the one with most channels.

    Raises:
        AudioError: there is no such track, or it can't be decoded.
    """
    from av.stream import Disposition

    decodable = [track for track in tracks if track.codec_context is not None]
    if wanted is None:
        return max(decodable, key=lambda s: (bool(s.disposition & Disposition.default), s.channels))
    if wanted.isdecimal():
        found = [tracks[int(wanted) - 1]] if 1 <= int(wanted) <= len(tracks) else []
    else:
        code = language_tag(wanted)
        found = [track for track in tracks if language_tag(track.metadata.get("language", "")) == code]
    usable = [track for track in found if track in decodable]
    if usable:
        return usable[0]
    reason = "can't be decoded" if found else "is not there"
    raise AudioError(name, f"audio track {wanted} {reason}: it has {described(tracks)}")


def described(tracks: Sequence[AudioStream], without: AudioStream | None = None) -> str:
    """Tracks by number, language and title: `1 (eng), 2 (rus, Commentary)`."""
    shown = []
    for number, track in enumerate(tracks, 1):
        known = [track.metadata[key] for key in ("language", "title") if track.metadata.get(key)]
        if track is not without:
            shown.append(f"{number} ({', '.join(known)})" if known else str(number))
    return ", ".join(shown)


def declared_seconds(container: InputContainer, track: AudioStream, stream: BinaryIO) -> float | None:
    """The length that the file itself declares; FFmpeg's figure may be a guess from the file's size."""
    form = container.format.name
    own = float(track.duration * track.time_base) if track.duration and track.time_base else None
    whole = container.duration / 1e6 if container.duration else None
    if form == "wav":
        data = wave_data(stream)
        cut = data is not None and data.begin + (data.declared or 0) > data.size
        return data.declared_seconds if data is not None and cut else None
    if form in ("flac", "aiff", "au") or (form == "mp3" and missing_share(stream) is not None):
        return own
    if "matroska" in form:
        return whole
    if "mp4" in form.split(","):
        return min(own, whole) if own and whole else own  # an edit list may leave out some of the track
    return None


@dataclass(frozen=True)
class WaveData:
    """The samples of a WAVE file.

    Attributes:
        begin: their first byte.
        declared: how many bytes the header says they are; None where it says nothing.
        size: the file's.
        rate: bytes a second; 0 where that is not known.
        goes_on: there are more samples than the header declares.
    """

    begin: int
    declared: int | None
    size: int
    rate: float
    goes_on: bool

    @property
    def declared_seconds(self) -> float | None:
        """What is declared, in seconds, where that is known."""
        return self.declared / self.rate if self.declared is not None and self.rate else None


def wave_data(stream: BinaryIO) -> WaveData | None:
    """What a WAVE file's header declares, and whether it is true, which FFmpeg would hide; None for other files.

    A writer to a pipe can't know the size and puts 0, or something from about 2^31 up to 2^32 - 1; one that passes
    4 GB may put what is left over 2^32; and the headers of files that were joined by their bytes are of the first.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if stream.read(12)[8:] != b"WAVE":
        return None
    rate = 0.0
    wide: int | None = None  # the size of the samples in RF64
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
            tag, frequency, block, in_block = (
                int.from_bytes(form[a:b], "little") for a, b in ((0, 2), (4, 8), (12, 14), (18, 20))
            )
            if tag in (1, 3, 6, 7, 0xFFFE):  # PCM of all kinds: a block is one sample of each channel
                in_block = 1
            elif tag not in (2, 0x11, 0x31):  # ADPCM and GSM say how many it is; others do not
                in_block = 0
            rate = frequency * block / in_block if in_block else 0.0
        elif kind == b"data":
            if wide is not None and length == 0xFFFFFFFF:
                unknown = wide == 0 or wide >= 2**62
                length = 0 if unknown else wide
            else:
                unknown = length == 0 or length >= 0x7FFF0000
            rest = size - at - length
            goes_on = rest > rate / 2 and not any(
                _is_chunk(stream, at + length + pad, size) for pad in (0, 1)
            )
            return WaveData(at, None if unknown else length, size, rate, goes_on)
        at += length + length % 2
    return None


def _is_chunk(stream: BinaryIO, at: int, size: int) -> bool:
    """Whether a RIFF chunk begins at a byte: a name, and a length within the file."""
    stream.seek(at)
    head = stream.read(8)
    named = len(head) == 8 and all(32 <= byte < 127 for byte in head[:4])
    return (
        named
        and head[:4] not in (b"RIFF", b"RF64")
        and at + 8 + int.from_bytes(head[4:], "little") <= size + 1
    )


def missing_share(stream: BinaryIO) -> float | None:
    """The share of an MP3's bytes that it lacks by its own count (Xing, Info, VBRI); None where it has none."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(10)
    start = 0
    if head[:3] == b"ID3":  # a tag, its length in four 7-bit bytes
        start = 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False))
    stream.seek(start)
    header = re.search(rb"(?:Xing|Info)...(.)....(....)|VBRI", stream.read(1024), re.DOTALL)
    if header is None or (header[1] and not header[1][0] & 1):
        return None
    counted = int.from_bytes(header[2], "big") if header[1] and header[1][0] & 2 else 0
    return max(0.0, 1 - (size - start) / counted) if counted else 0.0
