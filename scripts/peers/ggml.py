"""Tilescribe's weights as the file that whisper.cpp reads (the layout of its own models/convert-pt-to-ggml.py)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from whisper.tokenizer import get_encoding

from models.openai import asset
from models.weights import loading as weights

HALF, BRAIN = (1, 1), (24, 30)
"""ggml's numbers of a file and of a tensor, in float16 and in bfloat16."""


def write_ggml(name: str, path: Path, bfloat16: bool) -> None:
    """Write a model; weights are float16, or bfloat16 where the processor multiplies that itself."""
    model = weights.load(name).model
    dims, (file_type, tensor_type) = model.dims, BRAIN if bfloat16 else HALF
    encoding = get_encoding("multilingual" if model.is_multilingual else "gpt2", num_languages=99)
    ranks = encoding._mergeable_ranks
    with np.load(asset("mel_filters.npz")) as filters:
        mel = filters[f"mel_{dims.n_mels}"].astype(np.float32)
    sizes = (
        *(dims.n_vocab, dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer),
        *(dims.n_text_ctx, dims.n_text_state, dims.n_text_head, dims.n_text_layer, dims.n_mels, file_type),
    )
    with open(path, "wb") as file:
        file.write(struct.pack("<12i2i", 0x67676D6C, *sizes, *mel.shape) + mel.tobytes())
        file.write(struct.pack("<i", len(ranks)))
        for token in sorted(ranks, key=ranks.__getitem__):
            file.write(struct.pack("<i", len(token)) + token)
        for tensor, values in model.tensors.items():
            data = values.astype(np.float32)
            if tensor in ("encoder.conv1.bias", "encoder.conv2.bias"):
                data = data[:, None]
            kind = 0 if data.shape[-1] == 1 or data.ndim < 2 or "positional" in tensor else tensor_type
            if kind == 1 or (kind and ".conv" in tensor):
                data, kind = data.astype(np.float16), 1
            elif kind:
                bits = data.view(np.uint32)
                data = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
            label = tensor.encode()
            file.write(struct.pack("<3i", data.ndim, len(label), kind))
            file.write(struct.pack(f"<{data.ndim}i", *data.shape[::-1]) + label + data.tobytes())
