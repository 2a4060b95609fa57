"""OpenAI's checkpoints (.pt), read into `whisper.model.Whisper`."""

import pickle
from io import BufferedIOBase

import torch
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

from models.weights.building import (
    FRESH_COPY,
    READABLE,
    FormatError,
    build_whisper,
    single_thread,
    to_float32,
)


def load_checkpoint(file: BufferedIOBase) -> Whisper:
    """The model of an OpenAI checkpoint, a dictionary of "dims" and "model_state_dict", in float32.

    Raises:
        FormatError: the file is damaged or something else.
        OSError: it cannot be read.
    """
    wrong = FormatError("is not an OpenAI Whisper checkpoint (dims and model_state_dict)", READABLE)
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)  # type: ignore[arg-type]
    except pickle.UnpicklingError:
        raise FormatError(
            "holds more than tensors, or is damaged", "give openai-whisper's own file"
        ) from None
    except OSError:
        raise
    except Exception as error:  # bytes that are no pickle make torch.load raise whatever they lead it to
        detail = " ".join(str(error).split())[:80]
        raise FormatError(f"is cut off or damaged ({detail})", FRESH_COPY) from None
    if not isinstance(checkpoint, dict):
        raise wrong
    dims, half = checkpoint.get("dims"), checkpoint.get("model_state_dict")
    if not isinstance(dims, dict) or not isinstance(half, dict):
        raise wrong
    fields = ModelDimensions.__dataclass_fields__.keys()
    if dims.keys() != fields or not all(type(size) is int and size > 0 for size in dims.values()):
        raise wrong
    state: dict[str, Tensor] = {}
    with single_thread():
        for name in list(half):
            tensor = half.pop(name)  # popped, so that its half-precision copy goes as its float32 one comes
            if not isinstance(name, str) or not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                raise wrong
            state[name] = to_float32(tensor, name)
    return build_whisper(ModelDimensions(**dims), state)
