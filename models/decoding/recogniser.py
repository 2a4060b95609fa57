"""A Whisper model made ready to decode: its weights, and the encoder and decoder that compute with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kernels.contract import HEAD_DIM
from models.attention import Attention
from models.compute import ComputeType, Context, resolve_compute_type
from models.decoder import Decoder
from models.openai import Tokenizer, get_tokenizer
from models.weights.building import Model
from models.weights.loading import WeightsError

__all__ = ["Recogniser", "decoder_of", "encoder_of"]

Encode: TypeAlias = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Recogniser:
    """What turns log-mel features into text; several can share weights and decoder.

    `encode` makes of float32 log-mel (B, n_mels, 3000) encoder states (B, 1500, n_audio_state); with the context `auto`
    also of fewer frames, in which short windows are decoded. `search`, with the arguments of
    `models.decoding.search.search`, may do in its place what several recordings have to decode.
    """

    weights: Model
    encode: Encode
    decoder: Decoder
    context: Context = "full"
    search: Callable[..., Any] | None = None

    def tokenizer(self, language: str | None = None, task: str = "transcribe") -> Tokenizer:
        """The model's tokenizer for a language, English unless given."""
        # With the arguments that whisper.decoding has, so that it finds this one in its cache.
        model = self.weights
        return get_tokenizer(
            model.is_multilingual, num_languages=model.num_languages, language=language or "en", task=task
        )


# What computes is imported where it is chosen: PyTorch takes 0.7 s and 180 MB.


def encoder_of(
    model: Model,
    attention: Attention,
    compute_type: ComputeType = "float32",
    threads: int | None = None,
    context: Context = "full",
) -> Encode:
    """A model's encoder in a compute type, but for integer attention.

    Args:
        model: whose encoder it is.
        attention: of its layers.
        compute_type: of everything else.
        threads: of OpenVINO; as many as there are processors unless given.
        context: `auto` for an encoder that takes fewer than 3000 frames as well.

    Raises:
        ValueError: there is no such compute type.
        models.weights.loading.WeightsError: the model's heads are not 64 wide.
    """
    for _, _, _, state, heads in model.dims.sides():
        if state != HEAD_DIM * heads:
            raise WeightsError(f"the model's heads are {state / heads:g} wide; Whisper's are {HEAD_DIM}")
    if resolve_compute_type(compute_type) == "float32":
        from models.encoder import Encoder

        return Encoder(model, attention, context)
    from models.graphs.encoder import GraphEncoder

    return GraphEncoder(model, attention, threads, context)


def decoder_of(
    model: Model,
    compute_type: ComputeType = "float32",
    threads: int | None = None,
    context: Context = "full",
) -> Decoder:
    """A model's decoder in a compute type; `threads` and `context` as in `encoder_of`.

    Raises:
        ValueError: there is no such compute type.
    """
    resolved = resolve_compute_type(compute_type)
    if resolved == "float32":
        from models.cached_decoder import CachedDecoder

        return CachedDecoder(model)
    from models.graphs.decoder import GraphDecoder

    return GraphDecoder(model, threads, context, int8=resolved == "int8")
