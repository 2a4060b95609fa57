"""What a client of a session sends, checked: what is not known here is refused by name, not passed over."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from app.live.transcriber import LiveOptions
from app.serving.errors import RequestError, not_served
from app.serving.realtime.sound import FORMATS
from models.decoding.options import DecodeOptions, OptionsError, language_code

__all__ = [
    "PARTIAL",
    "Append",
    "Asked",
    "Clear",
    "Client",
    "Commit",
    "Update",
    "asked",
    "decoded",
    "initial",
    "merged",
    "parsed",
]

PARTIAL = "tilescribe.partial"
"""Our own of `include`: text that may still change, with each delta."""

_LIVE = LiveOptions()
_PLACE = re.compile(r" - at `\$\.?(.*)`$")


class _Object(msgspec.Struct, forbid_unknown_fields=True):
    """JSON whose fields are all known."""


class Client(_Object):
    """An event of a client; it may name it, so that it knows what an error is about."""

    type: str
    event_id: str | None = None


class Append(Client, kw_only=True):
    """More sound."""

    audio: str

    def sound(self, size: int) -> bytes:
        """The bytes of whole samples of this size.

        Raises:
            RequestError: they are none.
        """
        try:
            data = base64.b64decode(self.audio, validate=True)
        except ValueError as error:
            raise _refused("audio", "audio is not base64") from error
        if len(data) % size:
            raise _refused("audio", f"audio ends within a sample, of {size} bytes")
        return data


class Commit(Client):
    """What was heard is an item of its own."""


class Clear(Client):
    """What was heard and is no item yet is to be forgotten."""


class Update(Client, kw_only=True):
    """What is to be changed of the session."""

    session: dict[str, Any]


_EVENTS: Mapping[str, type[Client]] = {
    "session.update": Update,
    "input_audio_buffer.append": Append,
    "input_audio_buffer.commit": Commit,
    "input_audio_buffer.clear": Clear,
}


class _Format(_Object):
    type: str = "audio/pcm"
    rate: int | None = None

    def __post_init__(self) -> None:
        if self.type not in FORMATS:
            raise ValueError(f"type {self.type[:64]!r} is not supported; choose from {', '.join(FORMATS)}")
        known = FORMATS[self.type].rates
        self.rate = FORMATS[self.type].rate if self.rate is None else self.rate
        if self.rate not in known:
            raise ValueError(f"rate {self.rate} is not supported; {known.start} to {known[-1]} Hz are")


class _Transcription(_Object):
    model: str
    language: str | None = None
    prompt: Annotated[str, Meta(max_length=1 << 16)] | None = None


class _TurnDetection(_Object):
    type: str
    threshold: Annotated[float, Meta(gt=0, lt=1)] = _LIVE.threshold
    prefix_padding_ms: Annotated[int, Meta(ge=0, le=5000)] = round(1000 * _LIVE.before)
    silence_duration_ms: Annotated[int, Meta(ge=100, le=5000)] = round(1000 * _LIVE.silence)

    def __post_init__(self) -> None:
        if self.type != "server_vad":
            raise ValueError(f"type {self.type[:64]!r} is not supported; server_vad is, or null for no turns")


class _Input(_Object):
    transcription: _Transcription
    format: _Format = msgspec.field(default_factory=_Format)
    noise_reduction: None = None
    turn_detection: _TurnDetection | None = msgspec.field(
        default_factory=lambda: _TurnDetection(type="server_vad")
    )


class _Audio(_Object):
    input: _Input


class _Session(_Object):
    audio: _Audio
    type: str = "transcription"
    include: list[str] = []

    def __post_init__(self) -> None:
        if self.type != "transcription":
            raise ValueError(f"type {self.type[:64]!r} is not supported: sessions here are for transcription")
        for name in self.include:
            if name != PARTIAL:
                raise ValueError(f"include {name[:64]!r} is not supported; {PARTIAL} is")


@dataclass(frozen=True)
class Asked:
    """How a session is to be.

    Attributes:
        session: all of it, as JSON.
        format: of its sound, one of FORMATS, at `rate`.
        options: how its words are decoded.
        live: and when.
        detected: whether turns are detected, else the client commits them.
        partial: whether text is asked for that may still change.
    """

    session: dict[str, Any]
    format: str
    rate: int
    options: DecodeOptions
    live: LiveOptions
    detected: bool
    partial: bool


def initial(model: str) -> dict[str, Any]:
    """A session of which nothing has been asked for."""
    return {"type": "transcription", "audio": {"input": {"transcription": {"model": model}}}}


def decoded(text: str) -> dict[str, Any]:
    """A client's event as JSON.

    Raises:
        RequestError: it is none.
    """
    try:
        raw = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _refused(None, "the event is not JSON", "invalid_json") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("type"), str):
        raise _refused("type", "an event is an object with a type", "missing_required_parameter")
    return raw


def parsed(raw: Mapping[str, Any]) -> Client:
    """What `decoded` gave, checked.

    Raises:
        RequestError: an event or a field is not known.
    """
    kind = raw["type"]
    if kind not in _EVENTS:
        raise _refused("type", f"unknown event {kind[:64]!r}; known are {', '.join(_EVENTS)}")
    event: Client = _converted(raw, _EVENTS[kind], "")
    return event


def asked(session: Mapping[str, Any], names: tuple[str, ...], weights: Any) -> Asked:
    """Check what a session is to be.

    Args:
        session: all of it.
        names: that the model answers to.
        weights: the model.

    Raises:
        RequestError: a field or a value is not known.
    """
    whole = _converted(session, _Session, "session")
    of_input = whole.audio.input
    turns, wanted = of_input.turn_detection, of_input.transcription
    at = "session.audio.input.transcription"
    if wanted.model not in names:
        raise not_served(wanted.model, names, f"{at}.model", 400)
    try:
        language = wanted.language and language_code(wanted.language)
        options = DecodeOptions(language=language or None, initial_prompt=wanted.prompt or None)
        options = options.for_model(weights)
    except OptionsError as error:
        raise _refused(f"{at}.language", str(error)[:200]) from error
    live = LiveOptions()
    if turns is not None:
        live = LiveOptions(
            threshold=turns.threshold,
            before=turns.prefix_padding_ms / 1000,
            silence=turns.silence_duration_ms / 1000,
        )
    assert of_input.format.rate is not None
    return Asked(
        session=msgspec.to_builtins(whole),
        format=of_input.format.type,
        rate=of_input.format.rate,
        options=options,
        live=live,
        detected=turns is not None,
        partial=PARTIAL in whole.include,
    )


def merged(session: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A session in which what is given is changed, field by field; what is of another `type` is new."""
    found = dict(session)
    for name, value in changes.items():
        before = session.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            alike = value.get("type", before.get("type")) == before.get("type")
            value = merged(before, value) if alike else value
        found[name] = value
    return found


def _converted(raw: Any, kind: Any, at: str) -> Any:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        problem = str(error)
        place = _PLACE.search(problem)
        problem = _PLACE.sub("", problem)
        path = ".".join(part for part in (at, place[1] if place else "") if part)
        field = re.search(r"field `(.*)`", problem)
        unknown, missing = "unknown field" in problem, "missing required field" in problem
        if field and (unknown or missing):
            path = ".".join(part for part in (path, field[1][:64]) if part)
            problem = f"unknown field {path!r}" if unknown else f"{path} is missing"
        code = (
            "unknown_parameter" if unknown else "missing_required_parameter" if missing else "invalid_value"
        )
        raise _refused(path or None, problem if unknown or missing else f"{path}: {problem}", code) from error


def _refused(param: str | None, message: str, code: str = "invalid_value") -> RequestError:
    return RequestError(400, message, code=code, param=param)
