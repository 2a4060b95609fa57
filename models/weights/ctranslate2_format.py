"""CTranslate2's model.bin, read into `whisper.model.Whisper` without loss.

Which array holds which of Whisper's parameters is from CTranslate2's
python/ctranslate2/specs/{whisper,transformer,attention}_spec.py. Reading is strict: every array must be known,
of the right shape and used exactly once, and none may be absent.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase

import torch
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

from models.weights.building import FormatError, build_whisper, single_thread, to_float32
from models.weights.ctranslate2_index import Index, read_index, read_tensor

_GELU = 3
# Settings that Whisper's architecture fixes. An old file may lack those after None, whose default is the same
# value.
_SETTINGS: dict[str, tuple[int, bool]] = {
    "decoder/activation": (_GELU, True),
    "decoder/pre_norm": (1, True),
    "decoder/scale_embeddings": (0, True),
    "decoder/start_from_zero_embedding": (0, False),
    "decoder/alibi": (0, False),
    "decoder/scale_alibi": (0, False),
}
# These say nothing about Whisper: they matter to other decoders only.
_IGNORED = ("decoder/alignment_heads", "decoder/alignment_layer", "decoder/alibi_use_positive_positions")
_HEADS = ("encoder/num_heads", "decoder/num_heads")
_EMBEDDINGS = "decoder/embeddings/weight"
_PROJECTION = "decoder/projection/weight"


def load_whisper(file: BufferedIOBase) -> Whisper:
    """The Whisper model that a model.bin holds, in float32, as `build_whisper` gives it.

    Raises:
        FormatError: the file is damaged or something else. Where none is raised, every byte of every array has gone
            into the model.
    """
    index = read_index(file)
    settings = _read_settings(file, index)
    dims = _dimensions(index, *(settings[name] for name in _HEADS))
    layout = list(_layout(dims))
    _check_layout(index, layout)
    state: dict[str, Tensor] = {}
    with single_thread():
        for slot in layout:
            stacked = read_tensor(file, index[slot.source], slot.source)
            for target, part in zip(slot.targets, stacked.chunk(len(slot.targets)), strict=True):
                if target is None:
                    if torch.count_nonzero(part):
                        raise FormatError(
                            f"has a key bias ({slot.source}), unlike Whisper", "give a Whisper model"
                        )
                else:
                    state[target] = to_float32(part, slot.source)
    if index[_PROJECTION] != index[_EMBEDDINGS]:
        projection = read_tensor(file, index[_PROJECTION], _PROJECTION).to(torch.float32)
        if not torch.equal(projection, state["decoder.token_embedding.weight"]):
            raise FormatError(
                f"has an output projection ({_PROJECTION}) apart from its embeddings, which Whisper ties",
                "give a model whose embeddings are tied",
            )
    return build_whisper(dims, state)


def _read_settings(file: BufferedIOBase, index: Index) -> dict[str, int]:
    """The scalars of the file, each checked to be what Whisper needs."""
    settings: dict[str, int] = {}
    for name, array in index.items():
        if array.shape == ():
            known = name in _SETTINGS or name in _IGNORED or name in _HEADS
            if not known or array.dtype.is_floating_point:
                raise FormatError(f"has the unexpected setting {name}", "give a Whisper model")
            settings[name] = int(read_tensor(file, array, name).item())
    for name, (value, required) in _SETTINGS.items():
        if settings.get(name, None if required else value) != value:
            found = settings.get(name, "absent")
            raise FormatError(f"has {name} {found}, where Whisper has {value}", "give a Whisper model")
    for name in _HEADS:
        if name not in settings:
            raise FormatError(f"lacks {name}")
    return settings


def _dimensions(index: Index, audio_heads: int, text_heads: int) -> ModelDimensions:
    """The model's dimensions, from the shapes of its arrays."""

    def shape(name: str, rank: int) -> tuple[int, ...]:
        if name not in index:
            raise FormatError(f"lacks array {name}")
        if len(index[name].shape) != rank:
            raise FormatError(f"has {name} of shape {index[name].shape}")
        return index[name].shape

    audio_state, mels, _ = shape("encoder/conv1/weight", 3)
    vocabulary, text_state = shape(_EMBEDDINGS, 2)
    layers = {
        side: len({m[1] for name in index if (m := re.match(rf"{side}/(layer_\d+)/", name))})
        for side in ("encoder", "decoder")
    }
    return ModelDimensions(
        n_mels=mels,
        n_audio_ctx=shape("encoder/position_encodings/encodings", 2)[0],
        n_audio_state=audio_state,
        n_audio_head=audio_heads,
        n_audio_layer=layers["encoder"],
        n_vocab=vocabulary,
        n_text_ctx=shape("decoder/position_encodings/encodings", 2)[0],
        n_text_state=text_state,
        n_text_head=text_heads,
        n_text_layer=layers["decoder"],
    )


@dataclass(frozen=True)
class _Slot:
    """One array, and the tensors of Whisper stacked in it in equal parts; None is a part of zeros."""

    source: str
    shape: tuple[int, ...]
    targets: tuple[str | None, ...]


def _layout(dims: ModelDimensions) -> Iterator[_Slot]:
    """Every array that a model of these dimensions has, the settings and the output projection aside."""
    n, t = dims.n_audio_state, dims.n_text_state
    for conv, inputs in (("conv1", dims.n_mels), ("conv2", n)):
        yield _Slot(f"encoder/{conv}/weight", (n, inputs, 3), (f"encoder.{conv}.weight",))
        yield _Slot(f"encoder/{conv}/bias", (n,), (f"encoder.{conv}.bias",))
    for side, context, width in (("encoder", dims.n_audio_ctx, n), ("decoder", dims.n_text_ctx, t)):
        yield _Slot(
            f"{side}/position_encodings/encodings", (context, width), (f"{side}.positional_embedding",)
        )
    yield _Slot(_EMBEDDINGS, (dims.n_vocab, t), ("decoder.token_embedding.weight",))
    yield from _norm("encoder/layer_norm", "encoder.ln_post", n)
    yield from _norm("decoder/layer_norm", "decoder.ln", t)
    for side, count, width in (("encoder", dims.n_audio_layer, n), ("decoder", dims.n_text_layer, t)):
        for layer in range(count):
            source, block = f"{side}/layer_{layer}", f"{side}.blocks.{layer}"
            attention = f"{source}/self_attention"
            yield from _norm(f"{attention}/layer_norm", f"{block}.attn_ln", width)
            yield from _linear(
                f"{attention}/linear_0", f"{block}.attn", ("query", "key", "value"), width, width
            )
            yield from _linear(f"{attention}/linear_1", f"{block}.attn", ("out",), width, width)
            if side == "decoder":
                attention = f"{source}/attention"
                yield from _norm(f"{attention}/layer_norm", f"{block}.cross_attn_ln", width)
                yield from _linear(f"{attention}/linear_0", f"{block}.cross_attn", ("query",), width, width)
                yield from _linear(f"{attention}/linear_1", f"{block}.cross_attn", ("key", "value"), width, n)
                yield from _linear(f"{attention}/linear_2", f"{block}.cross_attn", ("out",), width, width)
            yield from _norm(f"{source}/ffn/layer_norm", f"{block}.mlp_ln", width)
            yield from _linear(f"{source}/ffn/linear_0", f"{block}.mlp", ("0",), 4 * width, width)
            yield from _linear(f"{source}/ffn/linear_1", f"{block}.mlp", ("2",), width, 4 * width)


def _norm(source: str, target: str, width: int) -> Iterator[_Slot]:
    yield _Slot(f"{source}/gamma", (width,), (f"{target}.weight",))
    yield _Slot(f"{source}/beta", (width,), (f"{target}.bias",))


def _linear(source: str, target: str, parts: tuple[str, ...], outputs: int, inputs: int) -> Iterator[_Slot]:
    """A linear layer, or several stacked along their outputs. Whisper's key has no bias: zeros."""
    weights = tuple(f"{target}.{part}.weight" for part in parts)
    biases = tuple(None if part == "key" else f"{target}.{part}.bias" for part in parts)
    yield _Slot(f"{source}/weight", (len(parts) * outputs, inputs), weights)
    yield _Slot(f"{source}/bias", (len(parts) * outputs,), biases)


def _check_layout(index: Index, layout: list[_Slot]) -> None:
    """Every array of the layout is there with its shape, and the file has no other."""
    wanted = {slot.source: slot.shape for slot in layout}
    wanted[_PROJECTION] = wanted[_EMBEDDINGS]
    for name, shape in wanted.items():
        if name not in index:
            raise FormatError(f"lacks array {name}")
        if index[name].shape != shape:
            raise FormatError(f"has {name} of shape {index[name].shape}, where {shape} is needed")
    for name, array in index.items():
        if name not in wanted and array.shape != ():
            raise FormatError(f"has the unexpected array {name}", "give a Whisper model")
