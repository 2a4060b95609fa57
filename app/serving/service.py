"""What all routes have in common: the model, its engine, the places; and the routes that take no audio."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.api import AudioError, DeviceError, Transcriber
from app.serving.engine import Engine
from app.serving.errors import RequestError
from app.serving.limits import Limits
from app.serving.metrics import Metrics
from app.serving.watching import LOG

__all__ = ["ALIAS", "Service", "told_of"]

ALIAS = "whisper-1"
"""What OpenAI calls its Whisper: the model that is served, whichever it is."""


class Service:
    """A server's."""

    def __init__(
        self, transcriber: Transcriber, engine: Engine, limits: Limits, metrics: Metrics, name: str
    ) -> None:
        self.transcriber, self.engine, self.limits, self.name = transcriber, engine, limits, name
        self.metrics = metrics
        self.names = (name, ALIAS)
        self._taken = 0
        self._created = int(time.time())
        engine.on_window = metrics.window
        metrics.watch(
            {
                "requests_taken": ("Requests being received, read or decoded.", lambda: self._taken),
                "requests_limit": ("How many are taken at once.", lambda: limits.requests),
                "recordings_waiting": (
                    "Recordings and sessions that wait for a window to be decoded.",
                    engine.waiting,
                ),
                "healthy": ("0 where the device was lost.", lambda: engine.lost is None),
            }
        )

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for a request, until it has its answer or its client has left.

        Raises:
            RequestError: all are taken, or nothing can be decoded any more.
        """
        if self.engine.lost is not None:
            raise _lost(self.engine.lost)
        if self._taken >= self.limits.requests:
            raise RequestError(
                429,
                f"the server is full: it takes {self.limits.requests} at a time",
                code="rate_limit_exceeded",
                headers={"retry-after": str(self.engine.retry_after())},
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def models(self, _: Request) -> Response:
        """The model, under its name and OpenAI's."""
        return JSONResponse({"object": "list", "data": [self._described(name) for name in self.names]})

    async def model(self, request: Request) -> Response:
        """One of them."""
        name = request.path_params["model"]
        if name not in self.names:
            raise RequestError(
                404, f"no model {name[:64]!r} is served here", code="model_not_found", param="model"
            )
        return JSONResponse(self._described(name))

    def _described(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "tilescribe"}

    async def health(self, _: Request) -> Response:
        """Whether the process is of use; what it computes with, and where."""
        lost, attention = self.engine.lost, self.transcriber.attention
        found = {
            "status": "ok" if lost is None else "device lost",
            "model": self.name,
            "backend": attention.name,
            "device": attention.device,
            "device_reason": attention.reason,
            "requests": self._taken,
        }
        return JSONResponse(found, 200 if lost is None else 503)

    async def ready(self, _: Request) -> Response:
        """Whether a request would be taken now."""
        with self.place():
            return JSONResponse({"status": "ready"})

    async def measured(self, _: Request) -> Response:
        """What Prometheus asks for."""
        return self.metrics.response()


def _lost(error: DeviceError) -> RequestError:
    # Asked again, it could only say the same.
    return RequestError(503, str(error), code="device_lost", headers={"x-should-retry": "false"})


def told_of(error: Exception) -> RequestError:
    """What a client is told of an error in its job."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, AudioError):
        return RequestError(400, str(error), code="invalid_audio", param="file")
    if isinstance(error, DeviceError):
        return _lost(error)
    LOG.error("fault", exc_info=error)
    return RequestError(500, "the audio could not be transcribed: a fault of the server", code="fault")
