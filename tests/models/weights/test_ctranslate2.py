import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
import torch
from material.model_files import (
    PROJECTION,
    Arrays,
    arrays_of,
    assert_same,
    header,
    random_whisper,
    string,
    write_model,
)
from torch import Tensor

from models.weights.building import FormatError
from models.weights.ctranslate2 import load_whisper, read_index


def load(data: bytes) -> Any:
    return load_whisper(data).whisper


@pytest.fixture(scope="module")
def whole() -> bytes:
    return write_model(arrays_of(random_whisper()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_round_trip_is_exact(dtype: torch.dtype) -> None:
    model = random_whisper()
    found = load(write_model(arrays_of(model, dtype)))
    assert_same(found, model, dtype)
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())
    assert torch.equal(found.decoder.mask, model.decoder.mask)
    assert torch.equal(found.alignment_heads.to_dense(), model.alignment_heads.to_dense())


def test_a_loaded_model_computes_what_the_original_does() -> None:
    model = random_whisper()
    found = load(write_model(arrays_of(model)))
    mel = torch.randn(1, 80, 24, generator=torch.Generator().manual_seed(2))
    tokens = torch.tensor([[1, 5, 3]])
    assert torch.equal(found(mel, tokens), model(mel, tokens))


def test_any_array_may_be_an_alias_of_an_equal_one() -> None:
    model = random_whisper()
    model.decoder.ln.bias.copy_(model.encoder.ln_post.bias)
    arrays = arrays_of(model)
    del arrays["decoder/layer_norm/beta"]
    found = load(write_model(arrays, [PROJECTION, ("decoder/layer_norm/beta", "encoder/layer_norm/beta")]))
    assert_same(found, model)
    assert found.decoder.ln.bias.data_ptr() != found.encoder.ln_post.bias.data_ptr()


def test_a_projection_of_its_own_must_equal_the_embeddings() -> None:
    model = random_whisper()
    arrays = arrays_of(model)
    arrays[PROJECTION[0]] = arrays[PROJECTION[1]].clone()
    assert_same(load(write_model(arrays, [])), model)
    arrays[PROJECTION[0]][0, 0] += 1
    with pytest.raises(FormatError, match="output projection"):
        load(write_model(arrays, []))


def test_every_array_is_needed(whole: bytes) -> None:
    arrays = arrays_of(random_whisper())
    optional = {
        "decoder/alignment_heads",
        "decoder/alignment_layer",
        "decoder/alibi",
        "decoder/alibi_use_positive_positions",
        "decoder/scale_alibi",
        "decoder/start_from_zero_embedding",
    }
    for name in arrays:
        fewer = {other: array for other, array in arrays.items() if other != name}
        aliases = [] if name == PROJECTION[1] else [PROJECTION]
        if name in optional:
            load(write_model(fewer, aliases))
        else:
            with pytest.raises(FormatError, match=r"lacks|absent"):
                load(write_model(fewer, aliases))


def test_every_shape_is_checked() -> None:
    arrays = arrays_of(random_whisper())
    for name, array in arrays.items():
        if array.ndim:
            with pytest.raises(FormatError):
                load(write_model({**arrays, name: torch.zeros(*array.shape[:-1], array.shape[-1] + 1)}))


Change = Callable[[Arrays], None]


def put(name: str, value: Tensor) -> Change:
    return lambda arrays: arrays.update({name: value})


def put_nan(arrays: Arrays) -> None:
    arrays["encoder/conv2/bias"][3] = torch.nan


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (put("decoder/layer_0/layer_scalar", torch.ones(8)), "unexpected array decoder/layer_0/layer_scalar"),
        (put("decoder/layer_9/ffn/linear_0/weight", torch.ones(32, 8)), "lacks array decoder/layer_2"),
        (put("decoder/rotary_dim", torch.tensor(8, dtype=torch.int32)), "unexpected setting decoder/rotary"),
        (put("decoder/activation", torch.tensor(0, dtype=torch.int8)), "activation 0, where Whisper has 3"),
        (put("decoder/num_heads", torch.tensor(3, dtype=torch.int16)), "3 decoder heads for 8 channels"),
        (put("encoder/num_heads", torch.tensor(-2, dtype=torch.int16)), "-2 encoder heads for 8 channels"),
        (put("decoder/pre_norm", torch.tensor(float("nan"))), "unexpected setting decoder/pre_norm"),
        (put("encoder/layer_0/self_attention/linear_0/bias", torch.ones(24)), "key bias"),
        (put("encoder/conv1/weight", torch.ones(8, 80, 3, dtype=torch.int8)), "quantised .*weight is int8"),
        (put("encoder/conv1/weight", torch.ones(8, 80, 3, 1)), "4 dimensions"),
        (put_nan, "encoder/conv2/bias holds values that are not finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_whisper_is_named(change: Change, problem: str) -> None:
    arrays = arrays_of(random_whisper())
    change(arrays)
    with pytest.raises(FormatError, match=problem) as error:
        load(write_model(arrays))
    assert error.value.remedy


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"model_type": "TransformerSpec"}, "a TransformerSpec model, not Whisper"),
        ({"version": 7}, "binary version 7, not 6"),
        ({"revision": 2}, "revision 2, not 3"),
        ({"version": 0x746F6E20}, "not a CTranslate2 model"),
    ],
)
def test_other_models_and_versions(fields: dict[str, str | int], problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        load(write_model(arrays_of(random_whisper()), **fields))


def test_a_cut_anywhere_is_noticed(whole: bytes) -> None:
    cuts = {*range(300), *range(0, len(whole), 211), *range(len(whole) - 300, len(whole))}
    for cut in sorted(cuts):
        with pytest.raises(FormatError, match=r"cut off|not a CTranslate2"):
            load(whole[:cut])


def test_bytes_after_the_end_are_noticed(whole: bytes) -> None:
    with pytest.raises(FormatError, match="1 bytes follow its end"):
        load(whole + b"\0")


def test_a_changed_byte_gives_a_model_or_a_format_error(whole: bytes) -> None:
    random_numbers = random.Random(3)
    index = read_index(whole)
    data = [range(array.offset, array.offset + array.nbytes) for array in index.values()]
    described = sorted(set(range(len(whole))) - {at for part in data if len(part) > 2 for at in part})
    refused = 0
    for at in random_numbers.sample(described, 400):
        changed = bytearray(whole)
        changed[at] ^= 1 << random_numbers.randrange(8)
        try:
            load(bytes(changed))
        except FormatError:
            refused += 1
    assert refused > 350  # the rest is in settings that Whisper ignores


def entry(name: str, shape: tuple[int, ...], dtype_id: int, nbytes: int) -> bytes:
    packed = struct.pack(f"<B{len(shape)}I", len(shape), *shape)
    return string(name) + packed + struct.pack("<BI", dtype_id, nbytes)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (header(2**32 - 1), "cut off"),
        (header(1) + entry("a", (2**32 - 1,) * 3, 0, 2**32 - 1), "shape"),
        (header(1) + entry("a", (2**30 - 1,), 0, 2**32 - 4) + b"0" * 64, "cut off"),
        (header(1) + entry("a", (0,), 0, 0), "0 bytes"),
        (header(1) + entry("a", (), 9, 1) + b"\0", "unknown data type 9"),
        (header(2) + 2 * (entry("a", (1,), 1, 1) + b"\0"), "quantised"),
        (header(2) + 2 * (entry("a", (), 1, 1) + b"\0"), "array a occurs twice"),
        (header(1) + struct.pack("<H", 2) + b"ab", "not text"),
        (header(1) + struct.pack("<H", 0), "not text"),
        (header(0) + struct.pack("<I", 1) + string("a") + string("b"), "alias a of b"),
        (header(0) + struct.pack("<I", 0), "lacks|absent"),
    ],
    ids=range(11),
)
def test_hostile_indexes_are_refused_before_anything_is_allocated(data: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        load(data)
