"""When each word of a window was said: the timing of `whisper.timing`, on states that are encoded already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from whisper.timing import add_word_timestamps
from whisper.tokenizer import Tokenizer

from models.decoding.options import DecodeOptions
from models.decoding.recogniser import Recogniser
from models.decoding.results import Segment, Word
from models.decoding.windows import Window

__all__ = ["last_word_end", "with_words"]


class _Encoded:
    """A model whose audio is encoded already, as `whisper.timing.find_alignment` calls it."""

    def __init__(self, weights: Any) -> None:
        self.dims = weights.dims
        self.device = weights.device
        self.decoder = weights.decoder
        self.alignment_heads = weights.alignment_heads

    def __call__(self, states: Tensor, tokens: Tensor) -> Tensor:
        logits: Tensor = self.decoder(tokens, states)
        return logits


def with_words(
    segments: Sequence[Segment],
    window: Window,
    states: Tensor,
    recogniser: Recogniser,
    tokenizer: Tokenizer,
    options: DecodeOptions,
    spoken_until: float,
) -> list[Segment]:
    """Find the words of a window's segments, which then start and end with them.

    Args:
        segments: of the window.
        window: that they were decoded from.
        states: of its encoder, float32, shape (n_audio_ctx, n_audio_state).
        recogniser: that decoded them.
        tokenizer: that they were decoded with.
        options: whose punctuation goes to the words beside it.
        spoken_until: when the last word before the window ended, in seconds.
    """
    # whisper edits dictionaries in place.
    timed: list[dict[str, Any]] = [
        {"seek": s.seek, "start": s.start, "end": s.end, "tokens": s.tokens, "words": []} for s in segments
    ]
    add_word_timestamps(
        segments=timed,
        model=_Encoded(recogniser.weights),
        tokenizer=tokenizer,
        mel=states,
        num_frames=window.size,
        prepend_punctuations=options.prepend_punctuations,
        append_punctuations=options.append_punctuations,
        last_speech_timestamp=spoken_until,
    )
    return [
        replace(
            segment,
            start=float(found["start"]),
            end=float(found["end"]),
            words=tuple(
                Word(w["word"], float(w["start"]), float(w["end"]), float(w["probability"]))
                for w in found["words"]
            ),
        )
        for segment, found in zip(segments, timed, strict=True)
    ]


def last_word_end(segments: Sequence[Segment]) -> float | None:
    """When the last word ended, or the last segment where none has a word; None where there are no segments."""
    ends = (segment.words[-1].end for segment in reversed(segments) if segment.words)
    return next(ends, segments[-1].end if segments else None)
