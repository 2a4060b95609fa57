"""A server of the tests, in a thread of theirs."""

from __future__ import annotations

import io
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import openai
import uvicorn

from app import SegmentStream, Transcriber
from app.serving.application import application
from app.serving.engine import Engine, Job
from app.serving.limits import Limits
from app.serving.realtime.sessions import WEBSOCKETS, Server, Sessions

_USUAL = Limits()


@dataclass
class Served:
    """Attributes: jobs: all that the engine was given."""

    url: str
    engine: Engine
    jobs: list[Job]
    server: Server
    sessions: Sessions

    def client(self, **how: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", **{"api_key": "none", "max_retries": 0, **how})


@contextmanager
def serving(
    transcriber: Transcriber,
    limits: Limits = _USUAL,
    *,
    key: str | None = None,
    local: bool = True,
    gate: threading.Semaphore | None = None,
    at_once: int = 8,
) -> Iterator[Served]:
    """Serve; with a `gate` each window is decoded once that lets it through."""
    engine, jobs = Engine(at_once), []
    start = engine.start

    def noted(job: Job) -> None:
        jobs.append(job)
        if gate is not None:
            job.opened = partial(gated, job.opened)
        start(job)

    def gated(opened: Callable[[Job], SegmentStream], job: Job) -> SegmentStream:
        stream = opened(job)
        decode = stream.next_window
        stream.next_window = lambda: gate.acquire() and decode()  # type: ignore[method-assign]
        return stream

    engine.start = noted  # type: ignore[method-assign]
    sessions = Sessions()
    made = application(transcriber, engine, limits, sessions, key=key, local=local)
    config = uvicorn.Config(
        made,
        port=0,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=5,
        **WEBSOCKETS,
    )
    server = Server(config, sessions)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Served(f"http://127.0.0.1:{port}", engine, jobs, server, sessions)
    finally:
        server.should_exit = True
        thread.join()
        engine.close()


def until(holds: Any) -> None:
    """Wait until it does; as long as it takes."""
    while not holds():
        time.sleep(0.01)


def wave_file(samples: Any) -> bytes:
    """A WAVE file of mono float samples at 16 kHz."""
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(16000)
        written.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()
