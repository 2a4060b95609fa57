"""What tests do with OpenAI's realtime client."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from openai.resources.realtime.realtime import AsyncRealtimeConnection, RealtimeConnection
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

SERVED = TypeAdapter(RealtimeServerEvent)
TRANSCRIPTION = "conversation.item.input_audio_transcription"
INTENT = {"extra_query": {"intent": "transcription"}}
ITEM = ("input_audio_buffer.committed", "conversation.item.added", "conversation.item.done")


def asking(**of_input: Any) -> Any:
    """A session that asks for this."""
    return {"type": "transcription", "audio": {"input": of_input}}


def chunks(data: bytes, sizes: Iterable[int]) -> Iterable[str]:
    """Base64 of parts with these numbers of bytes, the last as long as the rest."""
    at = 0
    for size in sizes:
        yield base64.b64encode(data[at : at + size]).decode()
        at += size
    if at < len(data):
        yield base64.b64encode(data[at:]).decode()


def checked(event: Any) -> Any:
    """An event, which is as OpenAI's types have it; of a session they do not know all that can be asked for here."""
    if event.type != "session.updated":
        SERVED.validate_python(event.model_dump(exclude_unset=True))
    return event


def until(connection: RealtimeConnection, kind: str, count: int = 1) -> list[Any]:
    """Events up to this many that end so."""
    found: list[Any] = []
    while count:
        found.append(checked(connection.recv()))
        count -= found[-1].type.endswith(kind)
    return found


async def until_async(connection: AsyncRealtimeConnection, kind: str) -> list[Any]:
    """Events up to one that ends so."""
    found = [checked(await connection.recv())]
    while not found[-1].type.endswith(kind):
        found.append(checked(await connection.recv()))
    return found


def text_of(events: list[Any]) -> str:
    """All deltas, joined."""
    return "".join(event.delta for event in events if event.type == f"{TRANSCRIPTION}.delta")
