"""Who is let in: who has the key, and no page of another site."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from app.serving.errors import RequestError
from app.serving.limits import Body
from app.serving.page import PAGE
from app.serving.watching import noted

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Guard"]

_OPEN = ("/health", "/ready", "/metrics")
"""What supervisors ask, without a key."""

_LOCAL = ("localhost", "127.0.0.1", "[::1]")

_PROTOCOL_KEY = "openai-insecure-api-key."
"""What a browser sends the key of a WebSocket with, where it can set no header: one of the subprotocols it offers."""


class Guard:
    """In the way of all requests, those of WebSockets among them: browsers keep pages of other sites from no server."""

    def __init__(self, app: ASGIApp, key: str | None, local: bool) -> None:
        self._app, self._local = app, local
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if error := self._refused(Headers(scope=scope), scope):
            if scope["type"] == "http":
                await Body(receive, 1 << 20).discard()
            noted(scope)["code"] = error.code
            await error.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refused(self, headers: Headers, scope: Scope) -> RequestError | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._local and self._key is None and host.rpartition(":")[0] not in _LOCAL and host not in _LOCAL:
            return RequestError(403, "the Host header does not name this machine", code="host_not_allowed")
        if origin is not None and origin.partition("://")[2] != host:
            return RequestError(403, "pages of other sites are not let in", code="origin_not_allowed")
        if self._key is None or scope["path"] in (*_OPEN, *PAGE):
            return None
        given = headers.get("authorization", "")
        for offered in scope.get("subprotocols", ()):
            if offered.startswith(_PROTOCOL_KEY):
                given = f"Bearer {offered.removeprefix(_PROTOCOL_KEY)}"
        scheme, _, secret = given.partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(secret.strip().encode("latin-1"), self._key):
            return None
        return RequestError(
            401,
            "the API key is wrong" if given else "an API key is needed, as Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )
