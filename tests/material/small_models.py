"""Models that are made in a moment."""

from typing import Any

import torch
from whisper.model import ModelDimensions, Whisper

from models.compute import ComputeType
from models.decoding.recogniser import Recogniser, decoder_of


def small_random_model(n_vocab: int = 51864) -> Any:
    """A model of float32 weights, which float16 does not hold, unlike the published ones."""
    torch.manual_seed(0)
    model = Whisper(ModelDimensions(80, 1500, 128, 2, 1, n_vocab, 448, 128, 2, 2))
    torch.nn.init.normal_(model.decoder.positional_embedding)
    return model.eval().requires_grad_(False)


def recogniser_of(model: Whisper, compute_type: ComputeType = "float32") -> Recogniser:
    """A model with whisper's own encoder, and a decoder that computes in `compute_type`."""
    return Recogniser(model, torch.no_grad()(model.encoder), decoder_of(model, compute_type))
