"""Small models of random weights, and the files and wheels that they come in."""

import base64
import gzip
import hashlib
import io
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

from models.weights.loading import WeightsError, load

DIMS = ModelDimensions(80, 12, 8, 2, 1, 11, 6, 8, 4, 2)
SMALL = ModelDimensions(80, 1500, 4, 2, 1, 51864, 6, 4, 2, 2)
"""The sizes that Whisper's features and tokenizers fix, and as little as possible of everything else."""
HEADS = base64.b85encode(gzip.compress(np.array([[0, 1], [0, 0]], dtype=bool).tobytes()))
"""Of `SMALL`, as `whisper._ALIGNMENT_HEADS` has them."""
DTYPE_IDS = {
    torch.float32: 0,
    torch.int8: 1,
    torch.int16: 2,
    torch.int32: 3,
    torch.float16: 4,
    torch.bfloat16: 5,
}
Arrays = dict[str, Tensor]
PROJECTION = ("decoder/projection/weight", "decoder/embeddings/weight")


def random_whisper(dims: ModelDimensions = DIMS, seed: int = 1) -> Whisper:
    """A model whose every parameter, the norms' included, is random."""
    generator = torch.Generator().manual_seed(seed)
    model = Whisper(dims).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(generator=generator)
    return model


def arrays_of(model: Whisper, dtype: torch.dtype = torch.float32) -> Arrays:
    """The arrays of CTranslate2's WhisperSpec, written out from its converter rather than from the reader."""
    state = model.state_dict()
    arrays: Arrays = {}

    def norm(target: str, name: str) -> None:
        arrays[f"{target}/gamma"] = state[f"{name}.weight"]
        arrays[f"{target}/beta"] = state[f"{name}.bias"]

    def linear(target: str, *names: str) -> None:
        arrays[f"{target}/weight"] = torch.cat([state[f"{name}.weight"] for name in names])
        biases = [
            state.get(f"{name}.bias", torch.zeros(len(state[f"{name}.weight"])))  # the key's
            for name in names
        ]
        arrays[f"{target}/bias"] = torch.cat(biases)

    for conv in ("conv1", "conv2"):
        arrays[f"encoder/{conv}/weight"] = state[f"encoder.{conv}.weight"]
        arrays[f"encoder/{conv}/bias"] = state[f"encoder.{conv}.bias"]
    arrays["encoder/position_encodings/encodings"] = state["encoder.positional_embedding"]
    arrays["decoder/position_encodings/encodings"] = state["decoder.positional_embedding"]
    arrays["decoder/embeddings/weight"] = state["decoder.token_embedding.weight"]
    norm("encoder/layer_norm", "encoder.ln_post")
    norm("decoder/layer_norm", "decoder.ln")
    for side, layers in (("encoder", model.dims.n_audio_layer), ("decoder", model.dims.n_text_layer)):
        for i in range(layers):
            a, b = f"{side}/layer_{i}", f"{side}.blocks.{i}"
            norm(f"{a}/self_attention/layer_norm", f"{b}.attn_ln")
            linear(f"{a}/self_attention/linear_0", f"{b}.attn.query", f"{b}.attn.key", f"{b}.attn.value")
            linear(f"{a}/self_attention/linear_1", f"{b}.attn.out")
            norm(f"{a}/ffn/layer_norm", f"{b}.mlp_ln")
            linear(f"{a}/ffn/linear_0", f"{b}.mlp.0")
            linear(f"{a}/ffn/linear_1", f"{b}.mlp.2")
            if side == "decoder":
                norm(f"{a}/attention/layer_norm", f"{b}.cross_attn_ln")
                linear(f"{a}/attention/linear_0", f"{b}.cross_attn.query")
                linear(f"{a}/attention/linear_1", f"{b}.cross_attn.key", f"{b}.cross_attn.value")
                linear(f"{a}/attention/linear_2", f"{b}.cross_attn.out")
    arrays = {name: array.to(dtype) for name, array in arrays.items()}
    for name, value, kind in (
        ("encoder/num_heads", model.dims.n_audio_head, torch.int16),
        ("decoder/num_heads", model.dims.n_text_head, torch.int16),
        ("decoder/activation", 3, torch.int8),
        ("decoder/pre_norm", 1, torch.int8),
        ("decoder/alignment_layer", -1, torch.int16),
        ("decoder/alignment_heads", 1, torch.int16),
        ("decoder/scale_embeddings", 0, torch.int8),
        ("decoder/start_from_zero_embedding", 0, torch.int8),
        ("decoder/alibi", 0, torch.int8),
        ("decoder/alibi_use_positive_positions", 0, torch.int8),
        ("decoder/scale_alibi", 0, torch.int8),
    ):
        arrays[name] = torch.tensor(value, dtype=kind)
    return dict(sorted(arrays.items()))


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def header(arrays: int, model_type: str = "WhisperSpec", version: int = 6, revision: int = 3) -> bytes:
    return struct.pack("<I", version) + string(model_type) + struct.pack("<II", revision, arrays)


def write_model(
    arrays: Arrays, aliases: Iterable[tuple[str, str]] = (PROJECTION,), **fields: str | int
) -> bytes:
    """A model.bin of these arrays, as CTranslate2's model_spec.py writes it."""
    out = io.BytesIO()
    out.write(header(len(arrays), **fields))  # type: ignore[arg-type]
    for name, array in arrays.items():
        raw = array.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        out.write(string(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape))
        out.write(struct.pack("<BI", DTYPE_IDS[array.dtype], len(raw)) + raw)
    aliases = list(aliases)
    out.write(struct.pack("<I", len(aliases)))
    for alias, name in aliases:
        out.write(string(alias) + string(name))
    return out.getvalue()


def assert_same(found: Whisper, expected: Whisper, dtype: torch.dtype = torch.float32) -> None:
    assert vars(found.dims) == vars(expected.dims)
    wanted = expected.state_dict()
    assert found.state_dict().keys() == wanted.keys()
    for name, tensor in found.state_dict().items():
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        assert torch.equal(tensor, wanted[name].to(dtype).to(torch.float32)), name


def save_checkpoint(path: Path, model: Whisper, **dims: int) -> None:
    half = {name: tensor.half() for name, tensor in model.state_dict().items()}
    torch.save({"dims": asdict(model.dims) | dims, "model_state_dict": half}, path)


def write_wheel(folder: Path, package: str, member: str, data: bytes) -> None:
    folder.mkdir(exist_ok=True)
    name, info = package.replace("-", "_"), f"{package.replace('-', '_')}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/{member}", data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def wheels_of(data: bytes, *packages: str) -> tuple[str, dict[str, str]]:
    parts = {f"{package}==1.0": f"{package.replace('-', '_')}/part" for package in packages}
    return hashlib.sha256(data).hexdigest(), parts


def load_error(name_or_path: str | Path, **options: bool) -> str:
    """What is said of weights that cannot be loaded."""
    with pytest.raises(WeightsError) as error:
        load(name_or_path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)
