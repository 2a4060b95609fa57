"""A Whisper model made ready to decode: its weights, and the encoder and decoder that compute with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from whisper.model import Whisper
from whisper.tokenizer import Tokenizer, get_tokenizer

from models.attention import Attention
from models.compute import ComputeType, resolve_compute_type
from models.decoder import CachedDecoder, Decoder
from models.encoder import Encoder
from models.graphs.decoder import GraphDecoder
from models.graphs.encoder import GraphEncoder

__all__ = ["Recogniser", "decoder_of", "encoder_of"]


@dataclass(frozen=True)
class Recogniser:
    """What turns log-mel features into text; several can share weights, float32 on the CPU, and decoder.

    `encode` makes of float32 log-mel (B, n_mels, 3000) encoder states (B, 1500, n_audio_state).
    """

    weights: Whisper
    encode: Callable[[Tensor], Tensor]
    decoder: Decoder

    def tokenizer(self, language: str | None = None, task: str = "transcribe") -> Tokenizer:
        """The model's tokenizer for a language, English unless given."""
        # With the arguments that whisper.decoding has, so that it finds this one in its cache.
        model = self.weights
        return get_tokenizer(
            model.is_multilingual, num_languages=model.num_languages, language=language or "en", task=task
        )


def encoder_of(
    weights: Any, attention: Attention, compute_type: ComputeType = "float32"
) -> Callable[[Tensor], Tensor]:
    """The encoder of a `whisper.model.Whisper` in a compute type, but for integer attention.

    Raises:
        ValueError: there is no such compute type, or the model's heads are not 64 wide.
    """
    if resolve_compute_type(compute_type) == "float32":
        return Encoder(weights, attention)
    return GraphEncoder(weights, attention)


def decoder_of(weights: Any, compute_type: ComputeType = "float32") -> Decoder:
    """The decoder of a `whisper.model.Whisper` in a compute type.

    Raises:
        ValueError: there is no such compute type.
    """
    resolved = resolve_compute_type(compute_type)
    return CachedDecoder(weights) if resolved == "float32" else GraphDecoder(weights, int8=resolved == "int8")
