"""The index of CTranslate2's model.bin, and the bytes of the arrays that it lists.

The file is little-endian: binary version (u32), model type (string), revision (u32), then the arrays (u32
count; each a name, rank u8, dimensions u32, data type u8, byte count u32, bytes), then the aliases (u32
count; each a name and the array that it stands for). A string is its length (u16, the closing NUL included)
and its bytes. Source: CTranslate2's src/models/model.cc and python/ctranslate2/specs/model_spec.py.

The index is checked against the file's size before anything is allocated.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedIOBase

import torch
from torch import Tensor

from models.weights.building import FormatError

BINARY_VERSION = 6
MODEL_TYPE = "WhisperSpec"
REVISION = 3

# CTranslate2's DataType: FLOAT32, INT8, INT16, INT32, FLOAT16, BFLOAT16.
_DTYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Array:
    """Where one array of a model.bin lies: its bytes start at `offset`, row-major."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    nbytes: int


Index = Mapping[str, Array]
"""The table of contents of a model.bin: arrays by name, under each alias as well."""


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

    Raises:
        FormatError: the file is cut off, damaged, of another version, or not a Whisper model.
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
    aliases: dict[str, Array] = {}
    for _ in range(reader.number("I", "the number of aliases")):
        alias, target = reader.string("an alias"), reader.string("an alias's array")
        if alias in arrays or alias in aliases or target not in arrays:
            raise FormatError(f"is damaged: alias {alias} of {target} does not fit its arrays")
        aliases[alias] = arrays[target]
    if reader.position != reader.size:
        raise FormatError(f"is damaged: {reader.size - reader.position} bytes follow its end")
    return arrays | aliases


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


def read_tensor(file: BufferedIOBase, array: Array, name: str) -> Tensor:
    """An array, called `name` in the error, as it is in the file.

    Raises:
        FormatError: the file has become shorter.
    """
    buffer = torch.empty(array.nbytes, dtype=torch.uint8)
    file.seek(array.offset)
    if file.readinto(buffer.numpy().data) != array.nbytes:
        raise FormatError(f"was cut off while it was read, at array {name}")
    return buffer.view(array.dtype).reshape(array.shape)
