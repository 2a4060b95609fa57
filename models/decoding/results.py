"""What a transcription consists of: segments and, where asked for, their words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Segment", "Word"]


@dataclass(frozen=True)
class Word:
    """A word with its punctuation and leading space; `start` and `end` in seconds of the recording."""

    start: float
    end: float
    word: str
    probability: float

    def to_dict(self) -> dict[str, Any]:
        """The word as openai-whisper's JSON has it."""
        return {"word": self.word, "start": self.start, "end": self.end, "probability": self.probability}


@dataclass(frozen=True)
class Segment:
    """A stretch of speech that the model closed with a timestamp.

    seek : first 10 ms frame of the window that it was decoded from
    start, end : seconds of the recording
    tokens : text and timestamp tokens; empty, like `text`, where the segment has no text or no length
    temperature, avg_logprob, compression_ratio, no_speech_prob : of the whole window's decoding
    words : None unless word timestamps were asked for
    """

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The segment as openai-whisper's JSON has it; `words` only where there are any to report."""
        fields: dict[str, Any] = {
            "id": self.id,
            "seek": self.seek,
            "start": self.start,
            "end": self.end,
            "text": self.text,
            "tokens": list(self.tokens),
            "temperature": self.temperature,
            "avg_logprob": self.avg_logprob,
            "compression_ratio": self.compression_ratio,
            "no_speech_prob": self.no_speech_prob,
        }
        if self.words is not None:
            fields["words"] = [word.to_dict() for word in self.words]
        return fields
