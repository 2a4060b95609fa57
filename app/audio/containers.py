"""Media files through FFmpeg's libraries: which are opened, their tracks, and the length that they declare.

The declared length tells where a file's end is missing: the frames that can be decoded come to less.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO, cast

from app.audio.headers import Mended, declared_samples, missing_share, riff_is_cut
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
    """Input that can't be transcribed. `str()` is one line, `name: reason`.

    Attributes:
        name: its user's own.
        reason: what is wrong.
        remedy: what a command's user can do about it.
    """

    def __init__(self, name: str, reason: str, remedy: str = "") -> None:
        super().__init__(name, reason, remedy)
        self.name = name
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{printable(self.name)}: {self.reason}"


def printable(name: str) -> str:
    """A name in one line: its line breaks, control characters and bytes that are not text are escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)


def open_container(stream: BinaryIO, name: str) -> InputContainer:
    """A demuxer at the start of a stream that can seek.

    Raises:
        AudioError: it is not audio, or damaged.
        OSError: it can't be read.
    """
    import av

    demuxers = ",".join(sorted(f for f in av.formats_available if not _NOT_MEDIA.fullmatch(f)))
    data = declared_samples(stream)
    stream.seek(0)
    wide = stream.read(4) in (b"RF64", b"BW64")  # whose length is elsewhere
    stream.seek(0)
    read = stream
    if data is not None and data.goes_on and not wide:
        read = cast(BinaryIO, Mended(stream, *data.mended))
    try:
        return av.open(
            read,
            "r",
            options={"ignore_length": "1"} if data is not None and data.goes_on and wide else {},
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
    if (data := declared_samples(stream)) is not None:
        # Of packed samples FFmpeg knows the rate.
        return data.seconds or own or whole if data.is_cut else None
    if form == "avi":  # FFmpeg's figure is a guess where the index is gone
        return float(track.frames * (track.time_base or 0)) if riff_is_cut(stream) else None
    if form in ("flac", "au", "wv", "adx", "tta") or (form == "mp3" and missing_share(stream) is not None):
        return own
    if "matroska" in form:
        return whole
    if "mp4" in form.split(","):
        return min(own, whole) if own and whole else own  # an edit list may leave out some of the track
    return None
