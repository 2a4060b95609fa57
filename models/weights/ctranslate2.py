"""CTranslate2's model.bin, read without loss.

The file is little-endian: binary version (u32), model type (string), revision (u32), then the arrays (u32 count; each a
name, rank u8, dimensions u32, data type u8, byte count u32, bytes), then the aliases (u32 count; each a name and the
array that it stands for). A string is its length (u16, the closing NUL included) and its bytes.

Sources: CTranslate2's src/models/model.cc and python/ctranslate2/specs/model_spec.py for the file,
{whisper,transformer,attention}_spec.py beside it for the names of the arrays.

Reading is strict: the index is checked against the file's size before anything is read; every array must be known,
of the right shape and used exactly once, and none may be absent.
"""

import math
import re
import struct
from collections.abc import Mapping
from mmap import mmap
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.weights.building import WHISPER, Dimensions, FormatError, Model, check_finite, shapes

# CTranslate2's DataType, whose number is the place here; NumPy has no bfloat16.
_DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
_GELU = 3
# What Whisper's architecture fixes, and whether an old file may lack it, whose default is the same value.
_SETTINGS = {
    "decoder/activation": (_GELU, False),
    "decoder/pre_norm": (1, False),
    "decoder/scale_embeddings": (0, False),
    "decoder/start_from_zero_embedding": (0, True),
    "decoder/alibi": (0, True),
    "decoder/scale_alibi": (0, True),
}
# These say nothing about Whisper: they matter to other decoders only.
_IGNORED = ("decoder/alignment_heads", "decoder/alignment_layer", "decoder/alibi_use_positive_positions")
_HEADS = ("encoder/num_heads", "decoder/num_heads")
_EMBEDDINGS = "decoder/embeddings/weight"
_PROJECTION = "decoder/projection/weight"
_PARAMETERS = {
    _EMBEDDINGS: "decoder.token_embedding.weight",
    "encoder/position_encodings/encodings": "encoder.positional_embedding",
    "decoder/position_encodings/encodings": "decoder.positional_embedding",
}
# Modules with a weight and a bias, and those of Whisper that are stacked in them in equal parts.
_MODULES = {
    "encoder/conv1": ("encoder.conv1",),
    "encoder/conv2": ("encoder.conv2",),
    "encoder/layer_norm": ("encoder.ln_post",),
    "decoder/layer_norm": ("decoder.ln",),
}
_BLOCK = {
    "self_attention/layer_norm": ("attn_ln",),
    "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
    "self_attention/linear_1": ("attn.out",),
    "ffn/layer_norm": ("mlp_ln",),
    "ffn/linear_0": ("mlp.0",),
    "ffn/linear_1": ("mlp.2",),
}
_CROSS_ATTENTION = {
    "attention/layer_norm": ("cross_attn_ln",),
    "attention/linear_0": ("cross_attn.query",),
    "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
    "attention/linear_2": ("cross_attn.out",),
}
_CONVERT_AGAIN = "convert the model again with CTranslate2 4's ct2-transformers-converter"


class Array(NamedTuple):
    """Where one array of a model.bin lies: its bytes start at `offset`, row-major."""

    shape: tuple[int, ...]
    dtype: str
    offset: int
    nbytes: int


Index = Mapping[str, Array]
"""The table of contents of a model.bin: arrays by name, under each alias as well."""


def load_whisper(data: bytes | mmap) -> Model:
    """The Whisper model that a model.bin holds, whose tensors are views of `data`, but for those of bfloat16.

    Raises:
        FormatError: the file is damaged or something else. Where none is raised, every byte of every array has gone
            into the model.
    """
    index = read_index(data)
    dims = _dimensions(index, *_read_heads(data, index))
    stacks, whole = _stacks(dims), shapes(dims)
    _check_shapes(index, stacks, whole)
    tensors: dict[str, npt.NDArray[Any]] = {}
    for source, targets in stacks.items():
        array = _read_array(data, index[source])
        check_finite(array, source)
        for target, part in zip(targets, np.split(array, len(targets)), strict=True):
            if target in whole:
                tensors[target] = part
            elif part.any():
                raise FormatError(f"has a key bias ({source}), unlike Whisper", WHISPER)
    if index[_PROJECTION] != index[_EMBEDDINGS]:
        projection = _read_array(data, index[_PROJECTION])
        if not np.array_equal(projection, tensors[_PARAMETERS[_EMBEDDINGS]]):
            raise FormatError(
                f"has an output projection ({_PROJECTION}) apart from its embeddings, which Whisper ties",
                "give a model whose embeddings are tied",
            )
    return Model(dims, tensors)


def read_index(data: bytes | mmap) -> Index:
    """Read and check the whole index of a model.bin, without reading the arrays' bytes."""
    reader = _Reader(data)
    version = reader.number("I", "the binary version")
    if not 1 <= version <= 255:
        raise FormatError(
            "is not a CTranslate2 model.bin",
            "give an OpenAI checkpoint (.pt), or a folder made by ct2-transformers-converter",
        )
    if version != 6:
        raise FormatError(f"has CTranslate2's binary version {version}, not 6", _CONVERT_AGAIN)
    model_type = reader.string("the model type")
    if model_type != "WhisperSpec":
        raise FormatError(f"holds a {model_type[:40]} model, not Whisper (WhisperSpec)", WHISPER)
    revision = reader.number("I", "the revision")
    if revision != 3:
        raise FormatError(f"has Whisper revision {revision}, not 3", _CONVERT_AGAIN)
    arrays: dict[str, Array] = {}
    for _ in range(reader.number("I", "the number of arrays")):
        name = reader.string("an array's name")
        if name in arrays:
            raise FormatError(f"is damaged: array {name} occurs twice")
        arrays[name] = _read_entry(reader, name)
    aliases: dict[str, Array] = {}
    for _ in range(reader.number("I", "the number of aliases")):
        alias, target = reader.string("an alias"), reader.string("an alias's array")
        if alias in arrays or alias in aliases or target not in arrays:
            raise FormatError(f"is damaged: alias {alias} of {target} does not fit its arrays")
        aliases[alias] = arrays[target]
    if reader.position != reader.size:
        raise FormatError(f"is damaged: {reader.size - reader.position} bytes follow its end")
    return arrays | aliases


class _Reader:
    """Reads the index; every read is checked against the file's size first."""

    def __init__(self, data: bytes | mmap) -> None:
        self.data = data
        self.size = len(data)
        self.position = 0

    def skip(self, count: int, what: str) -> int:
        """Pass over `count` bytes, which begin at the position that is returned."""
        start = self.position
        missing = start + count - self.size
        if missing > 0:
            raise FormatError(f"is cut off: {what} at byte {start} lacks {missing} of its {count} bytes")
        self.position += count
        return start

    def read(self, count: int, what: str) -> bytes:
        start = self.skip(count, what)
        return self.data[start : start + count]

    def number(self, kind: str, what: str) -> int:
        (value,) = struct.unpack("<" + kind, self.read(struct.calcsize(kind), what))
        return int(value)

    def string(self, what: str) -> str:
        start = self.position
        raw = self.read(self.number("H", what), what)
        if raw[-1:] != b"\0" or 0 in raw[:-1] or not raw[:-1].isascii():
            raise FormatError(f"is damaged: {what} at byte {start} is not text")
        return raw[:-1].decode("ascii")


def _read_entry(reader: _Reader, name: str) -> Array:
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
    if nbytes == 0 or nbytes != math.prod(shape) * _item_size(dtype):
        raise FormatError(f"is damaged: array {name} of shape {shape} and type {dtype} has {nbytes} bytes")
    offset = reader.skip(nbytes, f"array {name}")
    if rank and dtype.startswith("int"):
        raise FormatError(
            f"holds quantised weights ({name} is {dtype})",
            "convert the original again with --quantization float16",
        )
    return Array(shape, dtype, offset, nbytes)


def _item_size(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _read_array(data: bytes | mmap, array: Array) -> npt.NDArray[Any]:
    """An array as it is in the file, or in float32 where that is bfloat16, which is the upper half of it."""
    stored = "uint16" if array.dtype == "bfloat16" else array.dtype
    found: npt.NDArray[Any] = np.frombuffer(data, stored, math.prod(array.shape), array.offset)
    if array.dtype == "bfloat16":
        found = (found.astype(np.uint32) << 16).view(np.float32)
    return found.reshape(array.shape)


def _read_heads(data: bytes | mmap, index: Index) -> tuple[int, int]:
    """The heads of encoder and decoder; all other scalars of the file are checked to be what Whisper needs."""
    settings: dict[str, int] = {}
    for name, array in index.items():
        if array.shape == ():
            known = name in _SETTINGS or name in _IGNORED or name in _HEADS
            if not known or not array.dtype.startswith("int"):
                raise FormatError(f"has the unexpected setting {name}", WHISPER)
            settings[name] = int(_read_array(data, array).item())
    for name, (value, may_lack) in _SETTINGS.items():
        if settings.get(name, value if may_lack else None) != value:
            found = settings.get(name, "absent")
            raise FormatError(f"has {name} {found}, where Whisper has {value}", WHISPER)
    for name in _HEADS:
        if name not in settings:
            raise FormatError(f"lacks {name}")
    return settings[_HEADS[0]], settings[_HEADS[1]]


def _dimensions(index: Index, audio_heads: int, text_heads: int) -> Dimensions:
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
    return Dimensions(
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


def _stacks(dims: Dimensions) -> dict[str, tuple[str, ...]]:
    """Of each array, settings and output projection aside, Whisper's tensors that are stacked in it in equal parts."""
    modules: dict[str, tuple[str, ...]] = dict(_MODULES)
    for side, count, block in (
        ("encoder", dims.n_audio_layer, _BLOCK),
        ("decoder", dims.n_text_layer, _BLOCK | _CROSS_ATTENTION),
    ):
        for layer in range(count):
            for source, parts in block.items():
                targets = tuple(f"{side}.blocks.{layer}.{part}" for part in parts)
                modules[f"{side}/layer_{layer}/{source}"] = targets
    stacks: dict[str, tuple[str, ...]] = {source: (target,) for source, target in _PARAMETERS.items()}
    for source, parts in modules.items():
        names = ("gamma", "beta") if source.endswith("layer_norm") else ("weight", "bias")
        for name, kind in zip(names, ("weight", "bias"), strict=True):
            stacks[f"{source}/{name}"] = tuple(f"{part}.{kind}" for part in parts)
    return stacks


def _check_shapes(
    index: Index, stacks: dict[str, tuple[str, ...]], whole: Mapping[str, tuple[int, ...]]
) -> None:
    """Every array that a model of these tensors needs is there with its shape, and the file has no other."""
    wanted = {}
    for source, targets in stacks.items():
        rows, *others = whole[targets[-1]]  # Whisper has the last one of each stack
        wanted[source] = (len(targets) * rows, *others)
    wanted[_PROJECTION] = wanted[_EMBEDDINGS]
    for name, shape in wanted.items():
        if name not in index:
            raise FormatError(f"lacks array {name}")
        if index[name].shape != shape:
            raise FormatError(f"has {name} of shape {index[name].shape}, where {shape} is needed")
    for name, array in index.items():
        if name not in wanted and array.shape != ():
            raise FormatError(f"has the unexpected array {name}", WHISPER)
