"""What becomes of a session's sound: events for its client, with text that is never taken back."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from app.api import Transcriber
from app.live.transcriber import LiveText, LiveTranscriber
from app.serving.answers import Growing
from app.serving.errors import RequestError
from app.serving.realtime.events import Asked
from app.serving.realtime.sound import Decoded
from kernels.arrays import Reals
from models.features import SAMPLE_RATE

__all__ = ["Event", "Session", "failure"]

Event: TypeAlias = dict[str, Any]

_TRANSCRIPTION = "conversation.item.input_audio_transcription"
_SHORTEST = 0.1  # seconds of an item
_HURRY = 1.0  # seconds of sound at once, of which then the last step alone is decoded


def event(kind: str, **fields: Any) -> Event:
    """An event for a client."""
    return {"type": kind, "event_id": _name("event"), **fields}


def failure(error: RequestError, event_id: str | None = None) -> Event:
    """What a client is told of an error, which has named the event that it is about."""
    return event("error", error=error.to_dict()["error"] | {"event_id": event_id})


def _name(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(12)}"


@dataclass
class _Item:
    """What was said in a turn, or up to a commit.

    Attributes:
        began: seconds of the stream.
        text: that is final.
    """

    id: str
    began: float
    text: Growing = field(default_factory=Growing)
    partial: str = ""


class Session:
    """One client's stream; a thread at a time may use it.

    Attributes:
        id: of the session.
        seconds: of sound that it has heard.
        items: how many it has completed.
    """

    def __init__(
        self, transcriber: Transcriber, asked: Asked, turn: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Begin with nothing heard.

        Args:
            transcriber: that several sessions share.
            asked: how it is to be.
            turn: in which this one computes.
        """
        self.id, self.seconds, self.items = _name("sess"), 0.0, 0
        self._transcriber, self._turn = transcriber, turn
        self._asked = asked
        self._sound = Decoded(asked.format, asked.rate)
        self._live: LiveTranscriber | None = None
        self._item: _Item | None = None
        self._before: str | None = None
        self._committed = 0.0
        self._committing = False
        self._failure: RequestError | None = None

    def described(self, kind: str) -> Event:
        """`session.created` or `session.updated`, with all of it."""
        about = {"id": self.id, "object": "realtime.transcription_session"}
        return event(kind, session=about | self._asked.session)

    def change(self, asked: Asked) -> list[Event]:
        """Go on as is asked now; an item is completed where turns begin, or end, to be detected."""
        events: list[Event] = []
        if (asked.format, asked.rate) != (self._sound.name, self._sound.rate):
            events += self._push(self._sound.end())
            self._sound = Decoded(asked.format, asked.rate)
        if asked.detected != self._asked.detected:
            events += self.end()
        self._asked = asked
        if self._live is not None:
            self._live.change(asked.options, asked.live)
        return [*events, self.described("session.updated")]

    def hear(self, data: bytes) -> list[Event]:
        """Take whole samples of the session's format."""
        return self._push(self._sound.take(data))

    def commit(self, event_id: str | None = None) -> list[Event]:
        """Make what was heard since the last item an item of its own; an error where that is nothing."""
        self._committing = True
        events = self._push(self._sound.end())
        if self.seconds - self._committed < _SHORTEST:
            message = f"less than {_SHORTEST:g} s was heard since the last item"
            error = RequestError(400, message, code="input_audio_buffer_commit_empty")
            self._committing = False
            return [*events, failure(error, event_id)]
        if self._live is not None:
            events += self._told(self._live.commit(), turns=False)
        return events + self._completed(self.seconds)

    def clear(self) -> list[Event]:
        """Forget what is no item yet."""
        self._sound.end()
        if self._live is not None:
            self._live.clear()
        self._item, self._committed, self._failure = None, self.seconds, None
        return [event("input_audio_buffer.cleared")]

    def end(self) -> list[Event]:
        """Complete what has begun; nothing where nothing has."""
        events = self._push(self._sound.end())
        if self._live is not None:
            events += self._told(self._live.commit(), turns=self._asked.detected)
        return (
            events if self._item is None and self._failure is None else events + self._completed(self.seconds)
        )

    def failed(self, error: RequestError, *, last: bool = False) -> list[Event]:
        """Give up the item that has begun, for an error in decoding it.

        Its client is told when it would have been told that the item is complete; at once where nothing else comes.
        """
        self._sound.end()
        if self._live is not None:
            self._live.clear()
        self._failure = error
        return self._completed(self.seconds) if self._asked.detected or self._committing or last else []

    def _push(self, samples: Reals) -> list[Event]:
        self.seconds += len(samples) / SAMPLE_RATE
        if not len(samples):
            return []
        if self._live is None:
            with self._turn():  # the first session of all makes the decoder
                self._live = self._transcriber.live(self._asked.options, self._asked.live, self._turn)
        told = self._live.push(samples, hurry=len(samples) > _HURRY * SAMPLE_RATE)
        return self._told(told, turns=self._asked.detected)

    def _told(self, told: Iterable[LiveText], *, turns: bool) -> list[Event]:
        events: list[Event] = []
        for text in told:
            item = self._item
            if item is None:
                item = self._item = _Item(_name("item"), text.began if turns else self._committed)
                if turns:
                    at = round(1000 * text.began)
                    kind = "input_audio_buffer.speech_started"
                    events.append(event(kind, audio_start_ms=at, item_id=item.id))
            events += self._delta(item, text)
            if text.closed and turns:
                at = round(1000 * text.heard)
                kind = "input_audio_buffer.speech_stopped"
                events.append(event(kind, audio_end_ms=at, item_id=item.id))
                events += self._completed(text.heard)
        return events

    def _delta(self, item: _Item, text: LiveText) -> list[Event]:
        """What is new of an item's text; with it words and times, and what may still change where that is asked for."""
        new = item.text.add("".join(word.word for word in text.words))
        about: dict[str, Any] = {
            "words": [{"word": w.word, "start": w.start, "end": w.end} for w in text.words],
            "language": text.language,
        }
        changed = self._asked.partial and text.partial != item.partial
        if self._asked.partial:
            about["partial"] = item.partial = text.partial
        if not new and not changed:
            return []
        told = {"item_id": item.id, "content_index": 0, "delta": new, "tilescribe": about}
        return [event(f"{_TRANSCRIPTION}.delta", **told)]

    def _completed(self, until: float) -> list[Event]:
        """An item with all that was heard until then, the text of which is final."""
        item = self._item or _Item(_name("item"), self._committed)
        before, self._before, self._item = self._before, item.id, None
        seconds, self._committed = until - item.began, until
        self.items += 1
        message = {
            "id": item.id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        failure, self._failure, self._committing = self._failure, None, False
        if failure is None:
            usage = {"type": "duration", "seconds": round(seconds, 2)}
            what, about = "completed", {"transcript": item.text.text, "usage": usage}
        else:
            what, about = "failed", {"error": failure.to_dict()["error"]}
        return [
            event("input_audio_buffer.committed", item_id=item.id, previous_item_id=before),
            event("conversation.item.added", item=message, previous_item_id=before),
            event("conversation.item.done", item=message, previous_item_id=before),
            event(f"{_TRANSCRIPTION}.{what}", item_id=item.id, content_index=0, **about),
        ]
