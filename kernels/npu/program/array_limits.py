"""What a tile of the Phoenix array (XDNA1, AIE2) has to offer: memory, DMA channels, descriptors, locks, field widths.

Sources: mlir-aie's `include/aie/Dialect/AIE/IR/AIETargetModel.h` (AIE2TargetModel) for memories, locks and descriptors;
its `lib/Dialect/AIEX/IR/AIEXDialect.cpp` (verifyStridesWraps), after aie-rt's XAIEMLGBL_NOC_MODULE_DMA_BD widths, for
the fields of a descriptor; AMD's AM020 for the channels.
"""

from __future__ import annotations

from dataclasses import dataclass

ALIGNMENT = 32
"""Bytes: AIE2 loads and stores vectors of 256 bits, and every buffer keeps the next one aligned."""

WORD_BYTES = 4
"""The granularity of every DMA: addresses, sizes and strides are in 32-bit words."""


@dataclass(frozen=True)
class TileLimits:
    """Resources of one kind of tile.

    Attributes:
        memory_bytes: data memory; 0 for a shim tile, whose memory is the host's.
        channels: DMA channels in each direction.
        descriptors: DMA buffer descriptors.
        locks: semaphores.
    """

    memory_bytes: int
    channels: int
    descriptors: int
    locks: int


CORE = TileLimits(memory_bytes=64 * 1024, channels=2, descriptors=16, locks=16)
MEMORY = TileLimits(memory_bytes=512 * 1024, channels=6, descriptors=48, locks=64)
SHIM = TileLimits(memory_bytes=0, channels=2, descriptors=16, locks=16)

MEMORY_DESCRIPTORS_PER_PARITY = 24
"""A memory tile's even channels reach descriptors 0 to 23 only, its odd ones 24 to 47 (isBdChannelAccessible)."""

PROGRAM_BYTES = 16 * 1024
"""Program memory of a core."""

SHIM_QUEUE = 4
"""Descriptors that wait at a shim channel: further ones would be lost, unless the run waits in between."""

SHIM_WRAP_MAX = (1 << 10) - 1
"""Most words, or rows of words, of a shim descriptor's two innermost dimensions."""

SHIM_STEP_MAX = 1 << 20
"""Longest stride of a shim descriptor, in words."""

SHIM_ITERATION_MAX = 1 << 6
"""Most repeats of a shim descriptor, each moved on by its own stride; stride 0 repeats it where it stands."""
