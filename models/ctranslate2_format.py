"""CTranslate2's model.bin, read into `whisper.model.Whisper` without loss.

The file is little-endian: binary version (u32), model type (string), revision (u32), then the arrays (u32
count; each a name, rank u8, dimensions u32, data type u8, byte count u32, bytes), then the aliases (u32
count; each a name and the array that it stands for). A string is its length (u16, the closing NUL included)
and its bytes. Source: CTranslate2's src/models/model.cc and
python/ctranslate2/specs/{model,whisper,transformer,attention}_spec.py.

Reading is strict: the index is checked against the file's size before anything is allocated, every array must
be known, of the right shape and used exactly once, and none may be absent.
"""

import contextlib
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from whisper.model import ModelDimensions, Whisper

BINARY_VERSION = 6
MODEL_TYPE = "WhisperSpec"
REVISION = 3

# CTranslate2's DataType: FLOAT32, INT8, INT16, INT32, FLOAT16, BFLOAT16.
_DTYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
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
_FRESH_COPY = "get a fresh copy of it"


class FormatError(Exception):
    """Weights that can't be used: what is wrong with the file, and what to do about it (neither names it)."""

    def __init__(self, problem: str, remedy: str = _FRESH_COPY) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class Array:
    """Where one array of a model.bin lies: its bytes start at `offset`, row-major."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Index:
    """The table of contents of a model.bin: arrays by name, and the aliases that stand for one of them."""

    arrays: Mapping[str, Array]
    aliases: Mapping[str, str]

    def resolve(self, name: str) -> str | None:
        """The array that holds `name`: itself, the target of an alias, or None."""
        name = self.aliases.get(name, name)
        return name if name in self.arrays else None


class _Reader:
    """Reads the index; every read is checked against the file's size first."""

    def __init__(self, file: BufferedIOBase) -> None:
        self.file = file
        self.size = file.seek(0, 2)
        self.position = file.seek(0)

    def require(self, count: int, what: str) -> None:
        missing = self.position + count - self.size
        if missing > 0:
            raise FormatError(
                f"is cut off: {what} at byte {self.position} lacks {missing} of its {count} bytes"
            )

    def read(self, count: int, what: str) -> bytes:
        self.require(count, what)
        self.position += count
        return self.file.read(count)

    def skip(self, count: int, what: str) -> None:
        self.require(count, what)
        self.position = self.file.seek(self.position + count)

    def number(self, kind: str, what: str) -> int:
        (value,) = struct.unpack("<" + kind, self.read(struct.calcsize(kind), what))
        return int(value)

    def string(self, what: str) -> str:
        start = self.position
        raw = self.read(self.number("H", what), what)
        if raw[-1:] != b"\0" or 0 in raw[:-1] or not raw[:-1].isascii():
            raise FormatError(f"is damaged: {what} at byte {start} is not text")
        return raw[:-1].decode("ascii")


def read_index(file: BufferedIOBase) -> Index:
    """Read and check the whole index of a model.bin, without reading the arrays' bytes.

    Raises FormatError for a file that is cut off, damaged, of another version, or not a Whisper model.
    """
    reader = _Reader(file)
    version = reader.number("I", "the binary version")
    if not 1 <= version <= 255:
        raise FormatError(
            "is not a CTranslate2 model.bin",
            "give an OpenAI checkpoint (.pt), or a folder made by ct2-transformers-converter",
        )
    if version != BINARY_VERSION:
        raise FormatError(
            f"has CTranslate2's binary version {version}, not {BINARY_VERSION}",
            "convert the model again with CTranslate2 4's ct2-transformers-converter",
        )
    model_type = reader.string("the model type")
    if model_type != MODEL_TYPE:
        raise FormatError(
            f"holds a {model_type[:40]} model, not Whisper ({MODEL_TYPE})", "give a Whisper model"
        )
    revision = reader.number("I", "the revision")
    if revision != REVISION:
        raise FormatError(
            f"has Whisper revision {revision}, not {REVISION}",
            "convert the model again with CTranslate2 4's ct2-transformers-converter",
        )
    arrays: dict[str, Array] = {}
    for _ in range(reader.number("I", "the number of arrays")):
        name = reader.string("an array's name")
        if name in arrays:
            raise FormatError(f"is damaged: array {name} occurs twice")
        arrays[name] = _read_array(reader, name)
    aliases: dict[str, str] = {}
    for _ in range(reader.number("I", "the number of aliases")):
        alias, target = reader.string("an alias"), reader.string("an alias's array")
        if alias in arrays or alias in aliases or target not in arrays:
            raise FormatError(f"is damaged: alias {alias} of {target} does not fit its arrays")
        aliases[alias] = target
    if reader.position != reader.size:
        raise FormatError(f"is damaged: {reader.size - reader.position} bytes follow its end")
    return Index(arrays, aliases)


def _read_array(reader: _Reader, name: str) -> Array:
    """The entry of one array; leaves the reader behind the array's bytes."""
    rank = reader.number("B", f"the rank of {name}")
    if rank > 3:
        raise FormatError(f"is damaged: array {name} has {rank} dimensions")
    shape = tuple(reader.number("I", f"the shape of {name}") for _ in range(rank))
    dtype_id = reader.number("B", f"the data type of {name}")
    if dtype_id >= len(_DTYPES):
        raise FormatError(f"is damaged: array {name} has the unknown data type {dtype_id}")
    dtype = _DTYPES[dtype_id]
    nbytes = reader.number("I", f"the byte count of {name}")
    if nbytes == 0 or nbytes != math.prod(shape) * dtype.itemsize:
        raise FormatError(f"is damaged: array {name} of shape {shape} and type {dtype} has {nbytes} bytes")
    offset = reader.position
    reader.skip(nbytes, f"array {name}")
    if rank and not dtype.is_floating_point:
        raise FormatError(
            f"holds quantised weights ({name} is {str(dtype).removeprefix('torch.')})",
            "convert the original again with --quantization float16",
        )
    return Array(shape, dtype, offset, nbytes)


def load_whisper(file: BufferedIOBase) -> Whisper:
    """The Whisper model that a model.bin holds, in float32, as `build_whisper` gives it.

    Raises FormatError; a file that raises none has given every byte of every array to the model.
    """
    index = read_index(file)
    settings = _read_settings(file, index)
    dims = _dimensions(index, *(settings[name] for name in _HEADS))
    layout = list(_layout(dims))
    _check_layout(index, layout)
    state: dict[str, Tensor] = {}
    with single_thread():
        for slot in layout:
            stacked = _read_tensor(file, index, slot.source)
            for target, part in zip(slot.targets, stacked.chunk(len(slot.targets)), strict=True):
                if target is None:
                    if torch.count_nonzero(part):
                        raise FormatError(
                            f"has a key bias ({slot.source}), unlike Whisper", "give a Whisper model"
                        )
                else:
                    state[target] = to_float32(part, slot.source)
    if index.resolve(_PROJECTION) != _EMBEDDINGS:
        projection = _read_tensor(file, index, _PROJECTION).to(torch.float32)
        if not torch.equal(projection, state["decoder.token_embedding.weight"]):
            raise FormatError(
                f"has an output projection ({_PROJECTION}) apart from its embeddings, which Whisper ties",
                "give a model whose embeddings are tied",
            )
    return build_whisper(dims, state)


def build_whisper(dims: ModelDimensions, state: Mapping[str, Tensor]) -> Whisper:
    """A Whisper model that takes over the float32 tensors of `state`, without copying them.

    In evaluation mode, without gradients, with Whisper's default alignment heads. Raises FormatError where
    `state` does not fit `dims`.
    """
    _check_dimensions(dims, state)
    try:
        with _NoInitialisation():
            model = Whisper(dims)
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise FormatError(f"does not fit the dimensions it states: {detail[:300]}") from None
    return model.eval().requires_grad_(False)


def _check_dimensions(dims: ModelDimensions, state: Mapping[str, Tensor]) -> None:
    """Compare dims with the tensors: even an empty model of hostile dimensions takes time and memory."""
    for name, shape in {
        "encoder.conv1.weight": (dims.n_audio_state, dims.n_mels, 3),
        "encoder.positional_embedding": (dims.n_audio_ctx, dims.n_audio_state),
        "decoder.token_embedding.weight": (dims.n_vocab, dims.n_text_state),
        "decoder.positional_embedding": (dims.n_text_ctx, dims.n_text_state),
    }.items():
        if name not in state or state[name].shape != shape:
            raise FormatError(f"has no {name} of shape {shape}, which its dimensions need")
    for side, layers, width, heads in (
        ("encoder", dims.n_audio_layer, dims.n_audio_state, dims.n_audio_head),
        ("decoder", dims.n_text_layer, dims.n_text_state, dims.n_text_head),
    ):
        found = len({name.split(".")[2] for name in state if name.startswith(f"{side}.blocks.")})
        if layers != found or not found:
            raise FormatError(f"has {found} {side} layers, where its dimensions say {layers}")
        if heads < 1 or width < 4 or width % 2 or width % heads:
            raise FormatError(f"has {heads} {side} heads for {width} channels, which do not divide")


def to_float32(tensor: Tensor, name: str) -> Tensor:
    """A float32 copy, exact; raises FormatError where a value is not finite."""
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


class _NoInitialisation(TorchFunctionMode):
    """Leaves new weights unwritten: random ones for base take longer than reading the real ones."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def set_alignment_heads(model: Whisper, heads: list[tuple[int, int]]) -> None:
    """Set the (layer, head) pairs of cross-attention that follow the audio, for word timestamps."""
    mask = torch.zeros(model.dims.n_text_layer, model.dims.n_text_head, dtype=torch.bool)
    for layer, head in heads:
        mask[layer, head] = True
    model.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)


def _read_tensor(file: BufferedIOBase, index: Index, name: str) -> Tensor:
    """One array as it is in the file."""
    array = index.arrays[index.resolve(name) or name]
    buffer = torch.empty(array.nbytes, dtype=torch.uint8)
    file.seek(array.offset)
    if file.readinto(buffer.numpy().data) != array.nbytes:
        raise FormatError(f"was cut off while it was read, at array {name}")
    return buffer.view(array.dtype).reshape(array.shape)


def _read_settings(file: BufferedIOBase, index: Index) -> dict[str, int]:
    """The scalars of the file, each checked to be what Whisper needs."""
    settings: dict[str, int] = {}
    for name, array in index.arrays.items():
        if array.shape == ():
            known = name in _SETTINGS or name in _IGNORED or name in _HEADS
            if not known or array.dtype.is_floating_point:
                raise FormatError(f"has the unexpected setting {name}", "give a Whisper model")
            settings[name] = int(_read_tensor(file, index, name).item())
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
        array = index.arrays.get(index.resolve(name) or name)
        if array is None or len(array.shape) != rank:
            raise FormatError(
                f"lacks array {name}" if array is None else f"has {name} of shape {array.shape}"
            )
        return array.shape

    audio_state, mels, _ = shape("encoder/conv1/weight", 3)
    vocabulary, text_state = shape(_EMBEDDINGS, 2)
    names = [*index.arrays, *index.aliases]
    layers = {
        side: len({m[1] for name in names if (m := re.match(rf"{side}/(layer_\d+)/", name))})
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
        array = index.arrays.get(index.resolve(name) or name)
        if array is None:
            raise FormatError(f"lacks array {name}")
        if array.shape != shape:
            raise FormatError(f"has {name} of shape {array.shape}, where {shape} is needed")
    for name in [*index.arrays, *index.aliases]:
        if name not in wanted and (name in index.aliases or index.arrays[name].shape != ()):
            raise FormatError(f"has the unexpected array {name}", "give a Whisper model")
