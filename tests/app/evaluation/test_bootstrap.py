from __future__ import annotations

import numpy as np
import pytest

from app.evaluation.bootstrap import BLOCK, Interval, replicate


def systems(count: int = 500, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    random = np.random.default_rng(seed)
    words = random.integers(1, 40, count)
    errors = {"cpu": random.binomial(words, 0.05), "int8": random.binomial(words, 0.08)}
    return errors, words


def test_two_systems_that_err_alike_differ_by_nothing() -> None:
    errors, words = systems()
    drawn = replicate({"cpu": errors["cpu"], "int32": errors["cpu"].copy()}, words, replications=500)
    assert drawn.difference("int32", "cpu") == Interval(0.0, 0.0)
    assert drawn.share_better("int32", "cpu") == 0.0
    assert drawn.interval("cpu") == drawn.interval("int32")


def test_one_utterance_can_only_be_drawn() -> None:
    drawn = replicate({"cpu": np.array([3])}, np.array([12]), replications=100)
    assert drawn.interval("cpu") == Interval(0.25, 0.25)


def test_two_utterances_give_the_binomial() -> None:
    """WER is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4."""
    drawn = replicate(
        {"a": np.array([0, 10]), "b": np.array([10, 0])}, np.array([10, 10]), replications=20_000
    )
    values, counts = np.unique(drawn.wer["a"], return_counts=True)
    assert values.tolist() == [0.0, 0.5, 1.0]
    # Five standard deviations of the rarer share: 5 * sqrt(3/16 / 20000) = 0.0153.
    assert np.allclose(counts / 20_000, [0.25, 0.5, 0.25], atol=0.018)
    assert np.array_equal(drawn.wer["b"], 1 - drawn.wer["a"])
    assert drawn.share_better("a", "b") == pytest.approx(0.25, abs=0.018)


def test_spread_is_that_of_the_ratio_estimator() -> None:
    """Var(E / W) is sum((e - r w)^2) / W^2 to first order (Cochran, Sampling Techniques, 1977, 6.4)."""
    errors, words = systems(2000)
    drawn = replicate(errors, words, replications=10_000)
    for name, wrong in errors.items():
        rate = wrong.sum() / words.sum()
        expected = np.sqrt(((wrong - rate * words) ** 2).sum()) / words.sum()
        assert drawn.wer[name].std() == pytest.approx(expected, rel=0.05)
        found = drawn.interval(name)
        assert found is not None
        assert (found.high - found.low) / 2 == pytest.approx(1.96 * expected, rel=0.06)
        assert (found.high + found.low) / 2 == pytest.approx(rate, rel=0.02)
    gained = errors["int8"] - errors["cpu"]
    rate = gained.sum() / words.sum()
    expected = np.sqrt(((gained - rate * words) ** 2).sum()) / words.sum()
    assert (drawn.wer["int8"] - drawn.wer["cpu"]).std() == pytest.approx(expected, rel=0.05)


def test_pairing_narrows_the_difference() -> None:
    errors, words = systems()
    alike = errors["cpu"].copy()
    alike[:5] += 1
    drawn = replicate({"cpu": errors["cpu"], "int32": alike}, words, replications=2000)
    paired, own = drawn.difference("int32", "cpu"), drawn.interval("cpu")
    assert paired is not None
    assert own is not None
    assert paired.high - paired.low < (own.high - own.low) / 5
    assert paired.low >= 0


def test_the_seed_decides_and_another_backend_does_not() -> None:
    errors, words = systems()
    both = replicate(errors, words, replications=300)
    alone = replicate({"cpu": errors["cpu"]}, words, replications=300)
    other = replicate({"cpu": errors["cpu"]}, words, replications=300, seed=1)
    assert np.array_equal(both.wer["cpu"], alone.wer["cpu"])
    assert not np.array_equal(alone.wer["cpu"], other.wer["cpu"])


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_blocks_do_not_show(count: int) -> None:
    errors, words = systems(50)
    drawn = replicate(errors, words, replications=count).wer["cpu"]
    assert drawn.shape == (count,)
    assert np.array_equal(drawn[:1], replicate(errors, words, replications=1).wer["cpu"])


def test_each_with_a_speaker_of_its_own_is_the_utterances() -> None:
    errors, words = systems(60)
    own = [f"{i:03d}" for i in range(60)]
    by_speaker = replicate(errors, words, groups=own, replications=200)
    assert np.array_equal(by_speaker.wer["cpu"], replicate(errors, words, replications=200).wer["cpu"])


def test_speakers_come_whole_and_in_any_order() -> None:
    errors, words = systems(120)
    speakers = [f"s{i % 8}" for i in range(120)]
    drawn = replicate(errors, words, groups=speakers, replications=200)
    order = np.random.default_rng(3).permutation(120)
    shuffled = replicate(
        {name: wrong[order] for name, wrong in errors.items()},
        words[order],
        groups=[speakers[i] for i in order],
        replications=200,
    )
    assert np.array_equal(drawn.wer["cpu"], shuffled.wer["cpu"])
    one_each = replicate(
        {"a": np.array([0, 0, 9, 9])}, np.array([9, 9, 9, 9]), groups=list("xxyy"), replications=500
    )
    assert set(np.unique(one_each.wer["a"])) == {0.0, 0.5, 1.0}


def test_speakers_that_differ_widen_the_interval() -> None:
    words = np.full(400, 20)
    speakers = [f"s{i % 20:02d}" for i in range(400)]
    wrong = np.array([4 if i % 20 < 5 else 0 for i in range(400)])
    by_utterance = replicate({"a": wrong}, words, replications=2000).wer["a"].std()
    by_speaker = replicate({"a": wrong}, words, groups=speakers, replications=2000).wer["a"].std()
    # 20 speakers that are each alike carry the evidence of 20 utterances: sqrt(400 / 20) = 4.47 times the spread.
    assert by_speaker / by_utterance == pytest.approx(np.sqrt(20), rel=0.1)


def test_draws_without_words_are_left_out() -> None:
    drawn = replicate({"a": np.array([2, 1])}, np.array([0, 4]), replications=2000)
    found = drawn.interval("a")
    assert found is not None
    # With one word-less utterance: (2 + 1) / 4 or 2 / 8; never 2 / 0.
    assert found == Interval(0.25, 0.75)
    assert replicate({"a": np.array([2])}, np.array([0]), replications=5).interval("a") is None
    assert replicate({"a": np.array([2])}, np.array([0]), replications=5).share_better("a", "a") is None


def test_of_nothing_and_of_one_speaker_there_are_no_draws() -> None:
    assert len(replicate({"a": np.array([], np.int64)}, np.array([], np.int64)).wer["a"]) == 0
    alone = replicate({"a": np.array([1, 2])}, np.array([5, 5]), groups=["x", "x"])
    assert alone.interval("a") is None
    with pytest.raises(ValueError, match="2 groups for 1 utterances"):
        replicate({"a": np.array([1])}, np.array([1]), groups=["x", "y"])
