"""The transfers, executed: packed buffers through a DMA that follows the descriptors, to what cores compute on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from material.buffers import as_cores_read
from material.operands import random_operands

from kernels.contract import TILE_SIZES
from kernels.emulator import Emulator
from kernels.npu.program import layout, transfers
from kernels.npu.program import plan as p
from kernels.npu.program.plan import Plan

Bytes = npt.NDArray[np.uint8]

STREAMS = ("queries", "keys and values", "output")


def words(transfer: transfers.Transfer) -> npt.NDArray[np.int64]:
    """Indices of the buffer's words in the order in which they pass: int64, shape (words,)."""
    index = np.full((1,), transfer.offset, np.int64)
    for size, stride in zip(transfer.sizes, transfer.strides, strict=True):
        index = (index[:, None] + np.arange(size, dtype=np.int64) * stride).reshape(-1)
    return index


def sent(transfer: transfers.Transfer, buffer: Bytes) -> Bytes:
    """What a descriptor reads."""
    return buffer.view("<u4")[words(transfer)].view(np.uint8)


def received(transfer: transfers.Transfer, data: Bytes, buffer: Bytes) -> None:
    """What a descriptor writes."""
    buffer.view("<u4")[words(transfer)] = data.view("<u4")


def run_on_the_array(plan: Plan, heads: int, queries: Bytes, stream: Bytes) -> Bytes:
    """The output buffer of a run whose data moves as the transfers say, and whose cores are the emulator."""
    output = np.full(plan.buffer_bytes(heads)[2], 0xA5, np.uint8)
    emulator = Emulator()
    for column in range(plan.columns):
        moved = {t.stream: t for t in transfers.streaming(plan, heads) if t.column == column}
        assert set(moved) == set(STREAMS)
        # Down the memory tile: groups are split between the cores, every tile goes to all of them.
        groups = sent(moved["queries"], queries).reshape(-1, p.CORES_PER_COLUMN, p.QUERY_BLOCK_BYTES)
        tiles = sent(moved["keys and values"], stream).reshape(-1, plan.tiles, plan.key_value_bytes)
        assert len(groups) == len(tiles) == heads * plan.groups_per_column
        joined = np.empty((len(groups), p.CORES_PER_COLUMN, p.OUTPUT_BLOCK_BYTES), np.uint8)
        for core in range(p.CORES_PER_COLUMN):
            work, _ = as_cores_read(groups[:, core, None], tiles, plan.tile_size)
            out = emulator.run(work, scores=plan.scores, tile_size=plan.tile_size)
            joined[:, core] = out.reshape(len(out), -1).view(np.uint8)
        received(moved["output"], joined.reshape(-1), output)
    return output


@pytest.mark.parametrize("columns", p.COLUMN_COUNTS)
@pytest.mark.parametrize("tile_size", TILE_SIZES)
def test_cores_that_are_fed_by_the_transfers_compute_the_run(tile_size: int, columns: int) -> None:
    heads, plan = 2, Plan("int8" if columns == 2 else "int32", tile_size, columns)
    given = random_operands(
        np.random.default_rng(heads), heads, p.PADDED_TOKENS, p.PADDED_TOKENS, valid_keys=1500
    )
    queries, stream, _ = (np.empty(size, np.uint8) for size in plan.buffer_bytes(heads))
    layout.pack_queries(given, 16, queries)
    layout.pack_keys_and_values(given, tile_size, stream)
    output = run_on_the_array(plan, heads, queries, stream)
    expected = Emulator().run(given, scores=plan.scores, tile_size=tile_size)
    np.testing.assert_array_equal(output.view("<i2").reshape(heads, p.PADDED_TOKENS, 64), expected)


@pytest.mark.parametrize("heads", [1, *transfers.HEAD_COUNTS])
@pytest.mark.parametrize("columns", p.COLUMN_COUNTS)
def test_every_query_and_output_word_passes_once_and_every_key_once_for_each_group(
    columns: int, heads: int
) -> None:
    plan = Plan(columns=columns)
    sizes = zip(STREAMS, plan.buffer_bytes(heads), strict=True)
    passed = {name: np.zeros(size // 4, np.int64) for name, size in sizes}
    for transfer in transfers.streaming(plan, heads):
        np.add.at(passed[transfer.stream], words(transfer), 1)
    assert (passed["queries"] == 1).all()
    assert (passed["output"] == 1).all()
    assert (passed["keys and values"] == p.GROUPS_PER_HEAD).all()


def test_the_single_tiles_transfers_cut_the_blocks_that_the_matrix_unit_takes() -> None:
    random = np.random.default_rng(0)
    q, k, v = matrices = random.integers(-128, 128, (3, p.SINGLE_TILE, 64)).astype(np.int8)
    buffer = matrices.reshape(-1).view(np.uint8)
    output, *inputs = transfers.single_tile()
    delivered = [sent(transfer, buffer).view(np.int8) for transfer in inputs]
    for given, matrix, rows in zip(delivered, (q, k, v), (4, 8, 4), strict=True):
        np.testing.assert_array_equal(given, layout.blocked(matrix, rows, 8).reshape(-1))
    np.testing.assert_array_equal(words(output), np.arange(p.SINGLE_TILE_OUTPUT_BYTES // 4))


@pytest.mark.parametrize("heads", [0, transfers.MAX_HEADS + 1])
def test_a_run_of_no_or_too_many_heads_is_refused(heads: int) -> None:
    with pytest.raises(ValueError, match=f"{heads} heads: a run takes 1 to 64"):
        transfers.streaming(Plan(), heads)
