"""Models that are made in a moment, and recognisers of them."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from whisper.model import ModelDimensions, Whisper

from kernels.arrays import Reals
from models.compute import ComputeType
from models.decoding.recogniser import Recogniser, decoder_of
from models.weights.building import Dimensions, Model


def model_of(whisper: Whisper) -> Model:
    """The same model as it is loaded."""
    tensors = {
        name: tensor.numpy() for name, tensor in whisper.eval().requires_grad_(False).state_dict().items()
    }
    return Model(Dimensions(**asdict(whisper.dims)), tensors)


def small_random_model(n_vocab: int = 51864) -> Model:
    """A model of float32 weights, which float16 does not hold, unlike the published ones."""
    torch.manual_seed(0)
    model = Whisper(ModelDimensions(80, 1500, 128, 2, 1, n_vocab, 448, 128, 2, 2))
    torch.nn.init.normal_(model.decoder.positional_embedding)
    return model_of(model)


def steep_model(n_mels: int) -> Model:
    """3 heads, 2 layers and windows of 4 s; its attention is steep, unlike that of fresh weights."""
    torch.manual_seed(0)
    model = Whisper(ModelDimensions(n_mels, 200, 192, 3, 2, 51864, 448, 192, 3, 2))
    for block in model.encoder.blocks:
        block.attn.query.weight.data *= 8
    torch.nn.init.normal_(model.decoder.positional_embedding)
    return model_of(model)


def recogniser_of(model: Model, compute_type: ComputeType = "float32") -> Recogniser:
    """A model with whisper's own encoder, and a decoder that computes in `compute_type`."""

    @torch.no_grad()
    def encode(mel: Any) -> Any:
        return model.whisper.encoder(torch.from_numpy(mel)).numpy()

    return Recogniser(model, encode, decoder_of(model, compute_type))


def terse(recogniser: Recogniser) -> Recogniser:
    """The same, whose texts have up to 64 tokens: noise is read to the last of them."""
    model = recogniser.weights
    return replace(recogniser, weights=replace(model, dims=replace(model.dims, n_text_ctx=128)))


def once_a_window(recogniser: Recogniser) -> Recogniser:
    """The same, which encodes no window a second time."""
    encode, known = recogniser.encode, dict[int, Reals]()

    def encoded(mel: Reals) -> Reals:
        window = hash((mel.shape, mel.tobytes()))
        if window not in known:
            known[window] = encode(mel)
        return known[window]

    return replace(recogniser, encode=encoded)


def write_terse_model(path: Path, words: int = 6) -> Path:
    """A checkpoint of so small a model, whose transcripts are a few words at random that depend on the recording."""
    model = small_random_model().whisper
    model.encoder.conv2.weight.mul_(1000)
    attention, end = model.decoder.blocks[0].cross_attn, model.decoder.token_embedding.weight[50256]
    attention.query.weight.mul_(10)
    attention.out.weight.mul_(1000)
    model.decoder.positional_embedding[words + 2 :] = 1000 * end
    torch.save({"dims": asdict(model.dims), "model_state_dict": model.state_dict()}, path)
    return path
