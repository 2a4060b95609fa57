"""Transcripts as the API's clients read them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from app.output.writers import render
from app.serving.fields import Asked
from app.transcript import Transcript
from models.decoding.segments import Segment
from models.openai import LANGUAGES

__all__ = ["Growing", "answer", "delta", "done", "event"]


class Growing:
    """A text that comes bit by bit.

    Attributes:
        text: what has come, without the space at either end.
    """

    def __init__(self) -> None:
        self._all = self.text = ""

    def add(self, more: str) -> str:
        """Take more of it; returns what that adds to `text`."""
        self._all += more
        known, self.text = len(self.text), self._all.strip()
        return self.text[known:]


def answer(transcript: Transcript, asked: Asked, model: str) -> Response:
    """A whole transcript, in the form that was asked for; `model` is the name that it is served under."""
    if asked.form == "text":
        return PlainTextResponse(transcript.text + "\n")
    if asked.form in ("srt", "vtt"):
        return PlainTextResponse(render(transcript, "srt" if asked.form == "srt" else "vtt"))
    found: dict[str, Any] = {"text": transcript.text, "usage": _usage(transcript)}
    if asked.form == "verbose_json":
        found |= _verbose(transcript, asked, model)
    return JSONResponse(found)


def _verbose(transcript: Transcript, asked: Asked, model: str) -> dict[str, Any]:
    found = {
        "task": asked.options.task,
        "language": LANGUAGES[transcript.language],
        "duration": transcript.duration,
        "tilescribe": _ran(transcript, model),
    }
    if "segment" in asked.granularities:
        segments = [segment.to_dict() for segment in transcript.segments]
        found["segments"] = [{k: v for k, v in segment.items() if k != "words"} for segment in segments]
    if "word" in asked.granularities:
        words = (word for segment in transcript.segments for word in segment.words or ())
        found["words"] = [{"word": w.word.strip(), "start": w.start, "end": w.end} for w in words]
    return found


def delta(text: str, segments: Sequence[Segment], duration: float) -> dict[str, Any]:
    """More text of a stream; under `tilescribe` the segments that it is from with their times, and how long all is."""
    timed = [{"start": one.start, "end": one.end, "text": one.text} for one in segments]
    own = {"duration": duration, "segments": timed}
    return {"type": "transcript.text.delta", "delta": text, "tilescribe": own}


def done(transcript: Transcript, asked: Asked, model: str) -> dict[str, Any]:
    """The end of a stream; under `tilescribe` what ran, and files as `transcribe` writes them, where asked for."""
    own = _ran(transcript, model) | {"language": transcript.language}
    if asked.files:
        own["files"] = {form: render(transcript, form) for form in asked.files}
    text = {"text": transcript.text, "usage": _usage(transcript)}
    return {"type": "transcript.text.done", **text, "tilescribe": own}


def _ran(transcript: Transcript, model: str) -> dict[str, Any]:
    return {**transcript.to_dict()["tilescribe"], "model": model}


def _usage(transcript: Transcript) -> dict[str, Any]:
    """What a request is counted by: whole seconds of audio."""
    return {"type": "duration", "seconds": math.ceil(transcript.duration)}


def event(fields: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return f"data: {json.dumps(fields, ensure_ascii=False)}\n\n".encode()
