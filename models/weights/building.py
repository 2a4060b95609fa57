"""A Whisper model in memory from the dimensions and tensors that a file of any format holds."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from whisper.model import ModelDimensions, Whisper

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


def empty_whisper(dims: ModelDimensions) -> Whisper:
    """A model whose weights are not written yet.

    Raises:
        FormatError: there is no Whisper of these dimensions.
    """
    for side, layers, width, heads in _sides(dims):
        if layers < 1:
            raise FormatError(f"has no {side} layers")
        if heads < 1 or width < 4 or width % 2 or width % heads:
            raise FormatError(f"has {heads} {side} heads for {width} channels, which do not divide")
    with _fitting(), _NoInitialisation():
        return Whisper(dims)


def fill(model: Whisper, state: Mapping[str, Tensor]) -> Whisper:
    """The model with the float32 tensors of `state`, not copies of them, to evaluate without gradients.

    Raises:
        FormatError: they do not fit.
    """
    with _fitting():
        model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def check_dimensions(dims: ModelDimensions, state: Mapping[str, Tensor]) -> None:
    """Compare dims with the tensors: even an empty model of hostile dimensions takes time and memory."""
    for name, shape in {
        "encoder.conv1.weight": (dims.n_audio_state, dims.n_mels, 3),
        "encoder.positional_embedding": (dims.n_audio_ctx, dims.n_audio_state),
        "decoder.token_embedding.weight": (dims.n_vocab, dims.n_text_state),
        "decoder.positional_embedding": (dims.n_text_ctx, dims.n_text_state),
    }.items():
        if name not in state or state[name].shape != shape:
            raise FormatError(f"has no {name} of shape {shape}, which its dimensions need")
    for side, layers, _, _ in _sides(dims):
        found = len({name.split(".")[2] for name in state if name.startswith(f"{side}.blocks.")})
        if layers != found:
            raise FormatError(f"has {found} {side} layers, where its dimensions say {layers}")


def _sides(dims: ModelDimensions) -> Iterator[tuple[str, int, int, int]]:
    """Layers, channels and heads of encoder and decoder."""
    yield "encoder", dims.n_audio_layer, dims.n_audio_state, dims.n_audio_head
    yield "decoder", dims.n_text_layer, dims.n_text_state, dims.n_text_head


@contextlib.contextmanager
def _fitting() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise FormatError(f"does not fit the dimensions it states: {detail[:300]}") from None


class _NoInitialisation(TorchFunctionMode):
    """Leaves new weights unwritten: random ones for base take longer than reading the real ones."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def to_float32(tensor: Tensor, name: str) -> Tensor:
    """A float32 copy, exact.

    Raises:
        FormatError: a value is not finite.
    """
    copy = tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if not torch.isfinite(copy.sum()):  # one pass without a temporary
        raise FormatError(f"is damaged: {name} holds values that are not finite")
    return copy


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Copying is bound by memory: for base on two busy cores, two threads took 1.6 s, one 0.2 s."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
