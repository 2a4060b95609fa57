"""What `cost.py` rests on: figures of the array, each with its source, and the kernel's instructions, counted.

The instructions are those of `aie/attention.hpp`, taken apart as the AIE API does it for AIE2: 16 lanes of 32 bits or
32 lanes of 16 bits to an instruction, products of 32 bits put together from 16-bit ones, shifts out of an accumulator
for 512 bits of it at a time. Loads and stores are not counted: they have slots of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

LANES = 32  # logits, or outputs, that one step of the kernel works on


@dataclass(frozen=True)
class Assumption:
    """A number that the model rests on.

    Attributes:
        best: the end of its range that makes things fast.
        worst: the other end.
        unit: of both.
        source: the document that says so, or that it is assumed, and why.
    """

    name: str
    best: float
    worst: float
    unit: str
    source: str


# fmt: off
CLOCK = Assumption("clock of the array", 1.80, 1.03, "GHz",
    "read on an XDNA1 in the default and in the balanced power mode, by another project; amdxdna's npu1_regs.c names "
    "0.8, 1.024, 1.309 and 1.6 GHz, and the 16 TOPS of a Hawk Point imply 1.6")
INT8_MACS = Assumption("int8 x int8 multiplications of a core", 256, 256, "a cycle",
    "AMD AM020, AIE-ML architecture manual: 256 MAC operations of 8 x 8 bits")
INT16_MACS = Assumption("int16 x int8 multiplications of a core", 128, 128, "a cycle",
    "AIE API, mmul for 16 x 8 bits: a block of 4 x 4 x 8 is one instruction")
EFFICIENCY = Assumption("counted instructions that a core issues", 0.42, 0.24, "a cycle",
    "the best GEMMs of drakosha/whisper-xdna (README; bf16, 1,761 GFLOPS on 16 cores of 128 multiplications a cycle) "
    "are 0.42 of the peak at 1.03 GHz and 0.24 at 1.80; taken for these kernels too. Results wait for each other, and "
    "of two loads in one bundle from one bank of 16 KiB the second waits a cycle")
STREAM = Assumption("stream or DMA channel", 4, 4, "bytes a cycle",
    "AMD AM020: each channel of the array interface's DMA sustains 4 bytes a cycle; two in, two out a column")
DRAM = Assumption("DRAM bandwidth that the array gets", 55.5, 7.8, "GB/s",
    "mlir-aie pull requests 2559 (a copy, both ways, before its change; device not named) and 1126 (a push of 4 MiB)")
DISPATCH = Assumption("one dispatch without its work, the NPU awake", 127, 1300, "us",
    "measured on an XDNA1 by another project: 127 us on the NPU, 221 from end to end; drakosha/whisper-xdna: 1.1 to "
    "1.3 ms a call, 0.267 ms for a small GEMM straight through pyxrt. mlir-aie question 2381 has 45 us for an empty "
    "kernel, on a device that it does not name; after ten seconds' pause it is 136 ms (question 2944): not counted")
SYNC = Assumption("synchronising buffers with the CPU's caches", 40, 10, "GB/s",
    "assumed: flushing runs at the memory's speed")
DIVISION = Assumption("floor(2^45 / sum) of a row on the scalar unit", 145, 406, "cycles",
    "29 steps in aie/attention.hpp, assumed to take 5 to 14 cycles each")
TILE_CALL = Assumption("locks and calls around a tile", 60, 150, "cycles",
    "assumed: acquire, call, loop set-up, release")
# fmt: on

ASSUMPTIONS = (CLOCK, INT8_MACS, INT16_MACS, EFFICIENCY, STREAM, DRAM, DISPATCH, SYNC, DIVISION, TILE_CALL)


class MeasuredLayer(NamedTuple):
    """Attention of one layer that was measured on an XDNA1, to hold the model against.

    Attributes:
        heads: each 64 wide.
        tokens: rows and keys of each.
        seconds: all of it, in one program and in three.
        source: who measured it, and what it computes.
    """

    heads: int
    tokens: int
    seconds: tuple[float, float]
    source: str


PEER = MeasuredLayer(
    20,
    1500,
    (1.151 / 32, 1.016 / 32),
    "drakosha/whisper-xdna (README and HISTORY) in bfloat16, in one program and in three",
)


@dataclass(frozen=True)
class VectorCount:
    """Vector instructions of one step of the kernel; how many, per what `VECTOR_COUNTS` says of its table."""

    step: str
    count: float
    comment: str


SOFTMAX_COUNTS = (
    VectorCount("transpose keys", 4, "one 8 x 8 block for each 8 channels, shared by eight rows"),
    VectorCount("scores", 2, "out of the accumulator, in 16 bits"),
    VectorCount("key multiplier", 4, "1 to replicate, 1 product, 2 shifts"),
    VectorCount("padding and maximum", 2, "a selection and a maximum"),
    VectorCount("distance", 3, "1 product with the row's multiplier off the exponent, 2 shifts"),
    VectorCount("its ends", 3, "clamp to 12 octaves, padding, mask the fraction"),
    VectorCount("exponential", 12, "3 products, 6 shifts, 3 subtractions"),
    VectorCount("power of two", 16, "4 comparisons, 3 masks, 6 selections, 1 product, 2 shifts"),
    VectorCount("weight", 3, "1 product, 2 shifts"),
    VectorCount("sum and blocks", 3, "1 sum, 2 shuffles into the blocks of the product with V"),
)
"""Counted in aie/attention.hpp: score_rows, weigh_rows, distances_of, weights_of."""

INT8_SCORE_COUNTS = (VectorCount("INT8 score", 5, "1 product with the row's multiplier, 2 shifts, clamp"),)

MERGE_COUNTS = (
    VectorCount(
        "accumulator", 44, "for each 16 columns: two shifts by way of 64 bits (4 each), 2 to gather, 1 sum"
    ),
    VectorCount("products", 4, "out of the accumulators"),
    VectorCount("maximum and sum", 20, "reduced over 8 lanes, and the exponent spread again"),
    VectorCount("exponent", 20, "scalar: shifts of the older and the newer part, running sum"),
)
"""Counted in aie/attention.hpp: tile, add_values."""

START_COUNTS = (VectorCount("clear", 1, "one store for eight words of the running state"),)

FINISH_COUNTS = (
    VectorCount("quotient", 18, "sum times reciprocal in 16-bit parts: 6 shuffles, 8 products, 4 shifts"),
    VectorCount("store", 2, "of 16 bits"),
)

VECTOR_COUNTS = {
    "per 32 logits": SOFTMAX_COUNTS,
    "per 32 logits, int8 alone": INT8_SCORE_COUNTS,
    "per row and tile": MERGE_COUNTS,
    "per 8 words of state and query block": START_COUNTS,
    "per 32 outputs": FINISH_COUNTS,
}
"""By what each is counted for; the last two come once for each query block."""
