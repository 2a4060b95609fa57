"""The compiled rules and the greedy choice, against openai-whisper's."""

from typing import Any

import numpy as np
import pytest
import torch
from whisper.decoding import DecodingOptions, DecodingTask, GreedyDecoder

from models.decoding.token_rules import GreedyChoice, TokenRules


def normal(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


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
