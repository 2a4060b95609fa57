from typing import Any

import numpy as np
import pytest
import torch
from material.small_models import recogniser_of, small_random_model
from whisper.decoding import DecodingOptions, DecodingTask, GreedyDecoder
from whisper.model import ModelDimensions, Whisper
from whisper.tokenizer import get_tokenizer

from models.compute import resolve_compute_type
from models.decoder import CachedDecoder, TextCache
from models.decoding.fallback import decode_with_fallback, detect_languages
from models.decoding.options import DecodeOptions
from models.decoding.recogniser import decoder_of
from models.decoding.token_rules import GreedyChoice, TokenRules
from models.int8_attention import attend_to_audio, pack_values
from models.int8_decoder import Int8Decoder, layer_weight
from models.int8_linear import BLOCK, linear_int8, pack_int8, pack_rows, quantise_rows, split_rows
from models.int8_step import linear_layer

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        resolve_compute_type("int8") != "int8", reason="the processor has no instructions for INT8"
    ),
]


def normal(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(("n_out", "n_in"), [(96, 64), (75, 128)])
def test_a_product_is_exact_in_its_integers(rows: int, n_out: int, n_in: int) -> None:
    weight, bias, x = normal(n_out, n_in), normal(n_out, seed=1), normal(rows, n_in, seed=2)
    packed = pack_int8(weight, bias)
    scale = packed.scale[:n_out]
    np.testing.assert_allclose(scale, abs(weight).max(axis=1) / 127, rtol=1e-6)
    w8 = packed.blocks.transpose(0, 2, 1, 3).reshape(-1, n_in)[:n_out].astype(np.int64)
    assert (abs(w8 * scale[:, None] - weight) <= 0.51 * scale[:, None]).all()
    assert np.array_equal(packed.total[:n_out], w8.sum(axis=1))
    x8 = np.empty(x.shape, np.uint8)
    x_scale, zero = quantise_rows(x, x8)
    out = np.empty((rows, len(packed.scale)), np.float32)
    linear_int8(*packed, x8, x_scale, zero, out)
    sums = (x8.astype(np.int64) - zero[:, None]) @ w8.T
    expected = sums * (x_scale[:, None].astype(np.float64) * scale) + bias
    np.testing.assert_allclose(out[:, :n_out], expected, rtol=1e-5, atol=1e-5)
    assert not out[:, n_out:].any()


def test_the_extremes_of_both_factors_do_not_saturate() -> None:
    packed = pack_int8(np.full((BLOCK, 2048), -1, np.float32))
    x8 = np.full((1, 2048), 255, np.uint8)
    out = np.empty((1, BLOCK), np.float32)
    linear_int8(*packed, x8, np.ones(1, np.float32), np.zeros(1, np.int32), out)
    np.testing.assert_allclose(out, -2048 * 255, rtol=1e-6)


@pytest.mark.parametrize("kind", ["both", "positive", "negative", "zero", "tiny"])
def test_rows_come_back_within_half_a_step(kind: str) -> None:
    x = normal(5, 64) * np.float32(7)
    x = {"both": x, "positive": abs(x), "negative": -abs(x), "zero": 0 * x, "tiny": x * np.float32(1e-20)}[
        kind
    ]
    x8 = np.empty(x.shape, np.uint8)
    scale, zero = quantise_rows(x, x8)
    back = (x8.astype(np.float64) - zero[:, None]) * scale[:, None]
    assert (abs(back - x) <= 0.51 * scale[:, None] + 1e-37).all()
    halves = np.empty((10, 64), np.uint8)
    scale, zero = split_rows(x, halves)
    parts = (halves.astype(np.float64) - zero[:, None]) * scale[:, None]
    assert (abs(parts[::2] + parts[1::2] - x) <= 0.52 * scale[1::2, None] + 1e-30).all()


@pytest.mark.parametrize("n", [1, 2, 8, 11])
def test_attention_to_audio_is_that_of_its_integers(n: int) -> None:
    n_keys = 70
    q, k, v = normal(n, 64) * 3, normal(n_keys, 64, seed=1), normal(n_keys, 64, seed=2)
    padded = -(-n_keys // BLOCK) * BLOCK
    keys, values = (
        np.zeros((padded // BLOCK, 16, BLOCK), np.int32),
        np.zeros((2, padded // 4, BLOCK), np.int32),
    )
    key_scale, key_total = np.zeros(padded, np.float32), np.zeros(padded, np.int32)
    value_scale = np.zeros(64, np.float32)
    pack_rows(k, keys, key_scale, key_total)
    pack_values(v, values, value_scale)
    bias = np.where(np.arange(padded) < n_keys, np.float32(0), np.float32(-np.inf))
    out = np.empty((n, 64), np.float32)
    k_blocks = keys.view(np.int8).reshape(*keys.shape, 4)
    v_blocks = values.view(np.int8).reshape(*values.shape, 4)
    attend_to_audio(q, k_blocks, key_scale, key_total, bias, v_blocks, value_scale, out)

    k_step, v_step = abs(k).max(1, keepdims=True) / 127, abs(v).max(0) / 127
    k8, v8 = np.floor(k / k_step + 0.5) * k_step, np.floor(v / v_step + 0.5) * v_step
    scores = q.astype(np.float64) @ k8.T / 8
    weights = np.exp(scores - scores.max(1, keepdims=True))
    expected = weights / weights.sum(1, keepdims=True) @ v8
    assert abs(out - expected).max() < 2e-3  # a key on the edge of a step may round the other way


@pytest.mark.parametrize("threads", [1, 2])
def test_a_layers_weight_in_two_parts_is_as_good_as_float32(threads: int) -> None:
    linear = torch.nn.Linear(512, 2048)
    linear.weight.data[7] *= 1000
    linear.weight.data[8] = 0
    weight = layer_weight([(linear,)])
    x, out = normal(5, 512), np.full((5, 2048), np.nan, np.float32)
    linear_layer(weight, 0, x, out, threads)
    exact = torch.nn.functional.linear(
        torch.from_numpy(x).double(), linear.weight.double(), linear.bias.double()
    ).detach()
    spread = linear.weight.detach().norm(dim=1).numpy()  # of outputs for inputs like these
    assert (abs(out - exact.numpy()).max(0) < 2e-4 * spread + 1e-6).all()


@pytest.mark.parametrize("n_vocab", [51864, 51865])
def test_logits_are_near_those_in_float32_also_after_reordering(n_vocab: int) -> None:
    model, states = small_random_model(n_vocab), torch.randn(2, 1500, 128)
    exact, decoder = CachedDecoder(model), Int8Decoder(model)
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randint(0, 50000, (2, 9), generator=generator)
    caches = [TextCache(d, n_audio=2, n_group=3, capacity=14) for d in (exact, decoder)]
    memories = exact.attend_to(states), decoder.attend_to(states)
    expected = exact.prefill(prompt, memories[0], caches[0], [2, 8])
    logits = decoder.prefill(prompt, memories[1], caches[1], [2, 8])
    assert logits.shape == expected.shape
    for order in ([0, 1, 2, 3, 4, 5], [1, 1, 0, 5, 3, 4], [2, 0, 2, 3, 3, 3], None):
        spread = expected.std()
        assert (logits - expected).std() < 0.012 * spread
        if order is not None:
            for cache in caches:
                cache.reorder(order)
            new = torch.randint(0, 50000, (6,), generator=generator)
            expected = exact.step(new, memories[0], caches[0])
            logits = decoder.step(new, memories[1], caches[1])


def test_a_sequence_depends_neither_on_its_batch_nor_on_threads_nor_on_those_that_ended() -> None:
    model, states = small_random_model(), torch.randn(3, 1500, 128)
    decoder = Int8Decoder(model)
    memory = decoder.attend_to(states)
    prompt, new = torch.tensor([[5, 6], [7, 8], [9, 10]]), torch.tensor([11, 12, 13])

    def last(windows: list[int], active: torch.Tensor | None = None) -> torch.Tensor:
        chosen = memory.select(windows)
        cache = TextCache(decoder, len(windows), 1, capacity=3)
        decoder.prefill(prompt[windows], chosen, cache, [1])
        return decoder.step(new[windows], chosen, cache, active)

    together = last([0, 1, 2])
    for window in range(3):
        assert torch.equal(last([window])[0], together[window])
    assert torch.equal(last([2, 0])[1], together[0])
    some = last([0, 1, 2], torch.tensor([True, False, True]))
    assert torch.equal(some[[0, 2]], together[[0, 2]])
    assert not some[1].any()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        other = decoder.attend_to(states)
        assert np.array_equal(other.keys, memory.keys)
        assert np.array_equal(other.values, memory.values)
        assert torch.equal(last([0, 1, 2]), together)
    finally:
        torch.set_num_threads(threads)


def test_a_full_cache_is_refused() -> None:
    decoder = Int8Decoder(small_random_model())
    memory = decoder.attend_to(torch.randn(1, 1500, 128))
    cache = TextCache(decoder, 1, 1, capacity=2)
    decoder.prefill(torch.tensor([[1, 2]]), memory, cache, [1])
    with pytest.raises(IndexError):
        decoder.step(torch.tensor([3]), memory, cache)


def test_heads_that_int8_cannot_take_are_refused() -> None:
    model = Whisper(ModelDimensions(80, 1500, 64, 1, 1, 51864, 448, 48, 2, 1))
    with pytest.raises(ValueError, match="24 wide"):
        Int8Decoder(model)


def test_the_kind_of_decoder_follows_the_compute_type() -> None:
    model = small_random_model()
    assert isinstance(decoder_of(model), CachedDecoder)
    assert isinstance(decoder_of(model, "int8"), Int8Decoder)
    assert isinstance(decoder_of(model, "auto"), Int8Decoder)
    with pytest.raises(ValueError, match="float16"):
        decoder_of(model, "float16")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="greedy"),
        pytest.param({"beam_size": 3}, id="beam"),
        pytest.param({"temperature": 0.2, "best_of": 2}, id="sampling"),
        pytest.param({"without_timestamps": True, "suppress_tokens": ""}, id="unfiltered"),
    ],
)
def test_speech_is_read_in_int8(tiny: Any, states: torch.Tensor, options: dict[str, Any]) -> None:
    chosen = DecodeOptions(**{"temperature": 0.0, **options})
    in_int8 = recogniser_of(tiny, "int8")
    speech, noise = decode_with_fallback(in_int8, states, chosen)
    (alone,) = decode_with_fallback(in_int8, states[1:], chosen, windows=[1])
    assert alone.tokens == noise.tokens
    assert "a lighthouse turns its last slow circle above them" in speech.text
    (exact,) = decode_with_fallback(recogniser_of(tiny), states[:1], chosen)
    assert speech.avg_logprob == pytest.approx(exact.avg_logprob, abs=0.1)
    assert speech.no_speech_prob == pytest.approx(exact.no_speech_prob, abs=0.02)


def test_a_prompt_is_read_in_int8(tiny: Any, states: torch.Tensor) -> None:
    options = DecodeOptions(temperature=0.0)
    prompt = get_tokenizer(False).encode(" A harbour before sunrise, and the market in the afternoon." * 8)
    (hypothesis,) = decode_with_fallback(recogniser_of(tiny, "int8"), states[:1], options, prompt=prompt)
    (exact,) = decode_with_fallback(recogniser_of(tiny), states[:1], options, prompt=prompt)
    assert hypothesis.text == exact.text
    assert "a lighthouse turns its last slow circle above them" in hypothesis.text


def test_languages_are_detected_in_int8() -> None:
    model, states = small_random_model(51865), torch.randn(2, 1500, 128)
    found, expected = (
        detect_languages(recogniser, recogniser.decoder.attend_to(states))
        for recogniser in (recogniser_of(model, "int8"), recogniser_of(model))
    )
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        assert list(one.values()) == pytest.approx(list(other.values()), rel=0.2, abs=0.01)


def task(tiny: Any, **options: Any) -> DecodingTask:
    return DecodingTask(tiny, DecodingOptions(language="en", fp16=False, **options))


def test_the_greedy_choice_is_whispers(tiny: Any) -> None:
    eot = task(tiny).tokenizer.eot
    logits = torch.from_numpy(normal(6, 51864)) * 5
    logits[:, :1000] = -np.inf
    logits[1, eot] = 100
    tokens = torch.randint(1000, 2000, (6, 5))
    tokens[3, -1] = eot
    before = torch.randn(6)
    sums, theirs = before.clone(), before.clone()
    chosen, ended = GreedyChoice(eot).update(tokens, logits, sums)
    expected, _ = GreedyDecoder(0.0, eot).update(tokens, logits, theirs)
    assert torch.equal(chosen, expected)
    assert not ended
    top = logits.double().log_softmax(-1).max(-1).values
    exact = before + torch.where(tokens[:, -1] == eot, 0.0, top)
    torch.testing.assert_close(sums.double(), exact.double(), rtol=0, atol=2e-5)
    tokens[:] = eot
    assert GreedyChoice(eot).update(tokens, logits, sums)[1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"without_timestamps": True},
        {"suppress_tokens": [], "suppress_blank": False, "max_initial_timestamp": None},
        {"prompt": [300, 301]},
    ],
)
def test_the_rules_are_whispers(tiny: Any, options: dict[str, Any]) -> None:
    whispers = task(tiny, **options)
    eot, begin = whispers.tokenizer.eot, whispers.tokenizer.timestamp_begin
    rules = TokenRules(whispers.logit_filters, eot, whispers.sample_begin)
    generator = np.random.default_rng(3)
    initial = torch.tensor([whispers.initial_tokens])
    histories = [[]], [[begin + 3]], [[begin + 50], [400]], [[begin, 400, 401], [400, begin + 9, begin + 9]]
    ends = [
        [begin + 2, 400, begin + 7],
        [begin + 2, begin + 7, 500],
        [400, 500, begin + 1499],
        [400, 401, 402],
    ]
    for history in (*histories, ends):
        sampled = torch.tensor(history, dtype=torch.int64)
        tokens = torch.cat([initial.repeat(len(history), 1), sampled], dim=1)
        for boost in (-20.0, -3.0, 0.0, 3.0, 20.0):
            logits = torch.from_numpy(generator.standard_normal((len(history), 51864)).astype(np.float32)) * 3
            logits[:, begin:] += boost
            expected = logits.clone()
            for rule in whispers.logit_filters:
                rule.apply(expected, tokens)
            rules.apply(logits, tokens)
            assert torch.equal(logits, expected)


def test_a_rule_that_is_not_whispers_is_refused() -> None:
    with pytest.raises(ValueError, match="object is not one"):
        TokenRules([object()], 0, 0)
