"""A Whisper model made ready to decode: its weights, and the encoder and decoder that compute with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

from torch import Tensor
from whisper.model import ModelDimensions, Whisper
from whisper.tokenizer import Tokenizer, get_tokenizer

from models.compute import ComputeType, resolve_compute_type
from models.decoder import CachedDecoder, TextCache
from models.int8_decoder import Int8Decoder

__all__ = ["Decoder", "Memory", "Recogniser", "decoder_of"]


class Memory(Protocol):
    """Keys and values of a batch of windows, as the decoder that made them reads them."""

    def __len__(self) -> int:
        """How many windows these are."""
        ...

    def select(self, indices: list[int]) -> Self:
        """The windows at `indices`, in that order."""
        ...


class Decoder(Protocol):
    """A decoder: `CachedDecoder`, which says what the methods do, or `Int8Decoder`."""

    n_layer: int
    n_head: int
    d_head: int

    def attend_to(self, states: Tensor) -> Any:
        """The memory of encoder states."""
        ...

    def prefill(self, tokens: Tensor, memory: Any, cache: TextCache, positions: list[int]) -> Tensor:
        """Logits of a prompt."""
        ...

    def step(self, tokens: Tensor, memory: Any, cache: TextCache, active: Tensor | None = None) -> Tensor:
        """Logits of one more token of every sequence."""
        ...


@dataclass(frozen=True)
class Recogniser:
    """What turns log-mel features into text; several can share weights and decoder.

    Attributes:
        weights: of the model, float32 on the CPU.
        encode: float32 log-mel (B, n_mels, 3000) -> encoder states (B, 1500, n_audio_state).
        decoder: of the states.
    """

    weights: Whisper
    encode: Callable[[Tensor], Tensor]
    decoder: Decoder

    @property
    def dims(self) -> ModelDimensions:
        """The model's dimensions."""
        return self.weights.dims

    @property
    def is_multilingual(self) -> bool:
        """Whether the model knows other languages than English."""
        return bool(self.weights.is_multilingual)

    @property
    def num_languages(self) -> int:
        """How many languages the model knows."""
        return int(self.weights.num_languages)

    def tokenizer(self, language: str | None = None, task: str = "transcribe") -> Tokenizer:
        """The model's tokenizer for a language, English unless given."""
        # With the arguments that whisper.decoding has, so that it finds this one in its cache.
        return get_tokenizer(
            self.is_multilingual, num_languages=self.num_languages, language=language or "en", task=task
        )


def decoder_of(weights: Any, compute_type: ComputeType = "float32") -> Decoder:
    """A decoder that computes in a compute type.

    `float32` gives a `CachedDecoder`; everything else an `Int8Decoder` where the processor has instructions for
    it, `bfloat16` too: a step's time is that of reading the weights, and bfloat16's are twice the bytes.

    Args:
        weights: a `whisper.model.Whisper`.
        compute_type: of its products.

    Raises:
        ValueError: there is no such compute type.
    """
    in_int8 = resolve_compute_type(compute_type) != "float32" and resolve_compute_type("int8") == "int8"
    return Int8Decoder(weights) if in_int8 else CachedDecoder(weights)
