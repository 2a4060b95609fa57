"""Tensor layouts of the device's buffers: written and read back, and what they have to be by their definition."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from material.buffers import unblocked, unpack
from material.operands import random_operands

from kernels import contract as c
from kernels.npu.program import layout
from kernels.npu.program.plan import Plan


@pytest.mark.parametrize(("rows", "columns"), [(4, 8), (8, 8)])
def test_blocks_lie_together_in_row_major_order(rows: int, columns: int) -> None:
    matrix = np.arange(64 * 64).reshape(64, 64).astype(np.int8)
    cut = layout.blocked(matrix, rows, columns)
    for a, b in itertools.product(range(64 // rows), range(64 // columns)):
        expected = matrix[a * rows : (a + 1) * rows, b * columns : (b + 1) * columns]
        np.testing.assert_array_equal(cut[a, b], expected)
    np.testing.assert_array_equal(unblocked(cut), matrix)


@pytest.mark.parametrize("tile_size", c.TILE_SIZES)
@pytest.mark.parametrize(("rows", "keys"), [(1536, 1536), (1500, 1500), (1, 70)])
def test_what_is_packed_can_be_read_back(tile_size: int, rows: int, keys: int) -> None:
    operands = random_operands(np.random.default_rng(rows + keys), 2, rows, keys)
    program = Plan(tile_size=tile_size)
    queries, stream, _ = (np.full(size, 0xEE, np.uint8) for size in program.buffer_bytes(2))
    layout.pack_queries(operands, 8, queries)
    layout.pack_keys_and_values(operands, tile_size, stream)
    back, output_bits = unpack(queries, stream, program, 2)
    back.check(tile_size)
    assert (output_bits, back.valid_keys) == (8, operands.valid_keys)
    np.testing.assert_array_equal(back.shift, operands.shift)
    for name, length in (
        ("q", rows),
        ("multiplier", rows),
        ("k", keys),
        ("v", keys),
        ("key_multiplier", keys),
    ):
        np.testing.assert_array_equal(getattr(back, name)[:, :length], getattr(operands, name))
    assert not back.q[:, rows:].any()
    assert not back.k[:, keys:].any()


def test_byte_by_byte() -> None:
    """Where some bytes lie, from the layout's description."""
    operands = random_operands(np.random.default_rng(0), 2, 1536, 1536)
    program = Plan(tile_size=128)
    queries, stream, _ = (np.empty(size, np.uint8) for size in program.buffer_bytes(2))
    layout.pack_queries(operands, 16, queries)
    layout.pack_keys_and_values(operands, 128, stream)
    block = queries[(48 + 7) * 2176 :][:2176]  # head 1, rows 224..255
    assert block[(5 * 8 + 3) * 32 + 2 * 8 + 6].view(np.int8) == operands.q[1, 224 + 5 * 4 + 2, 3 * 8 + 6]
    assert block[2048:2112].view("<i2")[9] == operands.multiplier[1, 224 + 9]
    assert block[2112:].view("<i4").tolist() == [operands.shift[1], operands.valid_keys, 16, *[0] * 13]
    tile = stream[(12 + 5) * 128 * 130 :][: 128 * 130]  # head 1, keys 640..767
    assert tile[(9 * 8 + 4) * 64 + 3 * 8 + 1].view(np.int8) == operands.k[1, 640 + 9 * 8 + 3, 4 * 8 + 1]
    assert (
        tile[8192 + (20 * 8 + 4) * 32 + 3 * 8 + 1].view(np.int8) == operands.v[1, 640 + 20 * 4 + 3, 4 * 8 + 1]
    )
    assert tile[16384:].view("<i2")[77] == operands.key_multiplier[1, 640 + 77]


def test_values_of_128_columns_become_twice_the_heads() -> None:
    random = np.random.default_rng(5)
    v = random.integers(-128, 128, (3, 70, 128)).astype(np.int8)
    operands = random_operands(random, 3, 4, 70, v=v)
    twice = layout.by_columns(operands)
    twice.check(64)
    np.testing.assert_array_equal(np.concatenate([twice.v[:3], twice.v[3:]], axis=2), v)
    np.testing.assert_array_equal(twice.q[3:], operands.q)
    assert layout.by_columns(twice) is twice


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scores": "int16"}, "scores 'int16': they are int32 or int8"),
        ({"tile_size": 96}, "tile size 96: it has to be one of"),
        ({"columns": 5}, "5 columns: Phoenix has 1 to 4 that a program can use"),
    ],
)
def test_plans_outside_the_contract_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(c.ContractError, match=message):
        Plan(**wrong)
