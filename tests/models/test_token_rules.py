"""The rules and the greedy choice, against openai-whisper's."""

from typing import Any

import numpy as np
import pytest
import torch
from material.small_models import small_random_model
from whisper.decoding import DecodingOptions, DecodingTask, GreedyDecoder

from models.decoding.options import DecodeOptions
from models.decoding.search import GreedyChoice, initial_tokens
from models.decoding.token_rules import TokenRules
from models.openai import get_tokenizer
from models.weights.building import Model


def normal(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def test_the_greedy_choice_is_whispers() -> None:
    eot = get_tokenizer(False).eot
    logits = normal(6, 51864) * 5
    logits[:, :1000] = -np.inf
    logits[1, eot] = 100
    tokens = np.random.default_rng(0).integers(1000, 2000, (6, 5))
    tokens[3, -1] = eot
    before = normal(6)
    sums, theirs = before.copy(), before.copy()
    chosen, ended = GreedyChoice(eot, 2).update(tokens, logits, sums)
    expected, _ = GreedyDecoder(0.0, eot).update(*map(torch.from_numpy, (tokens, logits, theirs)))
    assert np.array_equal(chosen, expected)
    assert not ended
    top = torch.from_numpy(logits).double().log_softmax(-1).max(-1).values.numpy()
    np.testing.assert_allclose(sums, before + np.where(tokens[:, -1] == eot, 0, top), rtol=0, atol=2e-5)
    tokens[:] = eot
    assert GreedyChoice(eot, 2).update(tokens, logits, sums)[1]


@pytest.mark.parametrize("n_vocab", [51864, 51865])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"without_timestamps": True},
        {"suppress_tokens": [], "suppress_blank": False, "max_initial_timestamp": None},
        {"prompt": [300, 301]},
        {"prompt": list(range(300, 800)), "suppress_tokens": [5, 7]},
    ],
)
def test_the_rules_are_whispers(tiny: Model, n_vocab: int, options: dict[str, Any]) -> None:
    multilingual = n_vocab == 51865
    get_tokenizer.cache_clear()
    whispers = DecodingTask(
        tiny.whisper if not multilingual else small_random_model(n_vocab).whisper,
        DecodingOptions(language="en", fp16=False, **options),
    )
    get_tokenizer.cache_clear()
    tokenizer = whispers.tokenizer
    begin = tokenizer.timestamp_begin
    prompt = options.pop("prompt", [])
    ours = DecodeOptions(**{**options, "suppress_tokens": tuple(options.get("suppress_tokens", [-1]))})
    initial = initial_tokens(tokenizer, ours, prompt, 448)
    assert initial == list(whispers.initial_tokens)
    rules = TokenRules(tokenizer, ours, len(initial), 1500)
    generator = np.random.default_rng(3)
    histories = [[]], [[begin + 3]], [[begin + 50], [400]], [[begin, 400, 401], [400, begin + 9, begin + 9]]
    ends = [
        [begin + 2, 400, begin + 7],
        [begin + 2, begin + 7, 500],
        [400, 500, begin + 1499],
        [400, 401, 402],
    ]
    for history in (*histories, ends):
        tokens = np.array([[*initial, *sampled] for sampled in history], np.int64)
        for boost in (-20.0, -3.0, 0.0, 3.0, 20.0):
            logits = generator.standard_normal((len(history), n_vocab), np.float32) * 3
            logits[:, begin:] += boost
            expected = torch.from_numpy(logits.copy())
            for rule in whispers.logit_filters:
                rule.apply(expected, torch.from_numpy(tokens))
            rules.apply(logits, tokens)
            assert np.array_equal(logits, expected)


def test_a_sequence_that_has_ended_keeps_its_logits() -> None:
    tokenizer = get_tokenizer(False)
    logits = normal(1, 51864)
    kept = logits.copy()
    TokenRules(tokenizer, DecodeOptions(), 1, 1500).apply(
        logits, np.array([[tokenizer.sot, 400, tokenizer.eot]])
    )
    assert np.array_equal(logits, kept)
