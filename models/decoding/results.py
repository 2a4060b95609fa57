"""What a transcription consists of: segments and, where asked for, their words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Segment", "Word"]


@dataclass(frozen=True)
class Word:
    """A word with its punctuation and leading space; `start` and `end` in seconds of the recording."""

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class Segment:
    """A stretch of speech that the model closed with a timestamp; its fields are those of openai-whisper's JSON.

    `seek` is the first 10 ms frame of the window that it was decoded from; `start` and `end` are seconds of the
    recording; `tokens` are of text and timestamps, and empty, like `text`, where the segment has no text or no length.
    Temperature, probabilities and compression ratio are those of the whole window. `words` is None unless word
    timestamps were asked for.
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
        """The segment as openai-whisper's JSON has it; `words` only where they were asked for."""
        fields = asdict(self) | {"tokens": list(self.tokens)}
        words = fields.pop("words")
        return fields if words is None else {**fields, "words": list(words)}
