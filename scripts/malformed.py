"""Requests for a transcript that are wrong in a field, a boundary, a length, a header or the audio, by a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

_FIELDS = (
    "model",
    "language",
    "prompt",
    "temperature",
    "response_format",
    "stream",
    "timestamp_granularities[]",
    "x",
)
_VALUES = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"-1",
    b"nan",
    b"1e999",
    b"srt",
    b"true",
    b"../../etc/passwd",
    b"%s%n",
    b"a" * 70_000,
)
_PARTS = (
    b"RIFF\xff\xff\xff\xffWAVEfmt ",
    b"fLaC",
    b"OggS",
    b"ID3\x04",
    b"\x1aE\xdf\xa3",
    b"#EXTM3U\nhttp://a/\n",
    b"",
)


class Malformed(NamedTuple):
    """Attributes: raw: all that is sent, of HTTP/1.1."""

    raw: bytes


def malformed(seed: int, count: int, audio: bytes) -> Iterator[Malformed]:
    """So many requests, each wrong; `audio` is a recording that is changed in some of them."""
    chance = random.Random(seed)
    for _ in range(count):
        yield Malformed(_request(chance, audio))


def _request(chance: random.Random, audio: bytes) -> bytes:
    boundary = b"b%d" % chance.randrange(1000)
    wrong = chance.choice(("field", "boundary", "length", "header", "audio", "twice", "bytes"))
    fields = [(b"model", b"", b"whisper-1"), (b"file", b'; filename="a"', _broken(chance, audio))]
    if wrong == "field":
        name = chance.choice(_FIELDS).encode()
        fields.insert(0, (name, chance.choice((b"", b'; filename="x"')), chance.choice(_VALUES)))
        fields += [(b"unknown", b"", b"1")]
    if wrong == "twice":
        fields += fields[:1]
    body = b"".join(
        b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (boundary, name, about, value)
        for name, about, value in fields
    )
    body += b"--" + boundary + b"--\r\n"
    said = chance.choice((b"", b"other", b"a" * 300, b'"')) if wrong == "boundary" else boundary
    if wrong == "bytes":
        changed = bytearray(body)
        for _ in range(20):
            changed[chance.randrange(min(400, len(changed)))] = chance.randrange(256)
        body = bytes(changed)
    length = str(len(body)).encode()
    if wrong == "length":
        length = chance.choice((b"-1", b"x", str(len(body) // 2).encode()))
    head = [
        b"POST /v1/audio/transcriptions HTTP/1.1",
        b"Host: localhost",
        b"Content-Type: multipart/form-data; boundary=" + said,
        b"Content-Length: " + length,
        b"Connection: close",
    ]
    if wrong == "header":
        head.insert(
            1, chance.choice((b"Content-Type: application/json", b"A" * 20_000 + b": b", b": b", b"Host: c"))
        )
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def _broken(chance: random.Random, audio: bytes) -> bytes:
    """No audio, or a recording with its first bytes changed, or cut before its samples."""
    kind = chance.randrange(3)
    if kind == 0:
        return chance.choice(_PARTS) + chance.randbytes(chance.randrange(2000))
    if kind == 1:
        return chance.randbytes(64) + audio[64 : 64 + chance.randrange(5000)]
    return audio[: chance.randrange(60)]
