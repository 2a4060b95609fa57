"""What headers declare of a file's samples, and whether it is true, which FFmpeg would hide.

A writer to a pipe can't know the size and puts 0, or about the most that the field holds; one that passes 4 GB may put
what is left over 2^32; and the headers of files that were joined by their bytes are of the first.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

__all__ = ["Declared", "Mended", "declared_samples", "missing_share", "riff_is_cut"]


@dataclass(frozen=True)
class Declared:
    """The samples of a WAVE, AIFF, CAF or W64 file.

    Attributes:
        begin: their first byte.
        length: how many bytes the header says they are; None where it says nothing.
        size: the file's.
        rate: bytes a second; 0 where that is not known.
        goes_on: there are more samples than the header declares.
        mended: the place of the length in the header, and what FFmpeg reads all of them with.
    """

    begin: int
    length: int | None
    size: int
    rate: float
    goes_on: bool
    mended: tuple[int, bytes]

    @property
    def seconds(self) -> float | None:
        """What is declared, in seconds, where that is known."""
        return self.length / self.rate if self.length is not None and self.rate else None

    @property
    def is_cut(self) -> bool:
        """Whether the file ends before its samples do."""
        return self.begin + (self.length or 0) > self.size


class Mended(io.RawIOBase):
    """A stream in which some bytes of the header are others."""

    def __init__(self, stream: Any, at: int, instead: bytes) -> None:
        self._stream, self._at, self._instead = stream, at, instead

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """As the stream's."""
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        """As the stream's."""
        return int(self._stream.tell())

    def readinto(self, buffer: Any) -> int:
        """As the stream's, with the other bytes."""
        at = self._stream.tell()
        count: int = self._stream.readinto(buffer)
        for place, byte in enumerate(self._instead, self._at - at):
            if 0 <= place < count:
                buffer[place] = byte
        return count


@dataclass(frozen=True)
class _Form:
    """How a kind of file is divided into chunks.

    Attributes:
        start: the first chunk's byte.
        name: bytes of a chunk's name, of which the first four tell what it is.
        length: how its length is packed.
        counted: bytes of the head that the length counts.
        padding: what a chunk's bytes are filled up to a multiple of.
        skipped: bytes between the head of the samples' chunk and the samples.
        unknown: lengths from here on say that it is not known.
        endless: a length that FFmpeg reads to the end of the file with.
        rate: bytes a second from the chunk about the format.
    """

    start: int
    name: int
    length: str
    counted: int
    padding: int
    skipped: int
    unknown: int
    endless: int
    rate: Callable[[bytes], float]


def _wave_rate(about: bytes) -> float:
    tag, _, frequency, _, block, _, _, in_block = struct.unpack("<HHIIHHHH", about[:20].ljust(20, b"\0"))
    if tag in (1, 3, 6, 7, 0xFFFE):  # PCM of all kinds: a block is one sample of each channel
        in_block = 1
    elif tag not in (2, 0x11, 0x31):  # ADPCM and GSM say how many it is; others do not
        in_block = 0
    return float(frequency * block / in_block) if in_block else 0.0


def _aiff_rate(about: bytes) -> float:
    channels, _, bits, exponent, mantissa = struct.unpack(">HIHHQ", about[:18].ljust(18, b"\0"))
    kind = about[18:22]
    if kind.lower() in (b"alaw", b"ulaw"):
        bits = 8
    elif kind.lower() not in (b"", b"none", b"sowt", b"twos", b"in24", b"in32", b"fl32", b"fl64"):
        return 0.0
    frequency = mantissa * 2.0 ** min(exponent - 16383 - 63, 0)
    return float(channels * -(-bits // 8) * frequency)


def _caf_rate(about: bytes) -> float:
    frequency, _, _, packet, frames = struct.unpack(">d4sIII", about[:24].ljust(24, b"\0"))
    return float(frequency * packet / frames) if frames else 0.0


# Behind a length of WAVE's that is not 0, FFmpeg looks for more chunks, for minutes where gigabytes of silence follow.
_WAVE = _Form(12, 4, "<I", 0, 2, 0, 0x7FFF0000, 0, _wave_rate)
_AIFF = _Form(12, 4, ">I", 0, 2, 8, 0x7E000000, 0xFFFFFFFF, _aiff_rate)
_CAF = _Form(8, 4, ">Q", 0, 1, 4, 2**62, 2**64 - 1, _caf_rate)
_W64 = _Form(40, 16, "<Q", 24, 8, 0, 2**62, 2**62, _wave_rate)


def _form(head: bytes) -> _Form | None:
    if head[8:12] == b"WAVE":
        return _WAVE
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _AIFF
    if head[:4] == b"caff":
        return _CAF
    return _W64 if head[:4] == b"riff" and head[24:28] == b"wave" else None


def declared_samples(stream: BinaryIO) -> Declared | None:
    """What the header of a WAVE, AIFF, CAF or W64 file declares; None for other files."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    form = _form(stream.read(40))
    if form is None:
        return None
    rate = 0.0
    wide: int | None = None  # the size of the samples in RF64
    at = form.start
    for _ in range(1000):  # far more chunks than any file has
        kind, length = _head(stream, form, at)
        length_at, at = at + form.name, at + form.name + struct.calcsize(form.length)
        if kind == b"ds64":
            wide = int.from_bytes(stream.read(16)[8:], "little")
        elif kind in (b"fmt ", b"COMM", b"desc"):
            rate = form.rate(stream.read(max(0, min(length, 24))))
        elif kind in (b"data", b"SSND"):
            if wide is not None and length == 0xFFFFFFFF:
                unknown = wide == 0 or wide >= 2**62
                length = 0 if unknown else wide
            else:
                unknown = length <= 0 or length >= form.unknown
            end = at + max(length, 0)
            goes_on = size - end > rate / 2 > 0 and not any(
                _is_chunk(stream, form, end + padding, size) for padding in {0, -end % form.padding}
            )
            begin = at + form.skipped
            said = None if unknown else max(0, length - form.skipped)
            mended = length_at, struct.pack(form.length, form.endless)
            return Declared(begin, said, size, rate, goes_on, mended)
        at += length + -length % form.padding
        if length < 0 or at > size:
            return None
    return None


def _head(stream: BinaryIO, form: _Form, at: int) -> tuple[bytes, int]:
    """A chunk's name and the length of its content, as it is said to be; no name past the end."""
    stream.seek(at)
    head = stream.read(form.name + struct.calcsize(form.length))
    try:
        (length,) = struct.unpack(form.length, head[form.name :])
    except struct.error:
        return b"", 0
    return head[:4], length - form.counted


def _is_chunk(stream: BinaryIO, form: _Form, at: int, size: int) -> bool:
    """Whether a chunk begins at a byte: a name, and a length within the file."""
    name, length = _head(stream, form, at)
    named = len(name) == 4 and all(32 <= byte < 127 for byte in name)
    within = 0 <= length <= size + 1 - at - form.name - struct.calcsize(form.length)
    return named and name not in (b"RIFF", b"RF64") and within


def riff_is_cut(stream: BinaryIO) -> bool:
    """Whether a RIFF file, of several parts if it is a long AVI, ends before it says that it does."""
    size, at = stream.seek(0, os.SEEK_END), 0
    while at < size - 8:
        stream.seek(at)
        head = stream.read(8)
        if head[:4] != b"RIFF":
            return False
        length = int.from_bytes(head[4:], "little")
        at += 8 + length + length % 2
    return at > size + 1


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
