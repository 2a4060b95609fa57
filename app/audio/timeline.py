"""Decoded audio on the recording's own clock: where that has no sound, or the sound is damaged, there is silence.

Time is what the container says (its presentation time stamps), as players show it, not the sum of what could be
decoded. Stamps that wobble, overlap or start a little under zero move nothing; what `aresample=async=1` does is close
to it, but that drops sound where a clock goes back, as the joined parts of a broadcast's do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:  # imported where it is used: a command's --help must not wait for it
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

_JITTER = 0.1  # seconds that time stamps may be off before silence is put in: `aresample`'s own tolerance
_RESET = 10.0  # a clock that goes back further has been set anew, which is where `ffmpeg` draws the line, too
_PLAUSIBLE = 60.0  # a hole up to this long is believed, a longer one only within the length that is declared
_STUCK = 8  # refusals in a row before a decoder is set up again, or a demuxer left
_LONGEST = 6 * 3600.0  # that no file is believed: MPEG's clock wraps after 26 h, or seems to
_FRESH = 1.0  # seconds of sound after which damage is no longer the reason for a hole

UNTIMED = frozenset(("aac", "ac3", "amr", "dts", "eac3", "mp3"))
"""Streams of frames without a clock: their time is a count of frames, so bytes that are lost shift it."""

_IN_ORDER = frozenset(
    ("flac", "flv", "matroska,webm", "ogg")
)  # where packets follow each other without a gap
_SOUND_ALONE = frozenset(("asf", "ogg", "sbc", "voc"))  # that have nothing much behind the last packet
_PAGE = 1 << 16  # bytes that Ogg may have in one, so that a cut one is no damage
_OVERHEAD = 1000  # bytes between two packets that a container needs for itself


@dataclass
class Account:
    """What one reading met: filled while the frames are taken.

    Attributes:
        packets: that were not empty.
        decoded: seconds of sound that came out.
        reached: how far the file's clock came, in seconds, to be compared with the length that it declares.
        promised: how far it would have come with the packets that could not be decoded.
        lost: places, in seconds of the recording, and lengths of what could not be decoded.
        seams: places where something is missing that left no trace of its length.
        broken_off: nothing can be read after the last damage, though the file goes on.
        missing: seconds that the file lacks according to its own header, which are taken to be where it is damaged.
    """

    packets: int = 0
    decoded: float = 0.0
    reached: float = 0.0
    promised: float = 0.0
    lost: list[tuple[float, float]] = field(default_factory=list)
    seams: list[float] = field(default_factory=list)
    broken_off: bool = False
    missing: float = 0.0


class _Clock:
    """Where the next sound belongs, in seconds of the recording."""

    def __init__(self, container: InputContainer) -> None:
        start = (container.start_time or 0) / 1e6
        # The clock of a broadcast begins anywhere. Others begin at zero, however late the first sound is, unless
        # they are a part of something long that was cut out with its time stamps.
        self.zero = start if "mpeg" in container.format.name or not 0 <= start <= _PLAUSIBLE else 0.0
        self.end = start + container.duration / 1e6 if container.duration else 3600.0
        self._shift = -self.zero
        self.position = 0.0

    def of(self, time: float) -> float:
        """The second of the recording that a time stamp stands for."""
        return time + self._shift

    def hole(self, time: float | None, lost: float) -> float:
        """Seconds of silence before a frame of this `time` stamp, `lost` seconds having gone without one."""
        self._shift += lost
        ahead = 0.0 if time is None else self.of(time) - self.position
        if (
            ahead < -_RESET
            or ahead > _LONGEST
            or (ahead > _PLAUSIBLE and self.position + ahead - self._shift > self.end + 1)
        ):
            self._shift -= ahead
            return 0.0
        return ahead if ahead > _JITTER else 0.0


def timed_frames(
    container: InputContainer, track: AudioStream, stream: BinaryIO, account: Account
) -> Iterator[AudioFrame | float]:
    """Decode a track; a number among the frames is the second of the recording up to which there is silence."""
    from av.error import FFmpegError

    # Matroska declares the length of the whole file, on its clock; others a track's, from its own start.
    whole = "matroska" in container.format.name
    clock = _Clock(container)
    raw = _Untimed(stream, account.missing) if container.format.name in UNTIMED else None
    begin: float | None = None
    in_order = container.format.name in _IN_ORDER
    suspect = -_FRESH  # where something was last amiss
    followed = 0  # the byte after the last packet
    barren = 0  # bytes of the last packets that no sound came from
    decoder = track.codec_context
    failures = refusals = 0
    packets: Iterator[Any] = container.demux()
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:
            suspect = clock.position
            refusals += 1
            if (
                refusals < _STUCK
            ):  # Ogg goes on behind the damage; FFmpeg's command makes do with what came before
                packets = container.demux()
                continue
            packet = None
        if packet is None:
            stuck = failures > 0 or refusals > 0
            size = stream.seek(0, os.SEEK_END)
            silent = size - followed + barren
            alone = container.format.name in _SOUND_ALONE and silent > _PAGE
            account.broken_off = (stuck or alone) and silent > 0.1 * size
            return
        refusals = 0
        if packet.pos is not None:
            if in_order and packet.pos > followed + _OVERHEAD > _OVERHEAD:
                suspect = clock.position
            followed = max(followed, packet.pos) + packet.size  # several packets of a page give one position
        if packet.stream_index != track.index:
            if whole and packet.pts is not None:
                passed = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                account.reached = max(account.reached, passed)
            continue
        account.packets += packet.size > 0
        try:
            frames = decoder.decode(packet)
            failures = 0 if frames else failures
            barren = 0 if frames and packet.size else barren + packet.size
        except FFmpegError:
            suspect = clock.position
            barren += packet.size
            failures += 1
            if failures == _STUCK and decoder.name == "aac":  # it took damage for a new configuration
                decoder = _anew(decoder)
            if raw is None and packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                if end <= clock.end:
                    account.promised = max(account.promised, clock.of(end) - (begin or 0.0))
            continue
        if packet.is_corrupt:
            suspect = clock.position
        damaged = clock.position - suspect < _FRESH
        lost = 0.0
        if raw and frames:
            lost = raw.lost_before(packet, suspect == clock.position)
            if suspect == clock.position > 0.0 and lost < _JITTER:
                account.seams.append(clock.position)
        for frame in frames:
            hole = clock.hole(frame.time, lost)
            lost = 0.0
            if hole:
                if damaged:
                    account.lost.append((clock.position, hole))
                clock.position += hole
                suspect = -_FRESH
                yield clock.position
            if begin is None:
                begin = clock.position
            length = frame.samples / frame.sample_rate
            clock.position += length
            account.decoded += length
            reached = clock.position + clock.zero if whole else clock.position - begin
            account.reached = max(account.reached, reached)
            yield frame


def _anew(decoder: AudioCodecContext) -> AudioCodecContext:
    from av.codec.context import CodecContext

    fresh = cast("AudioCodecContext", CodecContext.create(decoder.codec.name, "r"))
    fresh.extradata = decoder.extradata
    return fresh


class _Untimed:
    """Frames without a clock: the seconds that lost bytes held, by the bytes that a second has taken so far."""

    def __init__(self, stream: BinaryIO, missing: float) -> None:
        self._stream = stream
        self._missing = missing
        self._moved = 0  # bytes by which the demuxer's count of them is behind
        self._end = 0  # the byte, and the demuxer's time, after the last good packet
        self._time = 0.0
        self._bytes = 0
        self._seconds = 0.0

    def lost_before(self, packet: Any, damaged: bool) -> float:
        """Seconds lost right before a good packet that its time stamp does not tell of."""
        time = float((packet.pts or 0) * packet.time_base)
        length = float((packet.duration or 0) * packet.time_base)
        lost = 0.0
        if damaged and self._seconds:
            at = self._find(bytes(packet)[:64])
            if at is not None:
                self._moved = at - packet.pos
                lost = (at - self._end) * self._seconds / self._bytes - (time - self._time)
            lost = max(0.0, lost)
            if lost < _JITTER:  # nothing is there in place of what is missing: it was cut out here
                lost, self._missing = lost + self._missing, 0.0
        self._end = packet.pos + self._moved + packet.size
        self._time = time + length
        self._bytes += packet.size
        self._seconds += length
        return lost

    def _find(self, start: bytes) -> int | None:
        """The byte of the file at which a packet begins; a demuxer that looks for the next one may not count."""
        before = self._stream.tell()
        at, rest = self._end, b""
        try:
            self._stream.seek(at)
            while piece := self._stream.read(1 << 20):
                found = (rest + piece).find(start)
                if found >= 0:
                    return at - len(rest) + found
                at += len(piece)
                rest = piece[-len(start) :]
            return None
        finally:
            self._stream.seek(before)
