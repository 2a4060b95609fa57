"""What the Phoenix array (XDNA1, AIE2) offers, and how a layer of heads is laid over it.

One place for what the host packs (`layout.py`), the device design moves (`aie/design.py`), the AIE2 source computes on
(`aie/attention.hpp`) and the memory map counts (`memory_map.py`). Phoenix has 4 columns that a program can use, each
with 4 compute cores, one memory tile and one shim tile.

Work is cut by rows: a core holds 32 query rows of one head, and all of the head's keys and values stream past it, tile
by tile, the same stream for the four cores of a column. A column's four cores make a group of 128 rows; the columns
share a head's groups evenly, and a column takes its first group of every head, then its second (`transfers.py`). Rows
are independent in the contract, so how they are cut changes no bit.

Sources of the array's limits: mlir-aie's `include/aie/Dialect/AIE/IR/AIETargetModel.h` (AIE2TargetModel) for memories,
locks and descriptors; its `lib/Dialect/AIEX/IR/AIEXDialect.cpp` (verifyStridesWraps), after aie-rt's
XAIEMLGBL_NOC_MODULE_DMA_BD widths, for the fields of a descriptor; AMD's AM020 for the channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from kernels.contract import DEFAULT_TILE_SIZE, HEAD_DIM, ContractError, ScoreType, check_choice

ALIGNMENT = 32  # bytes: AIE2 loads and stores 256 bits, and every buffer keeps the next one aligned
WORD_BYTES = 4  # the granularity of every DMA: addresses, sizes and strides are in 32-bit words


class TileLimits(NamedTuple):
    """Resources of one kind of tile: memory, DMA channels in each direction, DMA buffer descriptors, semaphores."""

    kind: str
    memory_bytes: int
    channels: int
    descriptors: int
    locks: int


CORE = TileLimits("core", memory_bytes=64 * 1024, channels=2, descriptors=16, locks=16)
MEMORY = TileLimits("memory tile", memory_bytes=512 * 1024, channels=6, descriptors=48, locks=64)
SHIM = TileLimits("shim tile", memory_bytes=0, channels=2, descriptors=16, locks=16)  # in the host's memory
MEMORY_DESCRIPTORS_PER_PARITY = 24  # even channels reach descriptors 0 to 23 only, odd ones 24 to 47
PROGRAM_BYTES = 16 * 1024  # program memory of a core
SHIM_QUEUE = 4  # descriptors that wait at a shim channel: further ones would be lost, unless the run waits
SHIM_WRAP_MAX = (1 << 10) - 1  # most words, or rows of words, of a shim descriptor's two innermost dimensions

PADDED_TOKENS = 1536  # rows and keys of a head in a streaming run: a multiple of every tile size and group
ROWS_PER_CORE = 32
CORES_PER_COLUMN = 4
GROUPS_PER_HEAD = PADDED_TOKENS // (ROWS_PER_CORE * CORES_PER_COLUMN)
COLUMN_COUNTS = (1, 2, 3, 4)

HEADER_WORDS = 16  # of a query block, 32 bits each: shift, valid keys, output bits; the rest is zero
QUERY_BLOCK_BYTES = ROWS_PER_CORE * HEAD_DIM + 2 * ROWS_PER_CORE + 4 * HEADER_WORDS
"""INT8 rows, their INT16 multipliers, and the header."""
OUTPUT_BLOCK_BYTES = 2 * ROWS_PER_CORE * HEAD_DIM  # INT16, row-major: a head's blocks in order are its output

SINGLE_TILE = 64  # rows and keys of the single-tile run
SINGLE_TILE_INPUT_BYTES = 3 * SINGLE_TILE * HEAD_DIM  # Q, K and V, row-major INT8, one after the other
SINGLE_TILE_OUTPUT_BYTES = SINGLE_TILE * HEAD_DIM  # INT8, row-major
SINGLE_TILE_KEY_MULTIPLIER = 255
SINGLE_TILE_LOGIT: dict[ScoreType, tuple[int, int]] = {"int32": (23730, 4), "int8": (18984, 11)}
"""Multiplier and shift of the single-tile run: log2(e) / 8 * 256 * 256 / 255 a unit of Q K^T (`int8`: over 160)."""

STACK_BYTES = 4096
"""Of every core, set in the design: the tool chain's default of 1 KiB would be overrun into the neighbouring buffer."""


class Work(NamedTuple):
    """What a core works in, beside the buffers that data streams through.

    Attributes:
        state_words: 32-bit words of the running state: accumulator, exponents, sums, and the count of keys seen.
        score_halves: 16-bit halves for the scores of the eight rows in work.
        weight_halves: as many for their weights.
    """

    state_words: int
    score_halves: int
    weight_halves: int

    @classmethod
    def on(cls, rows: int, keys: int) -> Work:
        """Of a core that holds so many query rows, for tiles of so many keys."""
        return cls(state_words=rows * (HEAD_DIM + 2) + 8, score_halves=8 * keys, weight_halves=8 * keys)


SINGLE_TILE_WORK = Work.on(SINGLE_TILE, SINGLE_TILE)


@dataclass(frozen=True)
class Plan:
    """A streaming program: what holds the scores, the keys per tile, and the array's columns that it uses."""

    scores: ScoreType = "int32"
    tile_size: int = DEFAULT_TILE_SIZE
    columns: int = 4

    def __post_init__(self) -> None:
        check_choice(self.tile_size, self.scores)
        if self.columns not in COLUMN_COUNTS:
            raise ContractError(f"{self.columns} columns: Phoenix has 1 to 4 that a program can use")

    @property
    def name(self) -> str:
        """Names the program's files: `int32_t64_c4`."""
        return f"{self.scores}_t{self.tile_size}_c{self.columns}"

    @property
    def tiles(self) -> int:
        """Key tiles of a head."""
        return PADDED_TOKENS // self.tile_size

    @property
    def groups_per_column(self) -> int:
        """Groups of 128 rows of a head that each column works on."""
        return GROUPS_PER_HEAD // self.columns

    @property
    def cores(self) -> int:
        """Compute cores in use."""
        return self.columns * CORES_PER_COLUMN

    @property
    def key_value_bytes(self) -> int:
        """One tile of the stream: INT8 keys, INT8 values, INT16 key multipliers."""
        return self.tile_size * (2 * HEAD_DIM + 2)

    @property
    def work(self) -> Work:
        """What each core works in."""
        return Work.on(ROWS_PER_CORE, self.tile_size)

    @property
    def input_depth(self) -> int:
        """Query blocks, and key tiles, that a core holds: two, where there is room for the next to arrive."""
        return 1 if self.tile_size == 256 else 2

    @property
    def output_depth(self) -> int:
        """Output blocks that a core's memory holds."""
        return 2 if self.tile_size == 64 else 1

    def buffer_bytes(self, heads: int) -> tuple[int, int, int]:
        """The run's three buffers.

        They are the queries (heads, groups, cores of a column, block), the keys and values (heads, tiles, tile), and
        the output (heads, rows, 64), INT16.
        """
        return (
            heads * GROUPS_PER_HEAD * CORES_PER_COLUMN * QUERY_BLOCK_BYTES,
            heads * self.tiles * self.key_value_bytes,
            heads * PADDED_TOKENS * HEAD_DIM * 2,
        )
