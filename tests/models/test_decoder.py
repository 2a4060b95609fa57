from collections.abc import Iterator
from typing import Any

import pytest
import torch
from material.small_models import recogniser_of, small_random_model
from whisper.decoding import DecodingOptions, DecodingTask, decode
from whisper.tokenizer import get_tokenizer

from models.decoder import CachedDecoder, TextCache
from models.decoding.fallback import decode_with_fallback
from models.decoding.options import DecodeOptions
from models.decoding.recogniser import Recogniser
from models.decoding.search import WindowDecoding

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["published", "random"])
def model_and_states(request: pytest.FixtureRequest) -> Iterator[tuple[Any, torch.Tensor]]:
    if request.param == "published":
        yield request.getfixturevalue("tiny"), request.getfixturevalue("states")
    else:
        yield small_random_model(), torch.randn(2, 1500, 128)


@torch.no_grad()
def test_logits_are_those_of_whisper_also_after_reordering(
    model_and_states: tuple[Any, torch.Tensor],
) -> None:
    model, states = model_and_states
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randint(0, 50000, (2, 9), generator=generator)
    expected = model.decoder(prompt, states)
    decoder = CachedDecoder(model)
    memory = decoder.attend_to(states)
    cache = TextCache(decoder, n_audio=2, n_group=3, capacity=14)
    logits = decoder.prefill(prompt, memory, cache, [2, 8])
    torch.testing.assert_close(logits, expected[:, [2, 8]], rtol=0, atol=3e-4)
    sequences = prompt.repeat_interleave(3, dim=0)
    for order in ([0, 1, 2, 3, 4, 5], [1, 1, 0, 5, 3, 4], [2, 0, 2, 3, 3, 3], [0, 2, 1, 4, 5, 5]):
        sequences = sequences[order]
        cache.reorder(order)
        new = torch.randint(0, 50000, (6,), generator=generator)
        sequences = torch.cat([sequences, new[:, None]], dim=1)
        logits = decoder.step(new, memory, cache)
        expected = model.decoder(sequences, states.repeat_interleave(3, dim=0))[:, -1]
        torch.testing.assert_close(logits, expected, rtol=0, atol=3e-4)


@torch.no_grad()
def test_a_step_leaves_out_sequences_that_ended() -> None:
    model, states = small_random_model(), torch.randn(3, 1500, 128)
    decoder = CachedDecoder(model)
    memory = decoder.attend_to(states)
    tokens = torch.tensor([11, 12, 13, 14, 15, 16])

    def steps(active: torch.Tensor | None) -> list[torch.Tensor]:
        cache = TextCache(decoder, 3, 2, capacity=4)
        decoder.prefill(torch.tensor([[5, 6], [7, 8], [9, 10]]), memory, cache, [1])
        return [decoder.step(new, memory, cache, active) for new in (tokens, tokens + 20)]

    going_on = torch.tensor([True, False, True, True, False, True])
    for whole, some in zip(steps(None), steps(going_on), strict=True):
        torch.testing.assert_close(some[going_on], whole[going_on], rtol=1e-5, atol=1e-4)
        assert not some[~going_on].any()


@pytest.mark.parametrize("n_vocab", [51864, 51865])
def test_the_suppressed_tokens_are_whispers(n_vocab: int) -> None:
    model = small_random_model(n_vocab)
    options = DecodingOptions(fp16=False, language="en")
    get_tokenizer.cache_clear()
    found = WindowDecoding(recogniser_of(model), options)._get_suppress_tokens()
    get_tokenizer.cache_clear()
    assert found == DecodingTask(model, options)._get_suppress_tokens()


def test_a_full_cache_is_refused() -> None:
    decoder = CachedDecoder(small_random_model())
    memory = decoder.attend_to(torch.randn(1, 1500, 128))
    cache = TextCache(decoder, 1, 1, capacity=2)
    decoder.prefill(torch.tensor([[1, 2]]), memory, cache, [1])
    with pytest.raises(IndexError):
        decoder.step(torch.tensor([3]), memory, cache)


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
    tiny: Any, recogniser: Recogniser, states: torch.Tensor, theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    torch.manual_seed(7)
    expected = decode(tiny, states[0], DecodingOptions(language="en", fp16=False, **theirs))
    torch.manual_seed(7)
    options = DecodeOptions(**{"temperature": 0.0, "seed": None, **ours})
    (result,) = decode_with_fallback(recogniser, states[:1], options, prompt=theirs.get("prompt", ()))
    assert list(result.tokens) == expected.tokens
    assert result.text == expected.text
    assert "a lighthouse turns its last slow circle above them" in result.text
    assert result.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-5)
    assert result.no_speech_prob == pytest.approx(expected.no_speech_prob, abs=1e-5)
    assert result.compression_ratio == expected.compression_ratio


def test_a_beam_does_not_depend_on_its_batch(recogniser: Recogniser, states: torch.Tensor) -> None:
    options = DecodeOptions(temperature=0.0, beam_size=3)
    together = decode_with_fallback(recogniser, states, options)
    alone = [decode_with_fallback(recogniser, states[i : i + 1], options)[0] for i in (0, 1)]
    assert [r.tokens for r in together] == [r.tokens for r in alone]


def test_only_the_window_that_fails_falls_back(recogniser: Recogniser, states: torch.Tensor) -> None:
    options = DecodeOptions(
        temperature=(0.0, 0.4, 0.8), best_of=2, logprob_threshold=-0.4, no_speech_threshold=None
    )
    speech, noise = decode_with_fallback(recogniser, states, options)
    assert speech.temperature == 0
    assert (
        speech.tokens
        == decode_with_fallback(recogniser, states[:1], DecodeOptions(temperature=0.0))[0].tokens
    )
    assert noise.temperature == 0.8
    (again,) = decode_with_fallback(recogniser, states[1:], options, windows=[1])
    assert again.tokens == noise.tokens
    (other,) = decode_with_fallback(recogniser, states[1:], options, windows=[2])
    assert other.tokens != noise.tokens


def test_silence_does_not_fall_back(recogniser: Recogniser, states: torch.Tensor) -> None:
    options = DecodeOptions(logprob_threshold=-0.05, no_speech_threshold=0.0)
    results = decode_with_fallback(recogniser, states, options)
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
