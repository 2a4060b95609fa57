"""The page at `/`: drop a recording on it or speak, read the text as it comes, hear it, take it away."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response
from starlette.routing import Route

from app.api import Transcriber
from app.output.page import transcript_script, transcript_style
from app.output.tables import DEVICES
from app.serving.limits import Limits
from models.openai import LANGUAGES

__all__ = ["PAGE", "page_routes"]

PAGE = ("/", "/page.css", "/page.js", "/microphone.js")
"""Paths that need no key: they say what is served, as /health does, and hold nobody's words."""

_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def page_routes(transcriber: Transcriber, model: str, limits: Limits, *, keyed: bool) -> list[Route]:
    """The page and what it consists of, made once.

    Args:
        transcriber: that is served.
        model: the name that it is served under.
        limits: of a request.
        keyed: whether a key has to be sent.
    """
    environment = Environment(
        loader=PackageLoader("app.serving"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    weights, attention = transcriber.weights.model, transcriber.attention
    known = list(LANGUAGES.items())[: weights.num_languages] if weights.is_multilingual else []
    page = environment.get_template("page.html.j2").render(
        model=model,
        transcriber=transcriber,
        attention=attention,
        device=DEVICES.get(attention.device, attention.device),
        languages=sorted((name, code) for code, name in known),
        limits=limits,
        keyed=keyed,
    )
    contents = (
        ("text/html", page),
        ("text/css", transcript_style() + _text("page.css")),
        ("text/javascript", transcript_script() + _text("live.js") + _text("page.js")),
        ("text/javascript", _text("microphone.js")),
    )
    return [
        Route(path, Response(text, media_type=kind, headers=_HEADERS), methods=["GET"])
        for path, (kind, text) in zip(PAGE, contents, strict=True)
    ]


def _text(name: str) -> str:
    return files("app.serving").joinpath("templates", name).read_text(encoding="utf-8")
