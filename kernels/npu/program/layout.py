"""Tensor layouts of the NPU's buffers: how the host packs operands.

The matrix unit takes blocks that lie together in memory: 4 rows x 8 channels of the queries, 8 keys x 8 channels of the
keys (each transposed on the core), 4 keys x 8 columns of the values. The host writes them so; the array's DMA then
moves whole blocks in order. The single-tile run is handed row-major matrices, and the array's DMA cuts the same blocks.

    query block   [32/4][64/8][4][8] int8, [32] int16 multipliers, [16] int32: shift, valid keys, output bits, 0...
    key tile      [T/8][64/8][8][8] int8
    value tile    [T/4][64/8][4][8] int8
    multipliers   [T] int16
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.arrays import Bytes, Int8
from kernels.npu.program import plan as p

T = TypeVar("T", bound=np.generic)


def blocked(matrix: npt.NDArray[T], rows: int, columns: int) -> npt.NDArray[T]:
    """Cut matrices (..., n, m) into blocks that lie together: (..., n / rows, m / columns, rows, columns)."""
    *outer, n, m = matrix.shape
    return matrix.reshape(*outer, n // rows, rows, m // columns, columns).swapaxes(-3, -2)


def check_fits(operands: c.Operands) -> None:
    """Raise `ContractError` for operands that have more rows or keys than a streaming run takes."""
    rows, keys = operands.q.shape[1], operands.k.shape[1]
    if max(rows, keys) > p.PADDED_TOKENS:
        raise c.ContractError(
            f"{rows} rows and {keys} keys: a run on the NPU takes {p.PADDED_TOKENS} of each"
        )


def by_columns(operands: c.Operands) -> c.Operands:
    """Heads with 128 value columns as twice as many with 64: first all left halves, then all right ones."""
    heads = len(operands.v)
    if operands.v.shape[2] == c.HEAD_DIM:
        return operands
    halves = np.concatenate([operands.v[..., : c.HEAD_DIM], operands.v[..., c.HEAD_DIM :]])
    return replace(pick_heads(operands, np.arange(2 * heads) % heads), v=halves)


def pick_heads(operands: c.Operands, chosen: slice | npt.NDArray[np.int64]) -> c.Operands:
    """Operands of some heads: of a slice (a view), or at int64 indices (a copy; they may repeat)."""
    per_head = {f.name: getattr(operands, f.name) for f in fields(operands) if f.name != "valid_keys"}
    return replace(operands, **{name: array[chosen] for name, array in per_head.items()})


def pack_queries(operands: c.Operands, output_bits: int, into: Bytes) -> None:
    """Write the query buffer of a run, the first of `Plan.buffer_bytes`.

    Heads have at most 1,536 rows; rows that are lacking become zero with multiplier 1.
    """
    heads, rows, _ = operands.q.shape
    blocks = into.reshape(heads, p.GROUPS_PER_HEAD * p.CORES_PER_COLUMN, p.QUERY_BLOCK_BYTES)
    size = p.ROWS_PER_CORE * c.HEAD_DIM
    _write_blocks(operands.q, 4, blocks[..., :size])
    ends = size + 2 * p.ROWS_PER_CORE
    multiplier = np.ones((heads, p.PADDED_TOKENS), "<i2")
    multiplier[:, :rows] = operands.multiplier
    blocks[..., size:ends] = multiplier.reshape(heads, -1, p.ROWS_PER_CORE).view(np.uint8)
    header = np.zeros((heads, 1, p.HEADER_WORDS), "<i4")
    header[:, 0, 0] = operands.shift
    header[:, 0, 1:3] = operands.valid_keys, output_bits
    blocks[..., ends:] = header.view(np.uint8)


def pack_keys_and_values(operands: c.Operands, tile_size: int, into: Bytes) -> None:
    """Write the key and value buffer of a run, the second of `Plan.buffer_bytes`.

    Heads have at most 1,536 keys and 64 value columns; keys that are lacking become padding.
    """
    heads = len(operands.k)
    tiles = into.reshape(heads, p.PADDED_TOKENS // tile_size, -1)
    size = tile_size * c.HEAD_DIM
    _write_blocks(operands.k, 8, tiles[..., :size])
    _write_blocks(operands.v, 4, tiles[..., size : 2 * size])
    multiplier = np.ones((heads, p.PADDED_TOKENS), "<i2")
    multiplier[:, : operands.k.shape[1]] = operands.key_multiplier
    tiles[..., 2 * size :] = multiplier.reshape(heads, -1, tile_size).view(np.uint8)


def _write_blocks(matrices: Int8, rows: int, into: Bytes) -> None:
    """Write matrices (heads, rows, 64), cut into blocks of `rows` x 8, over parts of a buffer (heads, parts, bytes).

    A row of a block is one 64-bit word. Words are moved once, from where they lie to where they go.
    """
    heads, parts, _ = into.shape
    words = np.ascontiguousarray(_padded(matrices, p.PADDED_TOKENS)).view(np.uint64)
    cut = blocked(words.reshape(heads, parts, -1, words.shape[2]), rows, 1)[..., 0]
    into.view(np.uint64).reshape(cut.shape)[:] = cut


def tile_operands(scores: c.ScoreType, q: Int8, k: Int8, v: Int8) -> c.Operands:
    """The contract's operands of a single-tile run: integers without scales, their logits Q K^T / 8."""
    multiplier, shift = p.SINGLE_TILE_LOGIT[scores]
    return c.Operands(
        q=q[None],
        k=k[None],
        v=v[None],
        key_multiplier=np.full((1, len(k)), p.SINGLE_TILE_KEY_MULTIPLIER, np.uint8),
        multiplier=np.full((1, len(q)), multiplier, np.uint16),
        shift=np.full(1, shift, np.int32),
        valid_keys=len(k),
    )


def _padded(x: Int8, length: int) -> Int8:
    if x.shape[1] == length:
        return x
    padded = np.zeros((len(x), length, x.shape[2]), x.dtype)
    padded[:, : x.shape[1]] = x
    return padded
