"""The founding report's tile under every kernel, and what makes a kernel pass."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.evaluation.validation.text import text
from kernels import reference
from kernels.backends import INTEGER_BACKENDS
from kernels.emulator import Emulator
from kernels.npu.program.layout import tile_operands
from kernels.validation import Validation, softmax_attention, tile_data, validate_kernel, validate_tile
from kernels.validation.accuracy import INT8_STEP, NATURAL_PER_LOGIT, accuracy, natural_scores, score_range
from kernels.workers import Workers


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator(Workers(1))


@pytest.fixture(scope="module")
def validation(emulator: Emulator) -> Validation:
    return validate_kernel(emulator, "asked for", tiles=12)


def test_the_test_data_is_the_reports() -> None:
    np.random.seed(42)  # noqa: NPY002
    shape = (64, 64)
    expected = [np.random.randint(-64, 64, shape, dtype=np.int8) for _ in range(3)]  # noqa: NPY002
    q, k, v = tile_data()
    assert all(np.array_equal(a, b) for a, b in zip((q, k, v), expected, strict=True))
    scores = q.astype(float) @ k.astype(float).T / 8
    # the range that the founding report prints: -4631 to 4963
    assert (scores.min(), scores.max()) == (-4631.375, 4963.625)


def test_the_oracle_is_softmax_attention() -> None:
    q, k, v = (x[:5] for x in tile_data(1))
    small = q // 16
    for r in range(5):
        weights = [math.exp(int(small[r].astype(int) @ k[j].astype(int)) / 8) for j in range(5)]
        expected = sum(w * v[j].astype(float) for j, w in enumerate(weights)) / sum(weights)
        assert softmax_attention(small, k, v)[r] == pytest.approx(expected)


@pytest.mark.parametrize("scores", ["int32", "int8"])
def test_a_raw_tiles_logits_are_a_unit_of_q_k_over_eight(scores: Any) -> None:
    operands = tile_operands(scores, *tile_data())
    q, k, _ = tile_data()
    exact = q.astype(float) @ k.astype(float).T / 8
    natural = natural_scores(operands, 0, scores)
    step = INT8_STEP if scores == "int8" else NATURAL_PER_LOGIT
    assert np.abs(natural - exact).max() < 0.001 * np.abs(exact).max() + step


def test_natural_scores_are_the_contracts() -> None:
    operands = tile_operands("int32", *tile_data(3))
    operands.multiplier[0, 1], operands.key_multiplier[0, 2] = 3, 7
    operands = replace(operands, valid_keys=60)
    for scores, unit in (("int32", NATURAL_PER_LOGIT / 2**4), ("int8", INT8_STEP)):
        found = natural_scores(operands, 0, scores) / unit
        assert found.shape == (64, 60)
        for r, j in ((0, 0), (1, 2), (1, 59), (63, 2)):
            s = reference.score([int(x) for x in operands.q[0, r]], [int(x) for x in operands.k[0, j]])
            z = reference.scale(s, int(operands.key_multiplier[0, j])) * int(operands.multiplier[0, r])
            assert round(found[r, j]) == (z if scores == "int32" else reference.round_shift(z, 4))


def test_what_int8_clips_is_counted_to_the_last_score() -> None:
    step = 0.43
    found = score_range(np.array([[-129, -128, 0], [127, 128, 500]]) * step, step)
    assert found.clipped == 3 / 6
    assert found.held == (-128 * step, 127 * step)
    assert score_range(np.array([[-1e6, 1e6]]), None).clipped == 0


def test_accuracy_by_hand() -> None:
    found = accuracy(np.array([[0, 5], [10, -11]]), np.zeros((2, 2)))
    assert (found.mae, found.max_error, found.within_5, found.within_10) == (6.5, 11, 0.5, 0.75)
    assert found.rmse == pytest.approx(math.sqrt(246 / 4))
    assert (found.output_min, found.output_max) == (-11, 10)
    assert math.isnan(found.correlation)
    line = np.arange(6.0)
    assert accuracy(-2 * line, line).correlation == pytest.approx(-1)
    assert accuracy(3 * line, line).relative_error == pytest.approx(2)


def test_int32_passes_and_its_scores_are_all_held(emulator: Emulator) -> None:
    found = validate_tile("int32", emulator)
    assert found.passed
    assert found.accuracy.correlation > 0.9999
    assert found.accuracy.max_error < 1
    assert (found.scores.held, found.scores.clipped) == (None, 0)
    assert found.device == "emulator"


def test_int8_clips_what_this_data_asks_of_it_and_is_not_judged_by_it(emulator: Emulator) -> None:
    found = validate_tile("int8", emulator)
    assert found.targets == ()
    assert found.accuracy.correlation < 0.7
    assert found.scores.clipped == pytest.approx(0.967, abs=0.005)
    assert found.scores.held == pytest.approx((-55.45, 55.02), abs=0.01)


def test_the_reports_targets_pass_its_int32_kernel_and_fail_its_int8_kernel(emulator: Emulator) -> None:
    passes, fails = validate_tile("legacy-int32", emulator), validate_tile("legacy-int8", emulator)
    assert [t.passed for t in passes.report_targets] == [True, True, True]
    assert [t.passed for t in fails.report_targets] == [False, False, True]
    assert passes.scores.clipped == 0
    assert fails.scores.clipped == pytest.approx(0.923, abs=0.001)


def test_a_validation_says_what_passed(validation: Validation) -> None:
    assert validation.passed
    assert [validation.passed_by(kernel) for kernel in INTEGER_BACKENDS] == [True, True, True, False]
    assert [tile.label for tile in validation.tiles] == [*INTEGER_BACKENDS, "legacy-int32, shift 4"]
    assert "12 tiles equal the reference bit for bit" in validation.detail("int32")
    assert "bit for bit" not in validation.detail("legacy-int32")
    plain = json.loads(json.dumps(validation.to_dict()))
    assert (plain["schema_version"], plain["passed"], plain["device"]) == (1, True, "emulator")
    assert [tile["kernel"] for tile in plain["report_tile"]][:4] == list(INTEGER_BACKENDS)
    assert plain["batch"]["tiles"] == 12


def test_one_kernel_can_be_validated_alone(emulator: Emulator) -> None:
    alone = validate_kernel(emulator, kernels=["int8"], tiles=3, tile_sizes=[128])
    assert alone.batch is not None
    assert (alone.batch.scores, alone.batch.tile_sizes) == (("int8",), (128,))
    assert validate_kernel(emulator, kernels=["legacy-int8"]).batch is None


class Rounded(Emulator):
    """A device that is near enough for every target, and not the contract's."""

    def run(self, *arguments: Any, **options: Any) -> Any:
        result = super().run(*arguments, **options)
        result[0, 3, 5] ^= 1
        return result


class Deaf(Emulator):
    """A device whose output is noise."""

    def run(self, *arguments: Any, **options: Any) -> Any:
        result = super().run(*arguments, **options)
        return np.random.default_rng(0).integers(-64, 64, result.shape).astype(np.int16)


def test_one_wrong_bit_fails_though_every_target_is_met() -> None:
    found = validate_kernel(Rounded(Workers(1)), tiles=200)
    assert found.tiles[0].passed
    assert not found.passed
    assert not found.passed_by("int8")
    assert "row 3, column 5: the reference has" in found.detail("int32")


def test_a_device_that_misses_the_target_fails() -> None:
    found = validate_kernel(Deaf(Workers(1)), kernels=["int32"], tiles=1)
    assert not found.tiles[0].passed
    assert not found.passed


class Phoenix(Emulator):
    """The emulator in the NPU's place, with its run of a single tile."""

    name = "npu"
    singles = 0

    def run_single(self, scores: Any, q: Any, k: Any, v: Any) -> Any:
        self.singles += 1
        operands = tile_operands(scores, q, k, v)
        return self.run(operands, scores=scores, output_bits=8)[0].astype(np.int8)


def test_an_npu_is_given_the_tile_as_a_single_tile_run_and_the_legacy_kernels_are_not_its() -> None:
    device = Phoenix(Workers(1))
    found = validate_kernel(device, "it works here", tiles=2)
    assert device.singles == 2
    assert found.device == "npu"
    assert [tile.device for tile in found.tiles] == ["npu", "npu", "emulator", "emulator", "emulator"]
    assert found.tiles[0].accuracy == validate_tile("int32", Emulator(Workers(1))).accuracy
    first = text(found).splitlines()[0]
    assert first == "int32 and int8 on the NPU: it works here. The legacy kernels are emulated."
