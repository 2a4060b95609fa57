"""What lies at a path that a user gives: which file to read, of what kind, and whether Whisper can run it.

Each function raises FormatError for what it refuses.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterable
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.weights.building import (
    READABLE,
    WHISPER,
    Dimensions,
    FormatError,
    Model,
    check_finite,
    shapes,
)


def model_file(path: Path) -> Path:
    """The file to read for a path: itself, or the model.bin of a folder."""
    if path.is_dir():
        if (path / "model.bin").is_file():
            return path / "model.bin"
        if any(path.glob("*.safetensors")) or (path / "pytorch_model.bin").exists():
            raise FormatError(
                "is a Hugging Face folder, which is not read",
                "convert it: ct2-transformers-converter --model OLD --output_dir NEW --quantization float16",
            )
        raise FormatError("is a folder without model.bin", READABLE)
    if path.exists() and not path.is_file():
        raise FormatError("is not a regular file", READABLE)
    return path


def is_checkpoint(path: Path, start: bytes) -> bool:
    """Tell an OpenAI checkpoint from a model.bin by its first bytes, and name what is neither."""
    if not start:
        raise FormatError("is empty")
    if start.startswith(b"version https://git-lfs"):
        raise FormatError("is a Git LFS pointer, not the weights", "get the weights with `git lfs pull`")
    for at, mark, kind in (
        (0, b"GGUF", "GGUF"),
        (0, b"lmgg", "whisper.cpp (ggml)"),
        (8, b'{"', "safetensors"),
    ):
        if start.startswith(mark, at):
            raise FormatError(f"is a {kind} file, which is not read", READABLE)
    return start.startswith((b"PK\x03\x04", b"\x80")) or path.suffix in (".pt", ".pth")


def load_checkpoint(file: BufferedIOBase) -> Model:
    """The model of an OpenAI checkpoint, a dictionary of "dims" and "model_state_dict".

    Raises:
        OSError: the file cannot be read.
    """
    import torch  # what these files are pickled by

    wrong = FormatError("is not an OpenAI Whisper checkpoint (dims and model_state_dict)", READABLE)
    size = _unpacked(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds of tensor that are refused below
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)  # type: ignore[arg-type]
    except pickle.UnpicklingError:
        raise FormatError(
            "holds more than tensors, or is damaged", "give openai-whisper's own file"
        ) from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # bytes that are no pickle make torch.load raise whatever they lead it to
        detail = " ".join(str(error).split())[:80]
        raise FormatError(f"is cut off or damaged ({detail})") from None
    if not isinstance(checkpoint, dict):
        raise wrong
    sizes, state = checkpoint.get("dims"), checkpoint.get("model_state_dict")
    if not isinstance(sizes, dict) or not isinstance(state, dict):
        raise wrong
    fields = Dimensions.__dataclass_fields__.keys()
    if sizes.keys() != fields or not all(type(size) is int and size > 0 for size in sizes.values()):
        raise wrong
    for name, tensor in state.items():
        if (
            not isinstance(name, str)
            or not isinstance(tensor, torch.Tensor)
            or not tensor.is_floating_point()
        ):
            raise wrong
        if tensor.is_nested or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise FormatError(f"has values that are not stored one by one: {name}")
    dims = Dimensions(**sizes)
    _check_layers(dims, state)
    for name, shape in shapes(dims).items():
        if name not in state or tuple(state[name].shape) != shape:
            raise FormatError(f"has no {name} of shape {shape}, which its dimensions need")
    if unknown := state.keys() - shapes(dims).keys():
        raise FormatError(f"does not fit the dimensions it states: it has {min(unknown)}")
    if sum(tensor.nbytes for tensor in state.values()) > size:
        raise FormatError("states more values than it holds")
    tensors: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in state.items():
        kept = tensor if tensor.dtype in (torch.float16, torch.float32) else tensor.float()
        tensors[name] = kept.detach().contiguous().numpy()
        check_finite(tensors[name], name)
    return Model(dims, tensors)


def _unpacked(file: BufferedIOBase) -> int:
    """The bytes of a checkpoint's members, which PyTorch never packs: packed ones can be of any size."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(4) == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(file) as members:
                inner = members.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            raise FormatError("is cut off or damaged") from None
        if any(info.compress_type for info in inner) or sum(info.file_size for info in inner) > size:
            raise FormatError("has packed members, as no checkpoint has", "give openai-whisper's own file")
    file.seek(0)
    return size


def _check_layers(dims: Dimensions, tensors: Iterable[str]) -> None:
    """Before they are listed, which takes memory by their number."""
    for side, _, layers, _, _ in dims.sides():
        found = len({name.split(".")[2] for name in tensors if name.startswith(f"{side}.blocks.")})
        if layers != found:
            raise FormatError(f"has {found} {side} layers, where its dimensions say {layers}")


def check_runnable(dims: Dimensions) -> None:
    """Refuse shapes that Whisper's features and tokenizers lack: they fail later, or give wrong tokens."""
    for what, found, allowed in (
        ("mel bands", dims.n_mels, (80, 128)),
        ("audio positions", dims.n_audio_ctx, (1500,)),
        ("tokens", dims.n_vocab, (51864, 51865, 51866)),
    ):
        if found not in allowed:
            needed = " or ".join(map(str, allowed))
            raise FormatError(f"has {found} {what}, where Whisper has {needed}", WHISPER)


def configured_heads(dims: Dimensions, config: Path) -> bytes | None:
    """The alignment heads that a CTranslate2 folder's config.json names, as `Model.heads` has them.

    They are the (layer, head) pairs of cross-attention that follow the audio, for word timestamps.
    """
    if not config.is_file():
        return None
    layers, heads = dims.n_text_layer, dims.n_text_head
    mask = np.zeros((layers, heads), bool)
    try:
        for layer, head in json.loads(config.read_text(encoding="utf-8")).get("alignment_heads") or ():
            if not (type(layer) is type(head) is int and layer in range(layers) and head in range(heads)):
                raise ValueError
            mask[layer, head] = True
    except (ValueError, TypeError, AttributeError):
        raise FormatError("has a config.json whose alignment_heads are not (layer, head) pairs") from None
    return base64.b85encode(gzip.compress(mask.tobytes())) if mask.any() else None
