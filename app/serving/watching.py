"""What is put down of every request: a name for it, a line in the log, and counts; never anybody's words or names."""

from __future__ import annotations

import json
import logging
import secrets
import time
import traceback
from collections.abc import Container
from typing import TYPE_CHECKING, Any

from app.serving.metrics import Metrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LOG", "Watched", "noted", "write_lines"]

LOG = logging.getLogger("tilescribe.serving")

_LEFT = 499
"""The status that nginx puts down where a client left before its answer."""


_SWITCHED = 101  # to a WebSocket
_BEGINNINGS = ("http.response.start", "websocket.http.response.start", "websocket.accept")


class _Lines(logging.Formatter):
    """A record as one line: JSON, or `event name=value`, with the same fields."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`. Of an exception it has type and places: its text may quote what a client sent."""
        fields: dict[str, Any] = dict(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])
            fields["fault"] = record.exc_info[0].__qualname__
            fields["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        if not self._as_json:
            parts = (
                f"{k}={v}" if isinstance(v, int | float) else f"{k}={json.dumps(v)}"
                for k, v in fields.items()
            )
            return " ".join([record.getMessage(), *parts])
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        about = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps(about | fields)


def write_lines(*, as_json: bool) -> None:
    """Write what is logged to standard error, warnings alone of other packages."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines(as_json=as_json))
    logging.getLogger().addHandler(handler)
    LOG.setLevel(logging.INFO)


def noted(scope: Scope) -> dict[str, Any]:
    """What the log is to have of a request beside path, status and time; `code` and `left` are counted as well."""
    found: dict[str, Any] = scope.setdefault("tilescribe", {})
    return found


class Watched:
    """An ASGI application whose requests are put down, each under the name that its answer has as `x-request-id`."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Container[str]) -> None:
        """Any other path than `paths` is put down as `other`: it could hold anything."""
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        about, began, status = noted(scope), time.monotonic(), 0
        name = f"req_{secrets.token_hex(12)}"

        async def put(message: Message) -> None:
            nonlocal status
            if message["type"] in _BEGINNINGS:
                status = message.get("status", _SWITCHED)
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", name.encode())]
            await send(message)

        try:
            await self._app(scope, receive, put)
        except Exception:  # it has been answered
            LOG.exception("fault", extra={"fields": {"id": name}})
            about["code"] = "fault"
        finally:
            self._put_down(scope, name, status or _LEFT, time.monotonic() - began)

    def _put_down(self, scope: Scope, name: str, status: int, seconds: float) -> None:
        about, path = noted(scope), scope["path"] if scope["path"] in self._paths else "other"
        self._metrics.requests.labels(path, str(status)).inc()
        self._metrics.duration.labels(path).observe(seconds)
        if code := about.get("code"):
            self._metrics.errors.labels(code).inc()
        if about.get("left"):
            self._metrics.left.inc()
        asked = {"id": name, "path": path, "status": status, "seconds": round(seconds, 3)}
        if scope.get("method") in (None, "POST") or status >= 400:  # else a supervisor's, every few seconds
            LOG.info("request", extra={"fields": asked | about})
