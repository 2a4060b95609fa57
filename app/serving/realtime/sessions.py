"""The route of sessions, and those that are open."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.websockets import WebSocket

from app.serving.errors import RequestError
from app.serving.realtime.connection import Connection
from app.serving.realtime.events import asked, initial
from app.serving.service import Service

if TYPE_CHECKING:
    import socket

    from starlette.types import Receive, Scope, Send

__all__ = ["WEBSOCKETS", "Server", "Sessions"]

WEBSOCKETS: dict[str, Any] = {
    "ws": "websockets-sansio",
    "ws_max_size": 4 << 20,
    "ws_per_message_deflate": False,
    "ws_ping_timeout": None,
}
"""How uvicorn is to serve sessions. An event has up to a minute of sound at 24 kHz; OpenAI takes 15 MiB.

A client of which nothing is read, as much waits, could not answer a ping: silence alone is timed.
"""

_PROTOCOL = "realtime"


class Sessions:
    """All of a server's; as a route an ASGI application."""

    def __init__(self) -> None:
        """Begin with none."""
        self._open: set[Connection] = set()
        self._ending = False
        self._service: Service | None = None

    def __len__(self) -> int:
        return len(self._open)

    def of(self, service: Service) -> Sessions:
        """These, as sessions of this server."""
        self._service = service
        self._threads = ThreadPoolExecutor(service.limits.requests, thread_name_prefix="session")
        service.metrics.watch({"sessions_open": ("Sessions that are open.", lambda: len(self))})
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a session; see ASGI.

        Raises:
            RequestError: it is not begun.
        """
        assert self._service is not None
        service, websocket = self._service, WebSocket(scope, receive, send)
        self._check(websocket, service)
        begun = asked(initial(service.name), service.names, service.transcriber.weights.model)
        with service.place():
            await websocket.accept(_PROTOCOL if _PROTOCOL in scope["subprotocols"] else None)
            connection = Connection(service, websocket, self._threads, begun)
            self._open.add(connection)
            try:
                await connection.run()
            finally:
                self._open.discard(connection)

    def _check(self, websocket: WebSocket, service: Service) -> None:
        for name, value in websocket.query_params.multi_items():
            known = {"intent": ("transcription",), "model": service.names}
            if name not in known:
                message = f"unknown parameter {name[:64]!r}; known are {', '.join(known)}"
                raise RequestError(400, message, code="unknown_parameter", param=name[:64])
            if value not in known[name]:
                message = f"{name} {value[:64]!r} is not served here; there is {' or '.join(known[name])}"
                status, code = (404, "model_not_found") if name == "model" else (400, "invalid_value")
                raise RequestError(status, message, code=code, param=name)
        if self._ending:
            raise RequestError(503, "the server ends", code="server_ending")

    async def end(self, seconds: float) -> None:
        """Let each complete what has begun, for so long, and take no new one."""
        self._ending = True
        for connection in list(self._open):
            await connection.end()
        until = asyncio.get_running_loop().time() + seconds
        while self._open and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.05)


class Server(uvicorn.Server):
    """uvicorn's, in which sessions may say their last words before connections are closed."""

    def __init__(self, config: uvicorn.Config, sessions: Sessions) -> None:
        super().__init__(config)
        self._sessions = sessions

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`; sessions and requests have the graceful time together."""
        for server in self.servers:
            server.close()
        clock = asyncio.get_running_loop().time
        grace, began = self.config.timeout_graceful_shutdown or 0, clock()
        await self._sessions.end(grace)
        self.config.timeout_graceful_shutdown = max(0, round(grace - (clock() - began)))
        await super().shutdown(sockets)
