"""The routes: OpenAI's audio API, whisper.cpp's /inference, and what a supervisor asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from app.api import SegmentStream, Transcriber, Transcript
from app.audio.reading import open_audio
from app.serving.answers import Growing, answer, delta, done, event
from app.serving.engine import Engine, Event, Job, Opened
from app.serving.errors import RequestError
from app.serving.fields import FIELDS, Asked, asked
from app.serving.guard import Guard
from app.serving.limits import Body, ClientLeft, LimitedSource, Limits
from app.serving.metrics import Metrics
from app.serving.page import page_routes
from app.serving.realtime.sessions import Sessions
from app.serving.service import Service, told_of
from app.serving.watching import Watched, noted
from models.decoding.segments import Segment

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["application"]

_REALTIME = "/v1/realtime"


def application(
    transcriber: Transcriber,
    engine: Engine,
    limits: Limits,
    sessions: Sessions,
    *,
    key: str | None,
    local: bool,
) -> ASGIApp:
    """The ASGI application.

    Args:
        transcriber: of all requests.
        engine: that decodes with it.
        limits: of each request.
        sessions: that are to be this application's.
        key: that clients have to send, if any.
        local: whether it is only reached from this machine: another name than this machine's own is refused then, as
            pages in a browser use one to reach what they may not.
    """
    name = transcriber.weights.name
    metrics = Metrics(transcriber)
    service = Service(
        engine.of(transcriber), engine, limits, metrics, Path(name).name if "/" in name else name
    )
    routes: list[BaseRoute] = [Route(path, _Transcripts(service, path), methods=["POST"]) for path in FIELDS]
    routes += [
        WebSocketRoute(_REALTIME, sessions.of(service)),
        Route("/v1/models", service.models),
        Route("/v1/models/{model:path}", service.model),
        Route("/health", service.health),
        Route("/ready", service.ready),
        Route("/metrics", service.measured),
        *page_routes(transcriber, service.name, limits, keyed=key is not None),
    ]
    guarded = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, key=key, local=local)],
        exception_handlers={RequestError: _refusal, HTTPException: _http_refusal, Exception: _fault},
    )
    paths = [route.path for route in routes if isinstance(route, Route | WebSocketRoute)]
    return Watched(guarded, metrics, paths)


class _Transcripts:
    """A route that takes audio, as an ASGI application: it watches whether its client is still there."""

    def __init__(self, service: Service, path: str) -> None:
        self._service, self._path = service, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = Body(receive, self._service.limits.body_bytes)
        try:
            with self._service.place():
                body.check_declared(Headers(scope=scope).get("content-length"))
                await self._serve(body, scope, receive, send)
        except (ClientDisconnect, ClientLeft):
            noted(scope)["left"] = True
        except (RequestError, HTTPException):
            await body.discard()
            raise

    async def _serve(self, body: Body, scope: Scope, receive: Receive, send: Send) -> None:
        service, request = self._service, Request(scope, body)
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise RequestError(400, "the request has to be multipart/form-data", code="invalid_content_type")
        try:
            async with asyncio.timeout(service.limits.upload_seconds):
                form = await request.form(max_files=1, max_fields=32, max_part_size=64 << 10)
        except TimeoutError:
            body.ended = True
            raise RequestError(408, "the body took too long to arrive", code="upload_timeout") from None
        try:
            wanted = asked(form, self._path, service.names, service.transcriber.weights.model)
            if not await _while_there(self._answer(wanted, scope, receive, send), receive):
                noted(scope)["left"] = True
        finally:
            await form.close()

    async def _answer(self, wanted: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        about = noted(scope)
        async with aclosing(self._events(wanted, about)) as events:
            # What is wrong with the audio has a status of its own, also where text is streamed.
            opened = await anext(events)
            assert isinstance(opened, Opened)
            if wanted.stream:
                await _stream(events, opened.duration, wanted, self._service.name, about, send)
                return
            async for happened in events:
                if isinstance(happened, Transcript):
                    await answer(happened, wanted, self._service.name)(scope, receive, send)

    async def _events(self, wanted: Asked, about: dict[str, Any]) -> AsyncGenerator[Event, None]:
        """What becomes of a job, up to the transcript; where nobody asks for more, the job ends.

        Raises:
            RequestError: it went wrong.
        """
        service, loop = self._service, asyncio.get_running_loop()
        told: asyncio.Queue[Event] = asyncio.Queue()
        attention = service.transcriber.attention
        about |= {"backend": attention.name, "device": attention.device, "windows": 0}

        def tell(happened: Event) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(told.put_nowait, happened)

        def opened(job: Job) -> SegmentStream:
            source = open_audio(wanted.upload.file, name=wanted.upload.filename or "file")
            limited = LimitedSource(source, service.limits.audio_seconds, lambda: job.left)
            return service.transcriber.stream(limited, wanted.options, on_progress=service.metrics.progress())

        job = Job(opened, tell)
        service.engine.start(job)
        try:
            while True:
                happened = await told.get()
                if isinstance(happened, Exception):
                    raise told_of(happened)
                if isinstance(happened, Opened):
                    about["audio_seconds"] = round(happened.duration, 2)
                elif isinstance(happened, Transcript):
                    service.metrics.transcribed(happened)
                else:
                    about["windows"] += 1
                yield happened
                if isinstance(happened, Transcript):
                    return
        finally:
            job.left = True


async def _while_there(answering: Coroutine[Any, Any, None], receive: Receive) -> bool:
    """Answer, or end the work where the client leaves before that; whether it stayed."""
    answer = asyncio.ensure_future(answering)
    leaving = asyncio.ensure_future(_until_left(receive))
    try:
        await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return answer.done()
    finally:
        leaving.cancel()
        answer.cancel()  # without effect where it is done
        with suppress(asyncio.CancelledError):
            await answer


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stream(
    events: AsyncIterator[Event],
    duration: float,
    wanted: Asked,
    model: str,
    about: dict[str, Any],
    send: Send,
) -> None:
    """Send text as windows are decoded, and what all of it was in the end."""
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def put(fields: dict[str, Any]) -> None:
        await send({"type": "http.response.body", "body": event(fields), "more_body": True})

    text, new = Growing(), list[Segment]()
    try:
        async for happened in events:
            if isinstance(happened, list):
                new += happened
                if more := text.add("".join(segment.text for segment in happened)):
                    await put(delta(more, new, duration))
                    new = []
            if isinstance(happened, Transcript):
                await put(done(happened, wanted, model))
    except RequestError as error:
        about["code"] = error.code
        await put(error.to_dict())
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    noted(request.scope)["code"] = error.code or str(error.status)
    return error.response()


def _http_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refused = RequestError(error.status_code, str(error.detail), headers=error.headers or {})
    return _refusal(request, refused)


def _fault(_: Request, error: Exception) -> Response:
    return RequestError(500, "a fault of the server", code="fault").response()
