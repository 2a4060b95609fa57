"""What the contract promises, shown on the reference: that it is attention, and that nothing overflows."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from material.operands import (
    COMBINATIONS,
    any_operands,
    constant_operands,
    gaussian_operands,
    least_sum,
    two_levels,
)

from kernels import contract as c
from kernels import reference
from kernels.contract import ContractError, Operands, ScoreType
from kernels.emulator import Emulator
from kernels.workers import Workers

Floats = npt.NDArray[np.float64]


def exact_attention(
    operands: Operands, scores: ScoreType, tile_size: int, output_bits: int, *, rounded: bool = False
) -> tuple[Floats, Floats]:
    """Softmax attention of the operands in float64, and by how much the contract may differ from it.

    The result and the bound are (heads, rows, columns), in steps of the values. For `int8` the scores are taken as
    that kernel holds them; with `rounded` those of `int32` are taken as whole numbers once scaled by their keys. The
    bound adds up, for each output:
    a weight that is off by its logit's rounding (half of 1/256 octave, and what half a unit of the score in 16 bits and
    half of the scaled one make), by the polynomial (1.2e-4) and by its own
    rounding (half of 1/2047 of its tile's ceiling), and moves the mean as far as its value lies from it;
    half a unit of the accumulator and of the sum for each merge; the reciprocal's floor; the output's rounding.
    """
    valid = operands.valid_keys
    s = operands.q.astype(np.int64) @ operands.k[:, :valid].astype(np.int64).transpose(0, 2, 1)
    of_keys = operands.key_multiplier[:, None, :valid].astype(np.int64)
    scaled = s / 2**c.SCORE_SHIFT * of_keys / 256
    held = (((s + 16) >> c.SCORE_SHIFT) * of_keys + 128) >> 8
    factor = (operands.multiplier / np.exp2(operands.shift)[:, None])[:, :, None]
    if scores == "int8":
        x = np.clip(np.floor(held * factor + 0.5), -128, 127) * c.INT8_SCORE_STEP
        logit_slack = np.zeros_like(factor)
    elif rounded:
        x = held * factor
        logit_slack = np.full_like(factor, 0.5 / 256)
    else:
        x = scaled * factor
        logit_slack = 0.5 / 256 + factor / 256
    x /= 256
    top = x.max(-1, keepdims=True)
    w = np.exp2(x - top)
    v = operands.v[:, None, :valid].astype(np.float64)
    exact: Floats = (w[..., None] * v).sum(2) / w.sum(2)[..., None]

    starts = range(0, valid, tile_size)
    tops = np.stack([x[..., start : start + tile_size].max(-1) for start in starts], -1)
    # 1/2047 of each tile's ceiling, which the logit's rounding may have lifted to the next octave
    unit = np.exp2(np.ceil(tops + logit_slack) - top) / c.PROBABILITY_MAX
    relative = 2**logit_slack * (1 + 1.2e-4) - 1
    error = relative * w + 0.5 * np.repeat(unit, tile_size, -1)[..., :valid]
    total, doubt = w.sum(-1), error.sum(-1)
    merges = len(starts) - 1
    highest = unit.max(-1)
    least_unit = np.exp2(np.ceil(top - logit_slack) - top)[..., 0] / c.PROBABILITY_MAX
    least = (total - doubt)[..., None]
    most = 128 * (total + doubt + merges * highest) / least_unit
    bound = (error[..., None] * abs(v - exact[:, :, None])).sum(2) / least
    bound += merges * highest[..., None] / least
    bound += abs(exact) * most[..., None] / 2.0**c.RECIPROCAL_BITS
    bound += 0.5 / (1 << (output_bits - 8))
    return exact, bound


@pytest.mark.parametrize(("scores", "tile_size", "output_bits"), COMBINATIONS)
@pytest.mark.parametrize(
    ("rows", "keys", "spread", "fine_values"),
    [(1, 1500, 2.0, False), (2, 300, 0.3, True), (2, 700, 6.0, False)],
)
def test_the_reference_is_softmax_attention(
    rows: int,
    keys: int,
    spread: float,
    fine_values: bool,
    scores: ScoreType,
    tile_size: int,
    output_bits: int,
) -> None:
    operands = gaussian_operands(keys, scores, rows=rows, keys=keys, spread=spread, fine_values=fine_values)
    assert len(np.unique(operands.key_multiplier)) > 50
    exact, bound = exact_attention(operands, scores, tile_size, output_bits)
    step = 1 << (output_bits - 8)
    got = reference.attention(operands, scores=scores, tile_size=tile_size, output_bits=output_bits) / step
    assert (abs(got - exact) <= bound).all()
    # The bound is the worst case of every weight; together they are far closer.
    spread = exact.std()
    assert (bound - 0.5 / step).max() < 0.25 * spread
    # A uniform error of one output step has 0.29 of it as its root mean square.
    assert np.sqrt(np.mean((got - exact) ** 2)) < 0.004 * spread + 0.32 / step


@pytest.mark.parametrize("scores", ["int32", "int8"])
@pytest.mark.parametrize("seed", range(5))
def test_the_reference_is_softmax_attention_wherever_the_contract_allows(
    seed: int, scores: ScoreType
) -> None:
    width = 128 if seed % 2 else 64
    operands = any_operands(seed, rows=2, keys=257, width=width, shift=(2 + 4 * seed, 6 + 4 * seed))
    got = reference.attention(operands, scores=scores) / 256
    # A unit of a scaled score may be many octaves: the score's rounding has a bound where it is less than one.
    for rounded in (True,) if seed < 2 else (False, True):
        exact, bound = exact_attention(operands, scores, 64, 16, rounded=rounded)
        assert exact.shape == (1, 2, width)
        assert (abs(got - exact) <= bound).all()


@pytest.mark.parametrize("scores", ["int32", "int8"])
def test_merges_over_thirty_octaves_stay_softmax_attention(scores: ScoreType) -> None:
    operands = two_levels(scores, keys=322)
    exact, bound = exact_attention(operands, scores, 64, 16)
    assert (abs(reference.attention(operands, scores=scores) / 256 - exact) <= bound).all()


@pytest.mark.parametrize("value", [-128, -1, 0, 1, 127])
@pytest.mark.parametrize("output_bits", [16, 8])
@pytest.mark.parametrize("width", c.VALUE_WIDTHS)
def test_equal_values_come_out_as_they_are(value: int, output_bits: int, width: int) -> None:
    operands = replace(any_operands(7, keys=200), v=np.full((1, 256, width), value, np.int8))
    result = reference.attention(operands, output_bits=output_bits)
    assert result.shape == (1, 2, width)
    assert (result == value << (output_bits - 8)).all()


def test_the_exponential_is_within_its_stated_error_and_falls() -> None:
    table = np.array([reference.exp2(fraction) for fraction in range(256)])
    exact = c.EXP2_ONE * np.exp2(-np.arange(256) / 256)
    assert abs(table / exact - 1).max() < 1.2e-4
    assert (np.diff(table) < 0).all()
    assert table[[0, 1, 127, 128, 255]].tolist() == [32752, 32664, 23220, 23157, 16419]
    # Over the octave's seam the next step down is as large as any other: 2^(-1/256).
    assert table[255] > c.EXP2_ONE / 2
    assert abs(c.EXP2_ONE / 2 / table[255] - 2 ** (-1 / 256)) < 1.3e-4


def test_the_polynomial_fits_lanes_of_16_bits_and_products_of_24() -> None:
    c1, c2, c3 = c.EXP2_COEFFICIENTS
    fraction = np.arange(256)
    t3 = (fraction * c3 + 128) >> 8
    t2 = (fraction * (c2 - t3) + 128) >> 8
    for factor in (np.full(256, c3), c2 - t3, c1 - t2):
        assert (0 <= factor).all()
        assert factor.max() < 1 << 15
        assert (fraction * factor + 128).max() < 1 << 24


def test_weights_are_rounded_powers_of_two() -> None:
    distance = np.arange(13 * 256)
    weights = np.array([reference.weight(int(d)) for d in distance])
    exact = c.PROBABILITY_MAX * np.exp2(-distance / 256)
    assert (abs(weights - exact) <= 0.5 + 1.2e-4 * exact).all()
    assert (np.diff(weights) <= 0).all()
    assert (weights[0], weights[255], weights[256]) == (2047, 1026, 1024)
    assert not weights[12 * 256 :].any()
    assert reference.weight(1 << 29) == 0


@pytest.mark.parametrize(
    ("x", "bits", "expected"),
    [
        (5, 0, 5),
        (5, 1, 3),
        (-5, 1, -2),
        (6, 2, 2),
        (-6, 2, -1),
        (7, 3, 1),
        (3, 3, 0),
        (-4, 3, 0),
        (-5, 3, -1),
        (1 << 29, 30, 1),
        ((1 << 29) - 1, 30, 0),
        (-(1 << 30), 30, -1),
        (1 << 30, 31, 0),
        (-1, 1 << 28, 0),
    ],
)
def test_merges_round_halves_up(x: int, bits: int, expected: int) -> None:
    assert reference.merge_shift(x, bits) == expected
    if bits <= c.MERGE_SHIFT_MAX:
        assert reference.round_shift(x, bits) == expected


@pytest.mark.parametrize(
    ("s", "key_multiplier", "expected"),
    [
        (12 * 32, 128, 6),
        (11 * 32, 128, 6),
        (-11 * 32, 128, -5),
        # A score is rounded to 16 bits, halves up, and once more after its key's multiplier.
        (10 * 32 + 15, 255, 10),
        (10 * 32 + 16, 255, 11),
        (-10 * 32 - 16, 255, -10),
        (-10 * 32 - 17, 255, -11),
        (16, 128, 1),
        (15, 255, 0),
        (-17, 129, -1),
        (-17, 128, 0),
        (1 << 20, 1, 128),
        (1 << 20, 255, 32639),
        ((1 << 20) - 17, 255, 32639),
        (-(127 << 13), 255, -32385),
        (-(127 << 13), 1, -127),
    ],
)
def test_scores_are_scaled_in_16_bits(s: int, key_multiplier: int, expected: int) -> None:
    assert reference.scale(s, key_multiplier) == expected


@pytest.mark.parametrize(
    ("z", "shift", "expected"),
    [
        (6, 2, 2),
        (5, 2, 1),
        (-6, 2, -1),
        (-7, 2, -2),
        (509, 2, 127),
        (510, 2, 127),
        (-514, 2, -128),
        (-600, 2, -128),
    ],
)
def test_int8_scores_round_halves_up_and_saturate(z: int, shift: int, expected: int) -> None:
    assert reference.int8_logit(z, shift) == expected * c.INT8_SCORE_STEP


@pytest.mark.parametrize("shift", [c.SHIFT_MIN, 9, c.SHIFT_MAX])
def test_only_distances_from_the_exponent_are_rounded_halves_up(shift: int) -> None:
    """A key at the exponent itself, and one each side of half a unit of distance."""
    half = 1 << (shift - 1)
    for below, distance in ((0, 0), (half - 1, 0), (half, 1), ((3 << shift) + half, 4)):
        total, sums = reference.merged([0, -below], shift, [[0], [1]], 64)
        assert sums[0] == reference.weight(distance)
        assert total == (c.PROBABILITY_MAX + sums[0]) << c.SUM_FRACTION_BITS


def test_worst_cases_reach_the_stated_ranges_and_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference itself raises where 32 bits do not hold a value."""
    seen: list[int] = []
    checked = reference._int32

    def recorded(x: int) -> int:
        seen.append(abs(checked(x)))
        return x

    monkeypatch.setattr(reference, "_int32", recorded)
    for k in (-128, 127):
        worst = constant_operands(-128, k, 0, keys=3, multiplier=c.MULTIPLIER_MAX, shift=c.SHIFT_MAX)
        reference.attention(worst)
        product = (32639 if k < 0 else -32385) * c.MULTIPLIER_MAX
        octave = 1 << (c.SHIFT_MAX + c.FRACTION_BITS)
        ceiling = -(-product // octave) * octave
        assert {abs(product), ceiling - product} <= set(seen)
        assert max(seen) == max(abs(product), ceiling - product + (1 << (c.SHIFT_MAX - 1)))
        seen.clear()
    # One key as high as any, one as low.
    low = constant_operands(-128, -128, 0, keys=2, multiplier=c.MULTIPLIER_MAX, shift=c.SHIFT_MAX)
    low.k[0, 1] = 127
    reference.attention(low)
    assert max(seen) == (1 << 30) + 32385 * c.MULTIPLIER_MAX + (1 << (c.SHIFT_MAX - 1))
    seen.clear()
    for v in (-128, 127):
        worst = constant_operands(0, 0, v, keys=c.MAX_KEYS, multiplier=1, shift=2)
        reference.attention(worst, tile_size=256)
        assert {2047 * 128 * c.MAX_KEYS, 2047 * abs(v) * c.MAX_KEYS} <= set(seen)  # sum and accumulator
        assert max(seen) == 2047 * 128 * c.MAX_KEYS
        seen.clear()
    # The last keys lift the exponent by 29 to 31 octaves over a full accumulator.
    last_is_higher = two_levels("int32")
    reference.attention(replace(last_is_higher, q=last_is_higher.q[:, 1:2], multiplier=np.uint16([[256]])))
    assert max(seen) == 2047 * 128 * 63 * 64 + (1 << 29)


def test_the_references_checks_can_fire() -> None:
    for x in ((1 << 31) - 1, -(1 << 31)):
        assert reference._int32(x) == x
    for x in (1 << 31, -(1 << 31) - 1):
        with pytest.raises(AssertionError, match="does not fit in 32 bits"):
            reference._int32(x)
    assert reference.score([-128] * 64, [-128] * 64) == 1 << 20
    with pytest.raises(AssertionError, match=r"passes 2\^20"):
        reference.score([-129] * 64, [-128] * 64)


def test_the_sum_is_never_so_small_that_its_reciprocal_passes_2_to_the_28(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sums: list[int] = []
    output = reference.output

    def recorded(accumulator: int, total: int, output_bits: int) -> int:
        sums.append(total)
        return output(accumulator, total, output_bits)

    monkeypatch.setattr(reference, "output", recorded)
    for seed in range(10):
        reference.attention(any_operands(seed, keys=1 + 40 * seed))
    assert (reference.attention(least_sum()) == 5 * 256).all()
    assert min(sums) == 1 << 17


def zeros(*shape: int, dtype: Any = np.int8) -> Any:
    return np.zeros(shape, dtype)


def ones(*shape: int, dtype: Any) -> Any:
    return np.ones(shape, dtype)


FACTOR, KEY_FACTOR = r"a multiplier is outside 1\.\.32767", r"a key multiplier is outside 1\.\.255"
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("q, k and v have to be", {"q": zeros(3, 64)}),
    ("q, k and v have to be", {"k": zeros(256, 64), "v": zeros(256, 64)}),
    ("q, k and v have to be", {"v": zeros(256, 64)}),
    (r"values are \(64, 128\) wide, one for each key: v is \(2, 255, 64\)", {"v": zeros(2, 255, 64)}),
    (r"v is \(2, 256, 96\)", {"v": zeros(2, 256, 96)}),
    (r"v is \(2, 256, 192\)", {"v": zeros(2, 256, 192)}),
    (r"v is \(3, 256, 64\)", {"v": zeros(3, 256, 64)}),
    (r"64 wide: .* k is \(2, 256, 128\)", {"k": zeros(2, 256, 128)}),
    (r"64 wide: q is \(2, 3, 32\)", {"q": zeros(2, 3, 32)}),
    (r"64 wide: .* k is \(2, 256, 32\)", {"k": zeros(2, 256, 32), "v": zeros(2, 256, 32)}),
    (r"k is \(3, 256, 64\)", {"k": zeros(3, 256, 64), "v": zeros(3, 256, 64)}),
    ("one multiplier per row", {"multiplier": ones(2, dtype=np.uint16)}),
    ("one multiplier per row", {"multiplier": ones(2, 4, dtype=np.uint16)}),
    ("one shift per head", {"shift": np.array(8, np.int32)}),
    ("one shift per head", {"shift": np.full((2, 3), 8, np.int32)}),
    ("one key multiplier per key", {"key_multiplier": ones(2, 255, dtype=np.uint8)}),
    ("one key multiplier per key", {"key_multiplier": ones(1, 256, dtype=np.uint8)}),
    ("one key multiplier per key", {"key_multiplier": np.array(1, np.uint8)}),
    ("key_multiplier has to be uint8, not int16", {"key_multiplier": ones(2, 256, dtype=np.int16)}),
    ("key_multiplier has to be uint8, not int8", {"key_multiplier": ones(2, 256, dtype=np.int8)}),
    ("q has to be int8, not uint8", {"q": zeros(2, 3, 64, dtype=np.uint8)}),
    ("k has to be int8, not float32", {"k": zeros(2, 256, 64, dtype=np.float32)}),
    ("v has to be int8, not int16", {"v": zeros(2, 256, 64, dtype=np.int16)}),
    ("multiplier has to be uint16", {"multiplier": ones(2, 3, dtype=np.int32)}),
    ("shift has to be int32, not int64", {"shift": np.full(2, 8, np.int64)}),
    ("0 valid keys of 256", {"valid_keys": 0}),
    ("257 valid keys of 256", {"valid_keys": 257}),
    (
        "200 valid keys of 4097: 1 <= valid <= keys <= 4096",
        {"k": zeros(2, 4097, 64), "v": zeros(2, 4097, 64), "key_multiplier": ones(2, 4097, dtype=np.uint8)},
    ),
    (FACTOR, {"multiplier": np.uint16([[1, 1, 1], [1, 0, 1]])}),
    (FACTOR, {"multiplier": np.uint16([[1, 1, 32768], [1, 1, 1]])}),
    (KEY_FACTOR, {"key_multiplier": np.arange(512, dtype=np.uint16).astype(np.uint8).reshape(2, 256)}),
    (KEY_FACTOR, {"key_multiplier": np.repeat(np.uint8([[1] * 255 + [0]]), 2, 0)}),  # past the valid keys
    (r"a shift is outside 2\.\.22", {"shift": np.int32([2, 1])}),
    (r"a shift is outside 2\.\.22", {"shift": np.int32([23, 22])}),
]
EMULATOR = Emulator(Workers(1))


@pytest.mark.parametrize(("message", "changes"), REFUSED)
def test_operands_outside_the_contract_are_refused(message: str, changes: dict[str, Any]) -> None:
    operands = any_operands(0, heads=2, rows=3, keys=200)
    operands.check(64)
    wrong = replace(operands, **changes)
    for refuse in (wrong.check, partial(reference.attention, wrong), partial(EMULATOR.run, wrong)):
        with pytest.raises(ContractError, match=message):
            refuse(tile_size=64)


CHOICES: list[tuple[dict[str, Any], str]] = [
    ({"tile_size": 96}, r"tile size 96: it has to be one of \(64, 128, 256\)"),
    ({"tile_size": 0}, "tile size 0"),
    *(
        ({"scores": s}, f"scores {s!r}: they are int32 or int8")
        for s in ("int16", "INT8", "", "float32", None)
    ),
    *(({"output_bits": bits}, f"output of {bits} bits: it has 8 or 16") for bits in (0, -8, 7, 12, 32)),
]


@pytest.mark.parametrize(("choice", "message"), CHOICES)
def test_other_choices_are_refused(choice: dict[str, Any], message: str) -> None:
    operands = any_operands(0)
    for refuse in (operands.check, partial(reference.attention, operands), partial(EMULATOR.run, operands)):
        with pytest.raises(ContractError, match=message):
            refuse(**{"tile_size": 64, **choice})


@pytest.mark.parametrize("width", c.VALUE_WIDTHS)
@pytest.mark.parametrize(("heads", "rows"), [(0, 3), (2, 0), (0, 0)])
def test_a_run_may_have_no_heads_or_no_rows(heads: int, rows: int, width: int) -> None:
    operands = any_operands(0, heads=heads, rows=rows, keys=5, width=width)
    for scores, tile_size, output_bits in COMBINATIONS:
        operands.check(tile_size, scores, output_bits)
    assert reference.attention(operands).shape == EMULATOR.run(operands).shape == (heads, rows, width)


@pytest.mark.parametrize("width", c.VALUE_WIDTHS)
@pytest.mark.parametrize("tile_size", c.TILE_SIZES)
def test_the_limits_themselves_are_allowed(tile_size: int, width: int) -> None:
    operands = any_operands(0, heads=2, rows=2, keys=c.MAX_KEYS, width=width)
    operands.key_multiplier[:, ::2], operands.key_multiplier[:, 1::2] = 1, 255
    operands.multiplier[...] = (1, 32767)
    operands.shift[...] = (2, 22)
    operands.check(tile_size)
    replace(operands, valid_keys=1).check(tile_size)
