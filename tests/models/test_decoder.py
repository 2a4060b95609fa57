from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from material.small_models import recogniser_of, small_random_model, terse
from whisper.decoding import DecodingOptions, decode
from whisper.tokenizer import get_tokenizer

from models.cached_decoder import CachedDecoder
from models.compute import ComputeType, has_bfloat16, resolve_compute_type
from models.decoder import Decoder, Memory, Sequences, batch_invariant
from models.decoding.fallback import decode_with_fallback, detect_languages
from models.decoding.options import DecodeOptions
from models.decoding.recogniser import Recogniser, decoder_of
from models.decoding.search import Hypothesis
from models.graphs.decoder import GraphDecoder
from models.weights.building import Model

Make = Callable[[Model], Decoder]

pytestmark = pytest.mark.usefixtures("one_thread")


def normal(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def decoded(recogniser: Recogniser, states: Any, options: DecodeOptions, **how: Any) -> list[Hypothesis]:
    return decode_with_fallback(recogniser, recogniser.decoder.attend_to(states), options, **how)


def whispers_logits(model: Model, tokens: Any, states: Any) -> Any:
    with torch.no_grad():
        return model.whisper.decoder(torch.from_numpy(tokens), torch.from_numpy(states)).numpy()


@pytest.fixture(params=["published", "random"])
def model_and_states(request: pytest.FixtureRequest) -> Iterator[tuple[Model, Any]]:
    if request.param == "published":
        yield request.getfixturevalue("tiny"), request.getfixturevalue("states")
    else:
        yield small_random_model(), normal(2, 1500, 128)


@pytest.fixture(params=["PyTorch", "OpenVINO"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a decoder of a model that computes in float32."""
    if request.param == "PyTorch":
        return CachedDecoder
    monkeypatch.setattr("models.graphs.decoder.has_bfloat16", lambda: False)
    return partial(GraphDecoder, int8=False)


@pytest.mark.parametrize("compute_type", ["int8", "bfloat16"])
def test_a_windows_logits_are_the_same_to_the_bit_alone_and_among_others_or_that_is_known(
    model_and_states: tuple[Model, Any], compute_type: ComputeType
) -> None:
    if resolve_compute_type(compute_type) == "float32":
        pytest.skip("this processor has no instructions for bfloat16")
    model, states = model_and_states
    decoder = decoder_of(model, compute_type)
    windows = [decoder.attend_to(states[:1] * scale) for scale in (1, 0.9, 0.8, 0.7, 0.6)]

    def logits(chosen: range, length: int) -> Any:
        memory = windows[chosen[0]].joined([windows[i] for i in chosen[1:]])
        tokens = np.array([np.arange(100, 100 + length) + 7 * i for i in chosen])
        sequences = Sequences(decoder, memory, n_group=1, capacity=length + 3)
        found = [sequences.prefill(tokens, [0, length - 1])[:, 1]]
        found += [sequences.step(np.array([1000 * step + i for i in chosen])) for step in range(3)]
        return np.stack(found)

    equal = True
    for length in (1, 3, 6):
        alone = np.concatenate([logits(range(i, i + 1), length) for i in range(5)], axis=1)
        for n in (2, 3, 5):
            equal = equal and bool((logits(range(n), length) == alone[:, :n]).all())
    known = batch_invariant(decoder, model.dims, windows=5, rows=30)
    assert equal or not known
    assert known or has_bfloat16()  # elsewhere it was seen, and what is served has its speed from it


def test_sums_that_depend_on_how_many_are_decoded_are_seen() -> None:
    model = small_random_model()
    for size, seen in ((0, False), (1, True), (5, True), (8, True), (20, True), (33, False)):

        class Rounding(GraphDecoder):
            def run(self, tokens: Any, size: int = size, **how: Any) -> Any:
                return super().run(tokens, **how) * np.float32(1 + (tokens.size == size) * 2**-22)

        decoder = Rounding(model, int8=True)
        assert batch_invariant(decoder, model.dims, windows=5, rows=32) != seen or has_bfloat16()
    assert not batch_invariant(CachedDecoder(model), model.dims, windows=2, rows=32)


def test_logits_are_those_of_whisper_also_after_reordering(
    model_and_states: tuple[Model, Any], make: Make
) -> None:
    model, states = model_and_states
    generator = np.random.default_rng(1)
    prompt = generator.integers(0, 50000, (2, 9))
    expected = whispers_logits(model, prompt, states)
    decoder = make(model)
    sequences = Sequences(decoder, decoder.attend_to(states), n_group=3, capacity=14)
    logits = sequences.prefill(prompt, [2, 8])
    np.testing.assert_allclose(logits, expected[:, [2, 8]], rtol=0, atol=3e-4)
    read = prompt.repeat(3, axis=0)
    for order in ([0, 1, 2, 3, 4, 5], [1, 1, 0, 5, 3, 4], [2, 0, 2, 3, 3, 3], [0, 2, 1, 4, 5, 5]):
        sequences.reorder(order)
        new = generator.integers(0, 50000, 6)
        read = np.concatenate([read[order], new[:, None]], axis=1)
        expected = whispers_logits(model, read, states.repeat(3, axis=0))[:, -1]
        np.testing.assert_allclose(sequences.step(new), expected, rtol=0, atol=3e-4)


@pytest.mark.parametrize("going_on", ["1111 00", "0011 11", "1100 00", "1000 11", "0100 01"])
def test_a_step_leaves_out_windows_that_ended(make: Make, going_on: str) -> None:
    model, states = small_random_model(), normal(3, 1500, 128)
    decoder = make(model)
    memory = decoder.attend_to(states)
    live = np.array([mark == "1" for mark in going_on.replace(" ", "")])

    def steps(active: Any) -> list[Any]:
        sequences = Sequences(decoder, memory, 2, capacity=6)
        sequences.prefill(np.array([[5, 6], [7, 8], [9, 10]]), [1])
        results = []
        for first in (11, 31, 51):
            results.append(sequences.step(np.arange(first, first + 6), active))
            # Each window's sequences continue the one that goes on, or themselves.
            sources = [next((i for i in (s, s ^ 1) if live[i]), s) for s in range(6)]
            sequences.reorder(sources)
        return results

    for whole, some in zip(steps(None), steps(live), strict=True):
        np.testing.assert_allclose(some[live], whole[live], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("n_vocab", [51864, 51865])
@pytest.mark.parametrize("bfloat16", [True, False])
def test_int8_logits_are_near_those_in_float32(
    n_vocab: int, bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bfloat16 and not has_bfloat16():
        pytest.skip("this processor has no instructions for bfloat16")
    monkeypatch.setattr("models.graphs.decoder.has_bfloat16", lambda: bfloat16)
    model, states = small_random_model(n_vocab), normal(2, 1500, 128)
    decoders = CachedDecoder(model), GraphDecoder(model, int8=True)
    exact, ours = (Sequences(d, d.attend_to(states), n_group=3, capacity=14) for d in decoders)
    generator = np.random.default_rng(1)
    prompt = generator.integers(0, 50000, (2, 9))
    expected, logits = exact.prefill(prompt, [2, 8]), ours.prefill(prompt, [2, 8])
    for order in ([0, 1, 2, 3, 4, 5], [1, 1, 0, 5, 3, 4], [2, 0, 2, 3, 3, 3], None):
        spread = expected.std()
        assert logits.shape == expected.shape
        # what INT8 leaves of weights shows, or they would not be INT8
        assert 1e-3 * spread < (logits - expected).std() < 0.02 * spread
        if order is not None:
            exact.reorder(order)
            ours.reorder(order)
            new = generator.integers(0, 50000, 6)
            expected, logits = exact.step(new), ours.step(new)


def test_int8_logits_of_likely_tokens_are_those_of_the_embedding(tiny: Model, states: Any) -> None:
    """Differences among them are as they are in float32, but for what the layers did."""
    decoders = CachedDecoder(tiny), GraphDecoder(tiny, int8=True)
    sot = get_tokenizer(False).sot_sequence_including_notimestamps
    exact, ours = (
        Sequences(d, d.attend_to(states), 1, 448).prefill(np.array([sot, sot]), [1])[:, 0] for d in decoders
    )
    likely = ours > ours.max(1, keepdims=True) - 5
    assert likely.sum() > 10
    # measured: 0.02 among the likely; 0.3 among the others
    assert (ours - exact)[likely].std() < 0.1 < (ours - exact)[~likely].std()


def test_windows_do_not_depend_on_their_batch(make: Make) -> None:
    model, states = small_random_model(), normal(3, 1500, 128)
    decoder = make(model)
    memory = decoder.attend_to(states)
    prompt, new = np.array([[5, 6], [7, 8], [9, 10]]), np.array([11, 12, 13])

    def last(windows: list[int]) -> Any:
        sequences = Sequences(decoder, memory.select(windows), 1, capacity=3)
        sequences.prefill(prompt[windows], [1])
        return sequences.step(new[windows])

    together = last([0, 1, 2])
    for windows in ([0], [1], [2], [2, 0]):
        np.testing.assert_allclose(last(windows), together[windows], rtol=1e-5, atol=1e-4)


def test_windows_that_ended_make_room_and_leave_the_others_as_they_were(make: Make) -> None:
    decoder = make(small_random_model())
    own = [decoder.attend_to(normal(1, 1500, 128) * (1 + i)) for i in range(6)]

    def step(memory: Memory) -> Any:
        sequences = Sequences(decoder, memory, 1, capacity=1)
        return sequences.prefill(np.full((len(memory), 1), 5), [0])[:, 0]

    alone = np.concatenate([step(memory) for memory in own])
    larger = None
    for chosen in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 0], [2, 4, 0, 1, 5]):
        memory = own[chosen[0]].joined([own[i] for i in chosen[1:]], larger)
        larger = larger or memory
        np.testing.assert_allclose(step(memory), alone[chosen], rtol=1e-5, atol=1e-4)
        for kept in ([0, 2, 3], [1, 2], [1]):
            memory, chosen = memory.narrowed(kept), [chosen[i] for i in kept]
            np.testing.assert_allclose(step(memory), alone[chosen], rtol=1e-5, atol=1e-4)
    several = decoder.attend_to(normal(3, 1500, 128))
    before = step(several)
    several.narrowed([0, 2]).narrowed([1])
    np.testing.assert_array_equal(step(several), before)  # somebody else may still read it
    np.testing.assert_array_equal(np.concatenate([step(memory) for memory in own]), alone)


def test_texts_that_are_read_in_turn_do_not_meet(make: Make) -> None:
    decoder = make(small_random_model())
    memory = decoder.attend_to(normal(1, 1500, 128))

    def read(first: int) -> Iterator[Any]:
        sequences = Sequences(decoder, memory, 1, capacity=4)
        yield sequences.prefill(np.array([[first]]), [0])[:, 0]
        for token in (first + 1, first + 2):
            yield sequences.step(np.array([token]))

    in_turn = list(zip(read(5), read(50), strict=True))
    for found, alone in zip(in_turn, zip(list(read(5)), list(read(50)), strict=True), strict=True):
        np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-5)


def test_a_full_cache_is_refused(make: Make) -> None:
    decoder = make(small_random_model())
    sequences = Sequences(decoder, decoder.attend_to(normal(1, 1500, 128)), 1, capacity=2)
    sequences.prefill(np.array([[1, 2]]), [1])
    with pytest.raises(IndexError):
        sequences.step(np.array([3]))


def test_the_kind_of_decoder_follows_the_compute_type() -> None:
    model = small_random_model()
    assert isinstance(decoder_of(model), CachedDecoder)
    assert isinstance(decoder_of(model, "int8"), GraphDecoder)
    assert isinstance(decoder_of(model, "auto"), GraphDecoder)
    with pytest.raises(ValueError, match="float16"):
        decoder_of(model, "float16")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        pytest.param({}, {}, id="greedy"),
        pytest.param({"beam_size": 5, "patience": 0.6}, {"beam_size": 5, "patience": 0.6}, id="beam"),
        pytest.param({"prompt": list(range(300, 540))}, {}, id="prompt"),
        pytest.param({"temperature": 0.9, "best_of": 3}, {"temperature": 0.9, "best_of": 3}, id="sampling"),
        pytest.param(
            {"without_timestamps": True, "suppress_tokens": "", "suppress_blank": False},
            {"without_timestamps": True, "suppress_tokens": "", "suppress_blank": False},
            id="unfiltered",
        ),
    ],
)
def test_decoding_is_that_of_whisper(
    tiny: Model, recogniser: Recogniser, states: Any, theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    torch.manual_seed(7)
    expected = decode(
        tiny.whisper, torch.from_numpy(states[0]), DecodingOptions(language="en", fp16=False, **theirs)
    )
    torch.manual_seed(7)
    options = DecodeOptions(**{"temperature": 0.0, "seed": None, **ours})
    (result,) = decoded(recogniser, states[:1], options, prompt=theirs.get("prompt", ()))
    assert list(result.tokens) == expected.tokens
    assert result.text == expected.text
    assert "a lighthouse turns its last slow circle above them" in result.text
    assert result.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-5)
    assert result.no_speech_prob == pytest.approx(expected.no_speech_prob, abs=1e-5)
    assert result.compression_ratio == expected.compression_ratio


def test_a_beam_does_not_depend_on_its_batch(recogniser: Recogniser, states: Any) -> None:
    options = DecodeOptions(temperature=0.0, beam_size=3)
    together = decoded(recogniser, states, options)
    alone = [decoded(recogniser, states[i : i + 1], options)[0] for i in (0, 1)]
    assert [r.tokens for r in together] == [r.tokens for r in alone]


@pytest.mark.parametrize("compute_type", ["int8", "bfloat16"])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="greedy"),
        pytest.param({"beam_size": 3}, id="beam"),
        pytest.param({"temperature": 0.2, "best_of": 2}, id="sampling"),
        pytest.param({"without_timestamps": True, "suppress_tokens": ""}, id="unfiltered"),
    ],
)
def test_speech_is_read_in_other_compute_types(
    tiny: Model,
    recogniser: Recogniser,
    states: Any,
    compute_type: ComputeType,
    options: dict[str, Any],
) -> None:
    if resolve_compute_type(compute_type) != compute_type:
        pytest.skip("this processor has no instructions for bfloat16")
    chosen = DecodeOptions(**{"temperature": 0.0, **options})
    other = terse(recogniser_of(tiny, compute_type))
    speech, _ = decoded(other, states, chosen)
    (alone,) = decoded(other, states[:1], chosen)
    assert alone.tokens == speech.tokens
    assert "a lighthouse turns its last slow circle above them" in speech.text
    (exact,) = decoded(recogniser, states[:1], chosen)
    assert speech.avg_logprob == pytest.approx(exact.avg_logprob, abs=0.1)
    assert speech.no_speech_prob == pytest.approx(exact.no_speech_prob, abs=0.02)


def test_a_prompt_is_read_in_int8(tiny: Model, recogniser: Recogniser, states: Any) -> None:
    options = DecodeOptions(temperature=0.0)
    prompt = get_tokenizer(False).encode(" A harbour before sunrise, and the market in the afternoon." * 8)
    (hypothesis,) = decoded(recogniser_of(tiny, "int8"), states[:1], options, prompt=prompt)
    (exact,) = decoded(recogniser, states[:1], options, prompt=prompt)
    assert hypothesis.text == exact.text
    assert "a lighthouse turns its last slow circle above them" in hypothesis.text


def test_languages_are_detected_in_int8() -> None:
    model, states = small_random_model(51865), normal(2, 1500, 128)
    found, expected = (
        detect_languages(recogniser, recogniser.decoder.attend_to(states))
        for recogniser in (recogniser_of(model, "int8"), recogniser_of(model))
    )
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        assert list(one.values()) == pytest.approx(list(other.values()), rel=0.2, abs=0.01)


def test_only_the_window_that_fails_falls_back(recogniser: Recogniser, states: Any) -> None:
    options = DecodeOptions(
        temperature=(0.0, 0.4, 0.8), best_of=2, logprob_threshold=-0.4, no_speech_threshold=None
    )
    recogniser = terse(recogniser)
    speech, noise = decoded(recogniser, states, options)
    assert speech.temperature == 0
    assert speech.tokens == decoded(recogniser, states[:1], DecodeOptions(temperature=0.0))[0].tokens
    assert noise.temperature == 0.8
    (again,) = decoded(recogniser, states[1:], options, windows=[1])
    assert again.tokens == noise.tokens
    (other,) = decoded(recogniser, states[1:], options, windows=[2])
    assert other.tokens != noise.tokens


def test_silence_does_not_fall_back(recogniser: Recogniser, states: Any) -> None:
    options = DecodeOptions(logprob_threshold=-0.05, no_speech_threshold=0.0)
    results = decoded(recogniser, states, options)
    assert [result.temperature for result in results] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "summarise"}, "transcribe or translate"),
        ({"temperature": ()}, "temperature"),
        ({"temperature": (0.0, -0.2)}, "temperature"),
        ({"temperature": 0.4, "beam_size": 5}, "beam_size needs a temperature of 0"),
        ({"beam_size": 0}, "beam_size must be"),
        ({"best_of": 0}, "best_of must be"),
        ({"patience": 2.0}, "patience requires beam_size"),
        ({"patience": 0.1, "beam_size": 2}, "patience times beam_size"),
        ({"length_penalty": 1.5}, "between 0 and 1"),
        ({"hallucination_silence_threshold": 2.0}, "requires word_timestamps"),
        ({"clip_timestamps": "1,x"}, "not a list of seconds"),
        ({"clip_timestamps": "5,3"}, "ascending"),
        ({"suppress_tokens": "a"}, "not a list of ids"),
    ],
)
def test_contradictory_options_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        DecodeOptions(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("n_vocab", "options", "message"),
    [
        (51864, {"task": "translate"}, "English-only model cannot translate"),
        (51864, {"language": "French"}, "English-only model cannot transcribe french"),
        (51865, {"language": "frensh"}, "did you mean 'french'"),
        (51865, {"language": "yue"}, "does not know cantonese"),
        (51865, {"suppress_tokens": "99999"}, "99999"),
    ],
)
def test_options_that_the_model_cannot_meet(n_vocab: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecodeOptions(**options).for_model(small_random_model(n_vocab))


def test_a_language_is_normalised_to_its_code() -> None:
    assert DecodeOptions(language="Castilian").for_model(small_random_model(51865)).language == "es"
    assert DecodeOptions().for_model(small_random_model(51864)).language == "en"
    assert DecodeOptions().for_model(small_random_model(51865)).language is None
