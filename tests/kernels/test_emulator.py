"""The emulator gives the reference's bits, whatever the contract allows, and so on any number of threads."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from material.operands import (
    COMBINATIONS,
    any_operands,
    constant_operands,
    gaussian_operands,
    heads_of,
    least_sum,
    two_levels,
)

from kernels import contract as c
from kernels import reference
from kernels.contract import ContractError, Operands, ScoreType
from kernels.emulator import Emulator, available, vector
from kernels.emulator.head import Head
from kernels.emulator.registers import AVX2, AVX512, AVX_VNNI
from kernels.workers import Workers

EMULATOR = Emulator(Workers(2))  # one for all tests, so that what a run leaves in its work space could show
OTHERS = [
    Emulator(Workers(2), instructions=name) for name in available()[1:]
]  # what runs on other processors
IMPLEMENTATIONS = [
    pytest.param(reference.attention, id="reference"),
    pytest.param(EMULATOR.run, id="emulator"),
]
HALVES = (slice(0, 64), slice(64, 128))
Attention = Callable[..., npt.NDArray[np.int16]]


def assert_same_bits(operands: Operands, scores: ScoreType, tile_size: int, output_bits: int) -> None:
    how = {"scores": scores, "tile_size": tile_size, "output_bits": output_bits}
    expected = reference.attention(operands, **how)  # type: ignore[arg-type]
    for emulator in (EMULATOR, *OTHERS):
        got = emulator.run(operands, **how)  # type: ignore[arg-type]
        assert got.dtype == np.int16
        np.testing.assert_array_equal(got, expected, emulator.instructions)


def widened(operands: Operands, seed: int = 31) -> Operands:
    """The same with 64 more columns of any values."""
    more = np.random.default_rng(seed).integers(-128, 128, operands.v.shape, dtype=np.int8)
    return replace(operands, v=np.concatenate([operands.v, more], 2))


def hot_row(name: str) -> Operands:
    operands = any_operands(11, rows=3, shift=(12, 12))
    hot = getattr(operands, name)
    cold = (hot // 32).astype(np.int8)
    cold[0, 1] = hot[0, 1] // 2 + np.where(hot[0, 1] < 0, -64, 64)
    return replace(operands, **{name: cold})


def alternating() -> Operands:
    operands = any_operands(12, rows=2, shift=(10, 10))
    sign = np.where(np.arange(64) % 2, -128, 127).astype(np.int8)
    flipped = np.where(np.arange(64) % 2, 127, -128).astype(np.int8)
    k = np.where(np.arange(512)[:, None] % 3, sign, flipped)[None]
    v = np.where(np.arange(512)[:, None] % 2, sign, flipped)[None]
    return replace(operands, q=np.stack([sign, flipped])[None], k=k, v=v)


def mixed_multipliers(scores: ScoreType) -> Operands:
    operands = gaussian_operands(13, scores, rows=4)
    operands.multiplier[...] = (1, c.MULTIPLIER_MAX, 1, c.MULTIPLIER_MAX)
    return operands


def extreme_key_multipliers(scores: ScoreType) -> Operands:
    """Keys with 1 and 255 in turn, in all four orders over four keys, for scores of either sign."""
    operands = gaussian_operands(30, scores, rows=3)
    operands.key_multiplier[0] = np.resize([1, 255, 255, 1], operands.key_multiplier.shape[1])
    return operands


def key_multipliers_of_a_tile(scores: ScoreType) -> Operands:
    """Every key multiplier that there is, over 256 keys of random scores of any scale."""
    operands = any_operands(32, rows=3, keys=256, shift=(8, 8) if scores == "int32" else (13, 13))
    operands.key_multiplier[0] = np.maximum(1, np.random.default_rng(32).permutation(256))
    return operands


def mixed_shifts() -> Operands:
    operands = any_operands(14, heads=2, rows=1, multiplier=(16000, c.MULTIPLIER_MAX))
    operands.shift[...] = (c.SHIFT_MIN, c.SHIFT_MAX)
    return operands


def stairs(scores: ScoreType, tile_size: int, octaves: list[int]) -> Operands:
    """Keys whose tiles have these exponents: exactly in row 0, near them in row 1, their negatives in row 2.

    In int8 they count in steps of the scores, not in octaves.
    """
    operands = any_operands(15, rows=3, keys=len(octaves) * tile_size - 7)
    k, q = np.zeros_like(operands.k), np.zeros_like(operands.q)
    k[0, : len(octaves) * tile_size, :16] = np.repeat(octaves, tile_size)[:, None]
    k[0, :, 16:19] = -(operands.k[0, :, :1].astype(np.int16) & 127)
    k[0, ::tile_size, 16:19] = 0
    q[0, :, :16], q[0, :, 16] = np.array([64, 64, -64])[:, None], 64
    q[0, 1, 17:19] = 64
    operands.key_multiplier[...] = 128
    operands.multiplier[...], operands.shift[...] = (64, 61, 64), 10 if scores == "int8" else 2
    return replace(operands, q=q, k=k)


def saturating(scores: ScoreType) -> Operands:
    """Scores about the ends of INT8, all of a row at one end."""
    operands = any_operands(16, rows=2)
    operands.q[...], operands.k[..., :32] = 0, -120 - (operands.k[..., :1] & 7)
    operands.q[0, :, :32] = np.array([16, -16])[:, None]
    operands.key_multiplier[...] = 250 + operands.key_multiplier % 6
    operands.multiplier[...], operands.shift[...] = 67, 10 if scores == "int8" else 6
    return operands


def ties(scores: ScoreType) -> Operands:
    """Two weights of 2047, two of 1: their sum is 2^12, so that every other channel ends half-way, for 8 bits too."""
    operands = any_operands(17, rows=1, keys=70)
    operands.q[...], operands.k[...] = 0, 0
    operands.q[0, 0, :32] = 32
    operands.k[0, :, :32] = -128
    operands.key_multiplier[0, 2:4] = 128  # the first two score 0, whatever multiplies that
    operands.key_multiplier[0, 4:] |= 128
    operands.k[0, :2, :32], operands.k[0, 2:4, :32] = 0, -18 if scores == "int8" else -11
    operands.multiplier[...], operands.shift[...] = 64, 10 if scores == "int8" else 2
    odd = operands.v[0, 0, ::2] | 1
    operands.v[0, :4, ::2] = np.stack([odd, 0 * odd, odd, 0 * odd])
    return operands


CASES: dict[str, Callable[[ScoreType, int], Operands]] = {
    "gaussian, 2 rows x 1500 keys": lambda s, _: gaussian_operands(1, s, heads=2, rows=1, keys=1500),
    "gaussian, flat, 2 rows": lambda s, _: gaussian_operands(2, s, spread=0.05),
    "gaussian, steep, 2 rows": lambda s, _: gaussian_operands(3, s, spread=8),
    "any scale, 10 rows": lambda s, _: any_operands(4, heads=10, rows=1),
    "any scale, 2 rows x 1500 keys": lambda s, _: any_operands(5, heads=2, rows=1, keys=1500),
    "all -128, 1 row": lambda s, _: constant_operands(
        -128, -128, -128, keys=321, multiplier=c.MULTIPLIER_MAX, shift=2
    ),
    "all 127, 1 row": lambda s, _: constant_operands(
        127, 127, 127, keys=321, multiplier=c.MULTIPLIER_MAX, shift=2
    ),
    "least score, 1 row": lambda s, _: constant_operands(
        -128, 127, 127, keys=321, multiplier=c.MULTIPLIER_MAX, shift=2
    ),
    "smallest factor, 1 row": lambda s, _: constant_operands(
        -128, 127, -128, keys=321, multiplier=1, shift=c.SHIFT_MAX
    ),
    "zeros, 1 row": lambda s, _: constant_operands(0, 0, 0, keys=321, multiplier=1, shift=2),
    "zero scores, 1 row": lambda s, _: constant_operands(0, 0, -128, keys=321, multiplier=1, shift=2),
    "one hot query, 3 rows": lambda s, _: hot_row("q"),
    "one hot key, 3 rows": lambda s, _: hot_row("k"),
    "alternating 127 and -128, 2 rows": lambda s, _: alternating(),
    "least and largest multipliers, 4 rows": lambda s, _: mixed_multipliers(s),
    "key multipliers 1 and 255, 3 rows": lambda s, _: extreme_key_multipliers(s),
    "every key multiplier, 3 rows": lambda s, _: key_multipliers_of_a_tile(s),
    "key multipliers of 1, 1 row": lambda s, _: constant_operands(
        -128, -128, 127, keys=321, multiplier=c.MULTIPLIER_MAX, shift=2, key_multiplier=1
    ),
    "least and largest shift, 2 rows": lambda s, _: mixed_shifts(),
    "scores about the ends of int8, 2 rows": lambda s, _: saturating(s),
    "least sum, 1 row": lambda *_: least_sum(),
    "outputs half-way, 1 row": lambda s, _: ties(s),
    "exponents rise, 3 rows x 8 tiles": lambda s, t: stairs(s, t, list(range(-8, 16, 3))),
    "exponents fall, 3 rows x 8 tiles": lambda s, t: stairs(s, t, list(range(15, -9, -3))),
    "exponents jump, 3 rows x 11 tiles": lambda s, t: stairs(
        s, t, [0, 30, 0, -1, 61, 32, 29, 92, 127, -128, 127]
    ),
}


@pytest.mark.parametrize("output_bits", [16, 8])
@pytest.mark.parametrize("tile_size", c.TILE_SIZES)
@pytest.mark.parametrize("scores", ["int32", "int8"])
@pytest.mark.parametrize("case", CASES)
def test_bits_are_the_references(case: str, scores: ScoreType, tile_size: int, output_bits: int) -> None:
    """Each case has 64 columns in half of the twelve ways to run it, 128 in the others, about evenly spread."""
    operands = CASES[case](scores, tile_size)
    if (output_bits == 8) ^ (scores == "int8") ^ (tile_size == 128):
        operands = widened(operands)
    assert_same_bits(operands, scores, tile_size, output_bits)


@pytest.mark.parametrize(("scores", "tile_size", "output_bits"), COMBINATIONS)
def test_bits_over_as_many_keys_as_there_may_be(scores: ScoreType, tile_size: int, output_bits: int) -> None:
    """Worst values throughout, then 3 rows whose exponent jumps by about 30 over a full accumulator."""
    worst = constant_operands(-128, -128, -128, keys=c.MAX_KEYS, multiplier=c.MULTIPLIER_MAX, shift=2)
    assert (worst.key_multiplier == 255).all()
    assert_same_bits(worst, scores, tile_size, output_bits)
    assert_same_bits(two_levels(scores), scores, tile_size, output_bits)


def test_bits_of_every_weight() -> None:
    """A row for each distance of two logits, from 0 to past 12 octaves; the output tells any two weights apart."""
    distance = np.arange(12 * 256 + 20)
    operands = any_operands(18, rows=len(distance), keys=2)
    operands.q[...], operands.k[...], operands.v[...] = 0, 0, 0
    operands.q[0, :, :32], operands.q[0, :, 32] = distance[:, None] // 64, distance % 64
    operands.k[0, 1, :32], operands.k[0, 1, 32], operands.key_multiplier[0, 1] = -128, -64, 128
    operands.v[0, 1] = 127
    operands.multiplier[...], operands.shift[...] = 4, 2
    assert_same_bits(operands, "int32", 64, 16)
    weights = [reference.weight(int(d)) for d in distance]
    assert len(np.unique(EMULATOR.run(operands))) == len(set(weights))


def test_the_stairs_have_the_exponents_that_they_claim() -> None:
    octaves = [0, 30, 0, -1, 61]
    operands = stairs("int32", 64, octaves)
    q, k = (x[0].astype(int).tolist() for x in (operands.q, operands.k))
    for start, octave in zip(range(0, 320, 64), octaves, strict=True):
        keys = range(start, min(start + 64, operands.valid_keys))
        z = [reference.scale(reference.score(q[0], k[j]), 128) * 64 for j in keys]
        assert -(-max(z) // (256 * 2**2)) == octave
        assert len(set(z)) > 10


BOUNDARIES = [1, 2, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1499, 1500, 1535, 1536]


@pytest.mark.parametrize(("scores", "tile_size", "output_bits"), COMBINATIONS)
@pytest.mark.parametrize("keys", BOUNDARIES)
def test_bits_at_every_boundary_of_the_valid_keys(
    keys: int, scores: ScoreType, tile_size: int, output_bits: int
) -> None:
    fine_values = output_bits == 16
    operands = gaussian_operands(keys, scores, rows=1, keys=keys, spread=3, fine_values=fine_values)
    assert_same_bits(operands, scores, tile_size, output_bits)


def assert_same_bits_of_length(keys: int) -> None:
    """One row, with garbage past the valid keys; the kind of run goes with the length."""
    scores: ScoreType = "int8" if keys % 2 else "int32"
    width = 128 if keys // 12 % 2 else 64
    operands = any_operands(keys, rows=1, keys=keys, width=width, shift=(11, 21))
    assert_same_bits(operands, scores, c.TILE_SIZES[keys // 2 % 3], 8 if keys // 6 % 2 else 16)


@pytest.mark.parametrize("keys", np.random.default_rng(0).choice(np.arange(1, 1537), 36, replace=False))
def test_bits_of_lengths_in_between(keys: int) -> None:
    assert_same_bits_of_length(int(keys))


@pytest.mark.slow
def test_bits_of_every_length() -> None:
    for keys in range(1, 1537):
        assert_same_bits_of_length(keys)


@pytest.mark.parametrize(("scores", "output_bits"), [("int32", 16), ("int8", 8)])
@pytest.mark.parametrize("rows", [1, 127, 128, 129])
def test_bits_at_every_boundary_of_the_rows(rows: int, scores: ScoreType, output_bits: int) -> None:
    operands = gaussian_operands(rows, scores, rows=rows, keys=66, fine_values=output_bits == 16)
    assert_same_bits(operands, scores, 64, output_bits)


def test_runs_leave_nothing_behind() -> None:
    """The same work space serves every length of a tile; a run sees none of the run before it."""
    for tile_size in c.TILE_SIZES:
        for keys, fine in (
            (1536, True),
            (1500, True),
            (1481, False),
            (1481, True),
            (3, False),
            (1536, False),
        ):
            operands = gaussian_operands(keys, "int32", rows=3, keys=keys, fine_values=fine)
            expected = Emulator(Workers(1)).run(operands, tile_size=tile_size)
            np.testing.assert_array_equal(EMULATOR.run(operands, tile_size=tile_size), expected)


@pytest.mark.parametrize("scores", ["int32", "int8"])
def test_bits_depend_neither_on_threads_nor_on_how_heads_are_batched(scores: ScoreType) -> None:
    operands = gaussian_operands(21, scores, heads=7, rows=130, keys=300, fine_values=scores == "int32")
    together = Emulator(Workers(1)).run(operands, scores=scores)
    assert len(np.unique(together)) > 1000
    np.testing.assert_array_equal(Emulator(Workers(2)).run(operands, scores=scores), together)
    for part in (slice(0, 1), slice(1, 4), slice(4, 7)):
        some = heads_of(operands, part)
        np.testing.assert_array_equal(EMULATOR.run(some, scores=scores), together[part])


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_equal_heads_and_equal_rows_have_equal_results(attention: Attention) -> None:
    one = gaussian_operands(22, "int32", rows=2, keys=150)
    expected = attention(one)
    np.testing.assert_array_equal(attention(heads_of(one, [0, 0, 0])), np.repeat(expected, 3, 0))
    rows = replace(one, q=np.tile(one.q, (1, 2, 1)), multiplier=np.tile(one.multiplier, (1, 2)))
    np.testing.assert_array_equal(attention(rows), np.tile(expected, (1, 2, 1)))
    assert (expected[0, 0] != expected[0, 1]).any()


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@pytest.mark.parametrize("tile_size", c.TILE_SIZES)
@pytest.mark.parametrize("scores", ["int32", "int8"])
def test_what_lies_past_the_valid_keys_does_not_matter(
    attention: Attention, scores: ScoreType, tile_size: int
) -> None:
    operands = gaussian_operands(23, scores, rows=2, keys=200)
    expected = attention(operands, scores=scores, tile_size=tile_size)
    rng = np.random.default_rng(23)
    for name in ("k", "v", "key_multiplier"):
        garbage = getattr(operands, name).copy()
        least, end = (1, 256) if name == "key_multiplier" else (-128, 128)
        garbage[:, 200:] = rng.integers(least, end, garbage[:, 200:].shape)
        assert (garbage != getattr(operands, name)).any()
        result = attention(replace(operands, **{name: garbage}), scores=scores, tile_size=tile_size)
        np.testing.assert_array_equal(result, expected)
    seen = attention(replace(operands, valid_keys=201), scores=scores, tile_size=tile_size)
    assert (seen != expected).any()


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@pytest.mark.parametrize("tile_size", c.TILE_SIZES)
def test_the_order_of_keys_within_a_tile_does_not_matter(attention: Attention, tile_size: int) -> None:
    operands = gaussian_operands(24, "int32", rows=2, keys=512)
    rng = np.random.default_rng(24)
    order = np.concatenate([start + rng.permutation(tile_size) for start in range(0, 512, tile_size)])
    moved = {name: getattr(operands, name)[:, order] for name in ("k", "v", "key_multiplier")}
    shuffled = replace(operands, **moved)
    expected = attention(operands, tile_size=tile_size)
    np.testing.assert_array_equal(attention(shuffled, tile_size=tile_size), expected)
    for name in ("v", "key_multiplier"):
        mixed = replace(operands, **{name: moved[name]})
        assert (attention(mixed, tile_size=tile_size) != expected).any()


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@pytest.mark.parametrize(("scores", "tile_size", "output_bits"), COMBINATIONS)
def test_columns_do_not_depend_on_each_other(
    attention: Attention, scores: ScoreType, tile_size: int, output_bits: int
) -> None:
    """128 columns are two runs of 64 with the same queries and keys; and columns may change places."""
    how = {"scores": scores, "tile_size": tile_size, "output_bits": output_bits}
    shift = (8, 10) if scores == "int32" else (13, 15)
    operands = any_operands(27, heads=2, rows=2, keys=300, width=128, shift=shift)
    together = attention(operands, **how)
    halves = [attention(replace(operands, v=operands.v[..., part]), **how) for part in HALVES]
    assert together.shape == (2, 2, 128)
    np.testing.assert_array_equal(together, np.concatenate(halves, -1))
    assert (halves[0] != halves[1]).any()
    order = np.random.default_rng(27).permutation(128)
    np.testing.assert_array_equal(
        attention(replace(operands, v=operands.v[..., order]), **how), together[..., order]
    )


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@pytest.mark.parametrize(("scores", "shift"), [("int32", 8), ("int8", 13)])
def test_a_key_of_half_the_size_with_twice_the_multiplier_is_the_same(
    attention: Attention, scores: ScoreType, shift: int
) -> None:
    operands = any_operands(28, rows=3, keys=200, shift=(shift, shift))
    operands.q[...] &= -32  # scores that lose nothing in 16 bits
    operands.k[...] //= 2
    operands.key_multiplier[...] = np.maximum(1, operands.key_multiplier // 2)
    expected = attention(operands, scores=scores)
    some = np.arange(operands.k.shape[1]) % 3 == 0
    operands.k[:, some] *= 2
    assert (attention(operands, scores=scores) != expected).any()
    operands.k[:, some] //= 2
    operands.key_multiplier[:, some] *= 2
    doubled = attention(operands, scores=scores)
    operands.k[:, some] *= 2
    operands.key_multiplier[:, some] //= 2
    np.testing.assert_array_equal(attention(operands, scores=scores), doubled)


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@pytest.mark.parametrize(("scores", "shift"), [("int32", 8), ("int8", 13)])
@pytest.mark.parametrize("move", [-128 * 64, -64 * 64, 64 * 64])
def test_a_row_of_logits_may_move_by_whole_octaves(
    attention: Attention, scores: ScoreType, shift: int, move: int
) -> None:
    """Softmax is invariant to a shift; the contract keeps that to the bit for whole octaves.

    Keys of different multipliers move alike if a channel of theirs times the multiplier is the same for all.
    """
    operands = any_operands(25, rows=2, keys=200, shift=(shift, shift))
    operands.q[...] //= 4
    operands.k[...] //= 4
    operands.multiplier[...] = 2048
    assert 8 * c.INT8_SCORE_STEP % 256 == 0  # the move of the int8 scores below, by a multiple of 8
    operands.q[..., 63], operands.k[..., 63] = 64, 0
    operands.key_multiplier[...] = np.where(operands.key_multiplier % 2, 64, 128)
    expected = attention(operands, scores=scores)
    operands.k[..., 63] = move // operands.key_multiplier.astype(int)
    np.testing.assert_array_equal(attention(operands, scores=scores), expected)
    operands.k[:, 100:, 63] = 0
    assert (attention(operands, scores=scores) != expected).any()


@pytest.mark.parametrize("name", available())
def test_every_way_to_compute_takes_whole_windows(name: str) -> None:
    """More rows and keys than one step of any of them, all of their operands at the ends of the range or anywhere."""
    operands = any_operands(33, rows=50, keys=1500, width=128, shift=(9, 12))
    ends = np.random.default_rng(33).choice(np.array([-128, 127], np.int8), operands.k.shape)
    operands = replace(operands, k=np.where(np.arange(operands.k.shape[1])[:, None] % 2, ends, operands.k))
    operands.q[:, ::3] = np.where(operands.q[:, ::3] < 0, -128, 127)
    got = Emulator(Workers(1), instructions=name).run(operands)
    expected = Emulator(Workers(1), instructions="portable").run(operands)
    np.testing.assert_array_equal(got, expected)
    some = replace(operands, q=operands.q[:, 48:], multiplier=operands.multiplier[:, 48:])
    np.testing.assert_array_equal(got[:, 48:], reference.attention(some))


@pytest.mark.parametrize(("threads", "rows"), [(2, 511), (2, 512), (3, 1500), (7, 1501)])
@pytest.mark.parametrize("name", available())
def test_a_heads_rows_are_shared_out_among_threads(name: str, threads: int, rows: int) -> None:
    operands = any_operands(34, rows=rows, keys=70, shift=(9, 12))
    alone, shared = (Emulator(Workers(n), instructions=name).run(operands) for n in (1, threads))
    np.testing.assert_array_equal(alone, shared)
    last = replace(operands, q=operands.q[:, -7:], multiplier=operands.multiplier[:, -7:])
    np.testing.assert_array_equal(shared[:, -7:], reference.attention(last))


@pytest.mark.parametrize("kind", vector._SPACES)
def test_heads_are_packed_as_instructions_take_them_that_this_processor_may_lack(kind: Any) -> None:
    operands = any_operands(35, keys=256, width=128)
    k, v, multiplier = operands.k[0, :139], operands.v[0, :139], operands.key_multiplier[0, :139]
    head = Head(operands.q[0], k, v, multiplier, operands.multiplier[0], operands.shift[0], False, 64, 16)
    space = vector._make_space(kind, 3, 2).arguments[0]
    for array in (space.keys, space.values, space.start, space.of_key):
        array.fill(77)  # what was there before
    vector._pack(head, space)
    keys, values = np.zeros((192, 64), np.int8), np.zeros((192, 128), np.int8)
    keys[:139], values[:139] = k, v
    together = 4 if kind.registers.dot else 2
    packed = keys.reshape(3, 64, 64 // together, together).swapaxes(1, 2)
    found = space.keys.view(np.int8 if kind.registers.dot else np.int16).reshape(packed.shape)
    np.testing.assert_array_equal(found, packed)
    pairs = values.reshape(3, 32, 2, 2, 64).transpose(0, 3, 1, 4, 2)
    np.testing.assert_array_equal(space.values.view(np.int16).reshape(pairs.shape), pairs)
    offset = 128 if kind.registers.dot else 0
    np.testing.assert_array_equal(space.start.ravel(), 16 - offset * keys.sum(1, dtype=np.int32))
    np.testing.assert_array_equal(space.of_key.ravel()[:139], multiplier.astype(np.int16) * 128)
    assert not space.of_key.ravel()[139:].any()


def test_instructions_that_numba_was_told_to_leave_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CPU_NAME", "haswell")
    assert available() == ("portable",)
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+avx,+avx2,-avx512f,+fma")
    assert available() == ("avx2", "portable")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+avx2,+avx512f,+avx512bw,+avx512vnni,+avxvnni")
    assert available() == (AVX512.name, AVX_VNNI.name, AVX2.name, "portable")


def test_what_a_worker_raises_reaches_the_caller() -> None:
    def work(i: int) -> None:
        if i == 3:
            raise ContractError("the third")

    with pytest.raises(ContractError, match="the third"):
        Workers(2).each(work, 5)


def test_workers_do_everything_once() -> None:
    done: Counter[int] = Counter()
    Workers(2).each(lambda i: done.update([i]), 50)
    assert done == Counter(range(50))
