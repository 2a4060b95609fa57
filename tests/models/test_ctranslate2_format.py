import io
import random
import struct
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

from models.weights.building import FormatError
from models.weights.ctranslate2_format import load_whisper
from models.weights.ctranslate2_index import read_index

DIMS = ModelDimensions(80, 12, 8, 2, 2, 11, 6, 8, 4, 3)
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


def load(data: bytes) -> Whisper:
    return load_whisper(io.BytesIO(data))


def assert_same(found: Whisper, expected: Whisper, dtype: torch.dtype = torch.float32) -> None:
    assert found.dims == expected.dims
    wanted = expected.state_dict()
    assert found.state_dict().keys() == wanted.keys()
    for name, tensor in found.state_dict().items():
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        assert torch.equal(tensor, wanted[name].to(dtype).to(torch.float32)), name


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


def test_loading_restores_the_number_of_threads(whole: bytes) -> None:
    before = torch.get_num_threads()
    load(whole)
    with pytest.raises(FormatError):
        load(whole[:-1])
    assert torch.get_num_threads() == before


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
        (put("decoder/layer_9/ffn/linear_0/weight", torch.ones(32, 8)), "lacks array decoder/layer_3"),
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
    index = read_index(io.BytesIO(whole))
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
