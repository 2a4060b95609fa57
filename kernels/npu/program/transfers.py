"""What the array's DMA moves between the host's buffers and the columns, and in which order.

Plain descriptions, one for each descriptor of a shim tile: `aie/design.py` makes its access patterns from them, the
memory map counts them, and the tests hold them against what a descriptor can express and execute them on real buffers.
Three buffers go with a streaming run: queries and stream as `layout.py` packs them, and the output.

A column works on the same groups of every head. It takes its first group of every head, then its second, and so
on: so the whole run of a column is three descriptors, however many heads there are. (Head by head, the repeated
stream would need a descriptor for every head: only a descriptor's outermost stride may be 0.)
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from kernels.contract import HEAD_DIM
from kernels.npu.program import plan as p
from kernels.npu.program.plan import Plan

Stream = Literal["queries", "keys and values", "output", "input"]

HEAD_COUNTS = (6, 8, 12, 16, 20, 24, 32, 40)  # of Whisper's models, and twice as many for 128 value columns
MAX_HEADS = 64  # no descriptor limits the heads; this keeps the buffers of a run under 33 MB

QUERY_GROUP_BYTES = p.CORES_PER_COLUMN * p.QUERY_BLOCK_BYTES
OUTPUT_GROUP_BYTES = p.CORES_PER_COLUMN * p.OUTPUT_BLOCK_BYTES
"""What a column takes in and gives out at a time: a block for, or of, each of its cores."""


class Transfer(NamedTuple):
    """A shim tile's descriptor: the words of one host buffer that pass, in order. Outermost dimension first.

    Attributes:
        column: of the shim tile.
        stream: whose it is; `output` leads from the array, the others to it.
        offset: of the first word in the buffer.
        sizes: of four dimensions; the first is the descriptor's repeats, the last counts words that lie together.
        strides: of the same dimensions, in words. The first may be 0.
    """

    column: int
    stream: Stream
    offset: int
    sizes: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]


def streaming(plan: Plan, heads: int) -> list[Transfer]:
    """All transfers of a streaming run, for each column: output, queries, keys and values. Heads are 1 to 64."""
    if not 1 <= heads <= MAX_HEADS:
        raise ValueError(f"{heads} heads: a run takes 1 to {MAX_HEADS}")
    groups = plan.groups_per_column
    found = []
    for column in range(plan.columns):
        grouped: dict[Stream, int] = {"output": OUTPUT_GROUP_BYTES, "queries": QUERY_GROUP_BYTES}
        for stream, nbytes in grouped.items():
            group, (rows, width) = nbytes // p.WORD_BYTES, _rows(nbytes)
            sizes, strides = (groups, heads, rows, width), (group, p.GROUPS_PER_HEAD * group, width, 1)
            found.append(Transfer(column, stream, column * groups * group, sizes, strides))
        head_bytes = plan.tiles * plan.key_value_bytes
        rows, width = _rows(head_bytes)
        strides = (0, head_bytes // p.WORD_BYTES, width, 1)
        found.append(Transfer(column, "keys and values", 0, (groups, heads, rows, width), strides))
    return found


def single_tile() -> list[Transfer]:
    """The transfers of a single-tile run: output, then Q, K and V, cut into the matrix unit's blocks on the way."""
    rows, width = _rows(p.SINGLE_TILE_OUTPUT_BYTES)
    found = [Transfer(0, "output", 0, (1, 1, rows, width), (0, 0, width, 1))]
    row = HEAD_DIM // p.WORD_BYTES
    matrix = p.SINGLE_TILE * row
    for i, block_rows in enumerate((4, 8, 4)):  # layout.py: queries 4 x 8, keys 8 x 8, values 4 x 8
        found.append(
            Transfer(
                column=0,
                stream="input",
                offset=i * matrix,
                sizes=(p.SINGLE_TILE // block_rows, HEAD_DIM // 8, block_rows, 8 // p.WORD_BYTES),
                strides=(block_rows * row, 8 // p.WORD_BYTES, row, 1),
            )
        )
    return found


def _rows(nbytes: int) -> tuple[int, int]:
    """Cut contiguous bytes into the fewest rows of words that a descriptor's two innermost dimensions can count."""
    words = nbytes // p.WORD_BYTES
    fitting = (n for n in range(1, words + 1) if words % n == 0 and words // n <= p.SHIM_WRAP_MAX)
    rows = next(fitting)
    return rows, words // rows
