"""`tilescribe serve`: the OpenAI audio API on this machine."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option

from app.commands.options import (
    BackendName,
    ContextOption,
    DeviceOption,
    ModelOption,
    ThreadsOption,
    TileSizeOption,
    filled,
)
from app.configuration import Configuration
from app.console import LACKING, USAGE, edge, pass_on, say, stop
from app.machine import share_one_heap
from models.compute import ComputeType

_PACKAGES = ("starlette", "uvicorn", "websockets", "python_multipart", "prometheus_client")
_KEY = "TILESCRIBE_API_KEY"


def serve(
    context: typer.Context,
    host: Annotated[
        str, Option(help="Address to listen at; another than this machine's own needs a key.")
    ] = ("127.0.0.1"),
    port: Annotated[
        int, Option(min=0, max=65535, help="Port to listen at; 0 takes any that is free.")
    ] = 8000,
    api_key_file: Annotated[
        Path | None,
        Option(metavar="FILE", help=f"File that holds the key that clients send; so can ${_KEY}."),
    ] = None,
    max_requests: Annotated[
        int,
        Option(min=1, max=1024, help="How many requests are served at once; one more is told to come again."),
    ] = 32,
    batch_size: Annotated[
        int, Option(min=1, max=32, help="How many windows of different requests are decoded at once.")
    ] = 8,
    max_mib: Annotated[int, Option(min=1, max=4096, help="How large a request may be, in MiB.")] = 25,
    max_hours: Annotated[
        float, Option(min=0.001, max=1000, help="How many hours of audio a request may have.")
    ] = 4.0,
    grace: Annotated[
        int, Option(min=0, max=3600, help="How many seconds requests have to end in at SIGTERM.")
    ] = 30,
    log_format: Annotated[
        Literal["text", "json"],
        Option(help="How requests are told on standard error: a line each, never with words or file names."),
    ] = "text",
    model: ModelOption = Configuration.model,
    backend: Annotated[
        BackendName, Option(help="What computes the encoder's attention.")
    ] = Configuration.backend,
    device: DeviceOption = Configuration.device,
    tile_size: TileSizeOption = Configuration.tile_size,
    audio_context: ContextOption = Configuration.audio_context,
    compute_type: Annotated[
        ComputeType,
        Option(
            help="What all else is computed in; auto is the fastest here that leaves the word error rate as it is."
        ),
    ] = Configuration.compute_type,
    threads: ThreadsOption = None,
) -> None:
    """Serve the OpenAI audio API until SIGTERM or Ctrl-C: POST /v1/audio/transcriptions and what belongs to it."""
    with edge():
        configuration = filled(Configuration, context.params)
    if not all(map(find_spec, _PACKAGES)):
        stop("serve needs packages that are not here: pip install 'tilescribe[serve]'", LACKING)
    key = _key(api_key_file)
    with edge(place=f"{host}:{port}", others={OSError: LACKING}):
        listening = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
    address, port = listening.getsockname()[:2]
    local = ipaddress.ip_address(address).is_loopback
    if not local and key is None:
        stop(f"--host {host} is reached from elsewhere: set ${_KEY}, or give --api-key-file", USAGE)
    with edge("interrupted"), listening:
        share_one_heap()
        if log_format == "text":
            pass_on()
        import logging

        import uvicorn

        from app.api import Transcriber
        from app.serving.application import application
        from app.serving.engine import Engine
        from app.serving.limits import Limits
        from app.serving.realtime.sessions import WEBSOCKETS, Server, Sessions
        from app.serving.watching import LOG, write_lines

        write_lines(as_json=log_format == "json")
        transcriber = Transcriber.load(configuration)
        limits = Limits(max_mib << 20, max_hours * 3600, requests=max_requests)
        engine, sessions = Engine(batch_size), Sessions()
        url = f"http://{f'[{address}]' if ':' in address else address}:{port}"
        if log_format == "text":
            say(transcriber.description)
            say(f"listening on {url}")
        else:
            LOG.info("listening", extra={"fields": {"url": url, "ran": transcriber.description}})
        # What is wrong with a form is told to who sent it.
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
        # uvicorn ends at SIGTERM and then sends it again, to what handled it before: an orderly end is no failure.
        signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            made = application(transcriber, engine, limits, sessions, key=key, local=local)
            Server(
                uvicorn.Config(
                    made,
                    log_config=None,
                    access_log=False,
                    lifespan="off",
                    server_header=False,
                    timeout_graceful_shutdown=grace,
                    **WEBSOCKETS,
                ),
                sessions,
            ).run([listening])
        finally:
            engine.close()


def _key(file: Path | None) -> str | None:
    """The key that is asked for, from a file or the environment: on the command line every user could read it."""
    if file is None:
        return os.environ.get(_KEY) or None
    with edge(place=file, others={OSError: USAGE, UnicodeDecodeError: USAGE}):
        key = file.read_text().strip()
    if not key:
        stop(f"{file}: holds no key", USAGE)
    return key
