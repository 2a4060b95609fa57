"""The contract, written out one step at a time in integers of unlimited size: slow, and meant to be obviously right.

Nothing here is shared with the emulator but the constants. Python's integers neither overflow nor round, so each
claim of `CONTRACT.md` about 32-bit ranges is checked where it is made.
"""

from __future__ import annotations

from operator import mul

import numpy as np
import numpy.typing as npt

from kernels import contract as c


def attention(
    operands: c.Operands,
    *,
    scores: c.ScoreType = "int32",
    tile_size: int = c.DEFAULT_TILE_SIZE,
    output_bits: int = 16,
) -> npt.NDArray[np.int16]:
    """Attention of every head, by the contract: see `kernels.device.Device.run`."""
    operands.check(tile_size, scores, output_bits)
    heads, rows, _ = operands.q.shape
    valid = operands.valid_keys
    out = np.zeros((heads, rows, operands.v.shape[2]), np.int16)
    for h in range(heads):
        keys, values = operands.k[h, :valid].tolist(), operands.v[h, :valid].tolist()
        of_keys = operands.key_multiplier[h, :valid].tolist()
        shift = int(operands.shift[h])
        for r in range(rows):
            query, multiplier = operands.q[h, r].tolist(), int(operands.multiplier[h, r])
            scaled = [
                scale(score(query, key), of_key) * multiplier
                for key, of_key in zip(keys, of_keys, strict=True)
            ]
            if scores == "int8":
                total, accumulator = merged([int8_logit(z, shift) for z in scaled], 0, values, tile_size)
            else:
                total, accumulator = merged(scaled, shift, values, tile_size)
            out[h, r] = [output(a, total, output_bits) for a in accumulator]
    return out


def merged(z: list[int], shift: int, values: list[list[int]], tile_size: int) -> tuple[int, list[int]]:
    """A row's sum of weights and its sums of weighted values, tile by tile.

    Its base-2 logits have 8 fraction bits, and `shift` more, which are rounded away from their distances alone.
    """
    octave = c.FRACTION_BITS + shift
    exponent: int | None = None
    total, accumulator = 0, [0 for _ in values[0]]
    for start in range(0, len(z), tile_size):
        tile = slice(start, start + tile_size)
        m = -((-max(z[tile])) >> octave)  # ceiling
        p = [weight(round_shift(_int32((m << octave) - _int32(x)), shift)) for x in z[tile]]
        tile_total = sum(p) << c.SUM_FRACTION_BITS
        tile_accumulator = [sum(map(mul, p, column)) for column in zip(*values[tile], strict=True)]
        if exponent is None:
            exponent, total, accumulator = m, tile_total, tile_accumulator
            continue
        if m > exponent:
            total = merge_shift(total, m - exponent)
            accumulator = [merge_shift(a, m - exponent) for a in accumulator]
        else:
            tile_total = merge_shift(tile_total, exponent - m)
            tile_accumulator = [merge_shift(a, exponent - m) for a in tile_accumulator]
        exponent = max(m, exponent)
        total = _int32(total + tile_total)
        accumulator = [_int32(a + b) for a, b in zip(accumulator, tile_accumulator, strict=True)]
    return total, accumulator


def score(query: list[int], key: list[int]) -> int:
    """The exact dot product of two INT8 vectors; at most 2^20 in magnitude."""
    s: int = sum(map(mul, query, key))
    if abs(s) > 1 << 20:
        raise AssertionError(f"score {s} passes 2^20")
    return s


def scale(s: int, key_multiplier: int) -> int:
    """A score in 16 bits, rounded to 32 of its units, times its key's multiplier / 2^8."""
    held = max(-(1 << 15), min((1 << 15) - 1, round_shift(s, c.SCORE_SHIFT)))
    return round_shift(held * key_multiplier, c.KEY_SHIFT)


def int8_logit(z: int, shift: int) -> int:
    """The base-2 logit of the `int8` kernel, with 8 fraction bits, from the `int32` kernel's."""
    return max(-128, min(127, round_shift(_int32(z), shift))) * c.INT8_SCORE_STEP


def weight(distance: int) -> int:
    """round(2047 * 2^(-distance / 256)) by the contract's exponential; 0 from 12 octaves on."""
    octaves = min(distance >> c.FRACTION_BITS, 12)
    return (exp2(distance & 255) + (1 << (octaves + 3))) >> (octaves + 4) if octaves < 12 else 0


def exp2(fraction: int) -> int:
    """2^(-fraction/256) in units of 1/EXP2_ONE, by Horner's scheme: from 32752 (fraction 0) down to 16419 (255).

    Every intermediate fits in 16 bits and every product in 24, so a vector unit of 16-bit lanes computes it as it
    stands.
    """
    c1, c2, c3 = c.EXP2_COEFFICIENTS
    t = (fraction * c3 + 128) >> 8
    t = (fraction * (c2 - t) + 128) >> 8
    t = (fraction * (c1 - t) + 128) >> 8
    return c.EXP2_ONE - t


def round_shift(x: int, bits: int) -> int:
    """Divide by 2^bits, rounded to the nearest, halves up."""
    return _int32(x + (1 << (bits - 1))) >> bits if bits else x


def merge_shift(x: int, bits: int) -> int:
    """`round_shift` for merging: nothing is left from 31 bits on."""
    return round_shift(x, bits) if bits <= c.MERGE_SHIFT_MAX else 0


def output(accumulator: int, total: int, output_bits: int) -> int:
    """The requantised quotient, saturated to `output_bits` bits."""
    reciprocal = (1 << c.RECIPROCAL_BITS) // total
    # accumulator / (total / 2^7), with 8 more fraction bits for a 16-bit output
    bits = c.RECIPROCAL_BITS - c.SUM_FRACTION_BITS - (c.OUTPUT_FRACTION_BITS if output_bits == 16 else 0)
    y = (accumulator * reciprocal + (1 << (bits - 1))) >> bits
    limit = 1 << (output_bits - 1)
    return max(-limit, min(limit - 1, y))


def _int32(x: int) -> int:
    if not -(1 << 31) <= x < 1 << 31:
        raise AssertionError(f"{x} does not fit in 32 bits")
    return x
