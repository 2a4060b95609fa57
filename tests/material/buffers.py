"""The NPU's packed buffers, read back as its cores read them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.npu.program.plan import QUERY_BLOCK_BYTES, ROWS_PER_CORE, Plan

Bytes = npt.NDArray[np.uint8]


def unblocked(blocks: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """The inverse of `layout.blocked`: int8, (..., a, b, rows, columns) to (..., a * rows, b * columns)."""
    *outer, a, b, rows, columns = blocks.shape
    return blocks.swapaxes(-3, -2).reshape(*outer, a * rows, b * columns)


def unpack(queries: Bytes, stream: Bytes, plan: Plan, heads: int) -> tuple[c.Operands, int]:
    """Operands of 1,536 rows and keys, and the output bits, from a run's two input buffers."""
    return as_cores_read(
        queries.reshape(heads, -1, QUERY_BLOCK_BYTES), stream.reshape(heads, plan.tiles, -1), plan.tile_size
    )


def as_cores_read(blocks: Bytes, tiles: Bytes, tile_size: int) -> tuple[c.Operands, int]:
    """Operands, and the output bits, of n cores or heads: query blocks (n, some, bytes), tiles (n, all, bytes)."""
    n, size, tile = len(blocks), ROWS_PER_CORE * c.HEAD_DIM, tile_size * c.HEAD_DIM
    ends = size + 2 * ROWS_PER_CORE
    header = blocks[..., ends:].copy().view("<i4")
    assert (header[..., 1:] == header[0, 0, 1:]).all()
    assert not header[..., 3:].any()

    def matrix(part: Bytes, rows: int) -> npt.NDArray[np.int8]:
        blocked = part.copy().view(np.int8).reshape(n, -1, c.HEAD_DIM // 8, rows, 8)
        return unblocked(blocked)

    def numbers(part: Bytes) -> npt.NDArray[np.int16]:
        return part.copy().view("<i2").reshape(n, -1)

    operands = c.Operands(
        q=matrix(blocks[..., :size], 4),
        k=matrix(tiles[..., :tile], 8),
        v=matrix(tiles[..., tile : 2 * tile], 4),
        key_multiplier=numbers(tiles[..., 2 * tile :]).astype(np.uint8),
        multiplier=numbers(blocks[..., size:ends]).astype(np.uint16),
        shift=header[:, 0, 0].astype(np.int32),
        valid_keys=int(header[0, 0, 1]),
    )
    return operands, int(header[0, 0, 2])
