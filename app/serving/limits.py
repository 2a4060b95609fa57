"""What a request may cost, kept while it comes in: bytes as they arrive, seconds of audio as they are decoded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.audio.findings import Findings
from app.audio.reading import SAMPLE_RATE, AudioSource
from app.serving.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from starlette.types import Message, Receive

__all__ = ["Body", "ClientLeft", "LimitedSource", "Limits"]

_DISCARDED_SECONDS = 10.0
_DISCARDED_BODIES = 10


@dataclass(frozen=True)
class Limits:
    """Of every request.

    Attributes:
        body_bytes: of the whole body; OpenAI's limit is 25 MiB.
        audio_seconds: of audio in it.
        upload_seconds: until the body has arrived.
        requests: that are being received, read or decoded at once, sessions among them.
        waiting_seconds: of a session's sound that is not computed yet; then no more is read.
        idle_seconds: after which a session is ended whose client sends nothing, or takes nothing.
    """

    body_bytes: int = 25 << 20
    audio_seconds: float = 4 * 3600.0
    upload_seconds: float = 300.0
    requests: int = 32
    waiting_seconds: float = 60.0
    idle_seconds: float = 120.0


class Body:
    """The messages of a request's body, which end in an error where there are more bytes than allowed.

    Attributes:
        ended: whether no more of it is to come, or to be waited for.
    """

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most = receive, most
        self._bytes = 0
        self.ended = False

    async def __call__(self) -> Message:
        """The next message, as ASGI's `receive` gives it.

        Raises:
            RequestError: the body is too large.
        """
        message = await self._receive()
        self._bytes += len(message.get("body", b""))
        self.ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        if self._bytes > self._most:
            raise self.too_large()
        return message

    def check_declared(self, length: str | None) -> None:
        """Refuse a Content-Length that is over the limit.

        Raises:
            RequestError: it is.
        """
        if length is not None and length.isdecimal() and int(length) > self._most:
            raise self.too_large()

    def too_large(self) -> RequestError:
        """What a client is told whose body is over the limit."""
        return RequestError(
            413, f"the request is larger than {self._most:,} bytes", code="request_too_large", param="file"
        )

    async def discard(self) -> None:
        """Take what a client still sends, within limits, and forget it: one that is cut off never reads its answer."""
        most = self._bytes + _DISCARDED_BODIES * self._most
        try:
            async with asyncio.timeout(_DISCARDED_SECONDS):
                while not self.ended and self._bytes < most:
                    message = await self._receive()
                    self._bytes += len(message.get("body", b""))
                    self.ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        except TimeoutError:
            return


class ClientLeft(Exception):  # noqa: N818  # what has happened
    """Nobody waits for the answer any more."""


class LimitedSource(AudioSource):
    """Audio that ends in an error where it is too long or where its client has left.

    A file of a few bytes may decode to days of silence, and what a file says of its own length may be wrong: it is the
    samples that count.
    """

    def __init__(self, source: AudioSource, most_seconds: float, has_left: Callable[[], bool]) -> None:
        self.name = source.name
        self._source, self._most, self._has_left = source, most_seconds, has_left

    @property
    def findings(self) -> Findings:  # type: ignore[override]
        """The source's."""
        return self._source.findings

    def blocks(self, seconds: float = 30.0) -> Iterator[NDArray[np.float32]]:
        """See `AudioSource`.

        Raises:
            ClientLeft: it has.
            RequestError: the audio is longer than allowed.
        """
        samples = 0
        for block in self._source.blocks(seconds):
            samples += len(block)
            if self._has_left():
                raise ClientLeft
            if samples > self._most * SAMPLE_RATE:
                raise RequestError(
                    400, f"the audio is longer than {self._most:g} s", code="audio_too_long", param="file"
                )
            yield block

    def close(self) -> None:
        """Let go of the input."""
        self._source.close()
