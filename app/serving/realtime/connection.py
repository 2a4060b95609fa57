"""A session's WebSocket: what comes is put in order and computed in a thread, within limits; what is told is sent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from app.api import DeviceError
from app.serving.errors import RequestError
from app.serving.limits import ClientLeft
from app.serving.realtime.events import Append, Asked, Clear, Commit, Update, asked, decoded, merged, parsed
from app.serving.realtime.session import Event, Session, failure
from app.serving.realtime.sound import FORMATS
from app.serving.service import Service, told_of
from app.serving.watching import noted

__all__ = ["Connection"]

_STEP_SECONDS = 5.0  # of sound that is taken at once where more is waiting
_MOST_WAITING = 100  # events that are not sound

_IDLE, _ENDING, _BROKEN = (
    (1000, "nothing came for too long"),
    (1001, "the server ends"),
    (1011, "device lost"),
)


@dataclass
class _Sound:
    """Bytes that wait, of `rate` a second."""

    rate: int
    size: int
    data: bytearray = field(default_factory=bytearray)


class Connection:
    """One client's."""

    def __init__(
        self, service: Service, websocket: WebSocket, threads: ThreadPoolExecutor, started: Asked
    ) -> None:
        """Begin a session, as it is `started`, of which a thread of `threads` computes each step."""
        self._service, self._websocket, self._threads = service, websocket, threads
        self._asked, self._left = started, False
        self._session = Session(
            service.transcriber, started, partial(service.engine.turn, lambda: self._left)
        )
        self._waiting: deque[_Sound | Callable[[], list[Event]]] = deque()
        self._changed = asyncio.Condition()
        self._sending = asyncio.Lock()
        self._ended: tuple[int, str] | None = None
        self._heard = 0.0

    async def run(self) -> None:
        """Serve until the client leaves, sends nothing for too long, or the session is ended."""
        about = noted(self._websocket.scope)
        attention = self._service.transcriber.attention
        about |= {"backend": attention.name, "device": attention.device}
        await self._send([self._session.described("session.created")])
        reading, computing = asyncio.ensure_future(self._read()), asyncio.ensure_future(self._compute())
        try:
            await asyncio.wait({reading, computing}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not self._left:
                await computing
        finally:
            self._left = True
            for task in (reading, computing):
                task.cancel()
            found = await asyncio.gather(reading, computing, return_exceptions=True)
            self._service.engine.rest_later()
            about["audio_seconds"] = round(self._session.seconds, 2)
            about["items"] = self._session.items
        for error in found:
            if isinstance(error, Exception) and not isinstance(error, (WebSocketDisconnect, ClientLeft)):
                raise error
        if self._ended is not None and self._websocket.client_state is WebSocketState.CONNECTED:
            await self._websocket.close(*self._ended)

    async def end(self) -> None:
        """Complete what has begun and end, since the server does."""
        await self._end(_ENDING)

    async def _end(self, why: tuple[int, str]) -> None:
        async with self._changed:
            if self._ended is None:
                self._ended = why
                self._waiting.append(self._session.end)
                self._changed.notify_all()

    async def _read(self) -> None:
        """Take events until the client leaves, or sends none for too long."""
        idle = self._service.limits.idle_seconds
        while self._ended is None:
            try:
                async with asyncio.timeout(idle):
                    message = await self._websocket.receive()
            except TimeoutError:
                error = RequestError(408, f"nothing came for {idle:g} s", code="idle_timeout")
                await self._refuse(error)
                await self._end(_IDLE)
                return
            if message["type"] == "websocket.disconnect":
                self._left = True
                return
            name = None
            try:
                if message.get("text") is None:
                    raise RequestError(400, "events are text, not bytes", code="invalid_json")
                raw = decoded(message["text"])
                name = raw.get("event_id") if isinstance(raw.get("event_id"), str) else None
                await self._take(raw, name)
            except RequestError as error:
                await self._refuse(error, name)

    async def _take(self, raw: dict[str, Any], name: str | None) -> None:
        """Put an event behind those that wait, once there is room for it."""
        match parsed(raw):
            case Append() as append:
                await self._hear(append)
            case Update(session=changes):
                service = self._service
                session = merged(self._asked.session, changes)
                self._asked = asked(session, service.names, service.transcriber.weights.model)
                await self._put(partial(self._session.change, self._asked))
            case Commit():
                await self._put(partial(self._session.commit, name))
            case Clear():
                await self._put(self._session.clear)

    async def _hear(self, append: Append) -> None:
        size, rate = FORMATS[self._asked.format].size, self._asked.rate
        data = append.sound(size)
        async with self._changed:
            await self._changed.wait_for(self._has_room)
            last = self._waiting[-1] if self._waiting else None
            if not isinstance(last, _Sound):
                last = _Sound(size * rate, size)
                self._waiting.append(last)
            last.data += data
            self._changed.notify_all()

    async def _put(self, does: Callable[[], list[Event]]) -> None:
        async with self._changed:
            await self._changed.wait_for(self._has_room)
            self._waiting.append(does)
            self._changed.notify_all()

    def _has_room(self) -> bool:
        seconds = sum(len(one.data) / one.rate for one in self._waiting if isinstance(one, _Sound))
        return seconds < self._service.limits.waiting_seconds and len(self._waiting) < _MOST_WAITING

    async def _compute(self) -> None:
        """Compute what waits, in order, and send what comes of it, until the session is ended."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._waiting)
                does = self._next()
                self._changed.notify_all()
            try:
                told = await asyncio.get_running_loop().run_in_executor(self._threads, does)
            except ClientLeft:
                await self._end(_ENDING)  # or the engine has ended
                return
            except Exception as error:
                refused = told_of(error)
                self._service.metrics.errors.labels(refused.code).inc()
                lost = isinstance(error, DeviceError)
                told = self._session.failed(refused, last=lost)
                if lost:
                    self._ended = _BROKEN
                    self._waiting.clear()
            await self._send(told)
            self._service.metrics.heard.inc(self._session.seconds - self._heard)
            self._heard = self._session.seconds
            if self._ended is not None and not self._waiting:
                return

    def _next(self) -> Callable[[], list[Event]]:
        first = self._waiting[0]
        if not isinstance(first, _Sound):
            self._waiting.popleft()
            return first
        most = round(_STEP_SECONDS * first.rate) // first.size * first.size
        data = bytes(first.data[:most])
        del first.data[:most]
        if not first.data:
            self._waiting.popleft()
        return partial(self._session.hear, data)

    async def _refuse(self, error: RequestError, name: str | None = None) -> None:
        self._service.metrics.errors.labels(error.code).inc()
        await self._send([failure(error, name)])

    async def _send(self, events: list[Event]) -> None:
        """Send events; a client that takes none for too long has left."""
        async with self._sending:
            for event in events:
                try:
                    async with asyncio.timeout(self._service.limits.idle_seconds):
                        await self._websocket.send_text(msgspec.json.encode(event).decode())
                except (TimeoutError, WebSocketDisconnect, RuntimeError) as error:
                    self._left = True
                    raise ClientLeft from error
