"""A Whisper model in memory: the dimensions and tensors that a file of any format holds."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

# Remedies that several problems share.
FRESH_COPY = "get a fresh copy of it"
READABLE = "give a CTranslate2 folder or an OpenAI checkpoint (.pt)"
WHISPER = "give a Whisper model"


class FormatError(Exception):
    """Weights that can't be used: what is wrong with the file, and what to do about it (neither names it)."""

    def __init__(self, problem: str, remedy: str = FRESH_COPY) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class Dimensions:
    """A model's sizes; the fields are those of `whisper.model.ModelDimensions`."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int

    def sides(self) -> Iterator[tuple[str, int, int, int, int]]:
        """Positions, layers, channels and heads of encoder and decoder."""
        yield "encoder", self.n_audio_ctx, self.n_audio_layer, self.n_audio_state, self.n_audio_head
        yield "decoder", self.n_text_ctx, self.n_text_layer, self.n_text_state, self.n_text_head


@dataclass
class Model:
    """A Whisper model without PyTorch.

    Attributes:
        dims: its dimensions.
        tensors: float16 or float32, under the names that openai-whisper gives them.
        sha256: of the file that they are from; None where they are from none.
        heads: finds its alignment heads, as `whisper.model.Whisper.set_alignment_heads` takes them; None where it has
            whisper's default.
    """

    dims: Dimensions
    tensors: Mapping[str, npt.NDArray[Any]]
    sha256: str | None = None
    heads: Callable[[], bytes | None] = lambda: None

    @property
    def is_multilingual(self) -> bool:
        """Whether it knows more than English."""
        return self.dims.n_vocab >= 51865

    @property
    def num_languages(self) -> int:
        """How many languages it knows."""
        return self.dims.n_vocab - 51765 - int(self.is_multilingual)

    @cached_property
    def alignment_heads(self) -> tuple[tuple[int, int], ...]:
        """Layer and number of the decoder's cross-attention heads that follow the audio word by word."""
        dims, packed = self.dims, self.heads()
        if packed is None:
            later = range(dims.n_text_layer // 2, dims.n_text_layer)
            return tuple((layer, head) for layer in later for head in range(dims.n_text_head))
        chosen = np.frombuffer(gzip.decompress(base64.b85decode(packed)), bool)
        layers, heads = np.nonzero(chosen.reshape(dims.n_text_layer, dims.n_text_head))
        return tuple(zip(layers.tolist(), heads.tolist(), strict=True))

    @cached_property
    def whisper(self) -> Any:
        """The `whisper.model.Whisper`: float32, in evaluation mode, without gradients."""
        import torch
        from torch.overrides import TorchFunctionMode
        from whisper.model import Whisper

        class NoInitialisation(TorchFunctionMode):
            """Leaves new weights unwritten: random ones for base take longer than reading the real ones."""

            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                kwargs = kwargs or {}
                if getattr(func, "__module__", None) == "torch.nn.init":
                    return kwargs["tensor"] if "tensor" in kwargs else args[0]
                return func(*args, **kwargs)

        with NoInitialisation():
            model = Whisper(self.dims)
        state = {name: torch.from_numpy(x.astype(np.float32)) for name, x in self.tensors.items()}
        model.load_state_dict(state, assign=True)
        if (heads := self.heads()) is not None:
            model.set_alignment_heads(heads)
        return model.eval().requires_grad_(False)


def shapes(dims: Dimensions) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a Whisper model, under openai-whisper's names.

    Raises:
        FormatError: there is no Whisper of these dimensions.
    """
    found: dict[str, tuple[int, ...]] = {}

    def module(name: str, *shape: int, bias: bool = True) -> None:
        found[f"{name}.weight"] = shape
        if bias:
            found[f"{name}.bias"] = shape[:1]

    for side, positions, layers, width, heads in dims.sides():
        if layers < 1:
            raise FormatError(f"has no {side} layers")
        if heads < 1 or width < 4 or width % 2 or width % heads:
            raise FormatError(f"has {heads} {side} heads for {width} channels, which do not divide")
        found[f"{side}.positional_embedding"] = positions, width
        for layer in range(layers):
            block = f"{side}.blocks.{layer}"
            for attn in ("attn", "cross_attn") if side == "decoder" else ("attn",):
                for part in ("query", "key", "value", "out"):
                    module(f"{block}.{attn}.{part}", width, width, bias=part != "key")
                module(f"{block}.{attn}_ln", width)
            module(f"{block}.mlp.0", 4 * width, width)
            module(f"{block}.mlp.2", width, 4 * width)
            module(f"{block}.mlp_ln", width)
    width = dims.n_audio_state
    module("encoder.conv1", width, dims.n_mels, 3)
    module("encoder.conv2", width, width, 3)
    module("encoder.ln_post", width)
    module("decoder.token_embedding", dims.n_vocab, dims.n_text_state, bias=False)
    module("decoder.ln", dims.n_text_state)
    return found


def check_finite(x: npt.NDArray[Any], name: str) -> None:
    """Raise FormatError where a value of a float16 or float32 array is not finite."""
    finite = (x.view(np.uint16) & 0x7FFF).max() < 0x7C00 if x.dtype == np.float16 else np.isfinite(x).all()
    if not finite:
        raise FormatError(f"is damaged: {name} holds values that are not finite")
