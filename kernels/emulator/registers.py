"""The integer vector instructions that the emulator is written for, and whether this processor has them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from kernels.emulator.head import BLOCK
from kernels.processor import cpuinfo

ROWS = 6
"""Worked on together: with the columns of a group their sums fill three quarters of the registers."""


@dataclass(frozen=True)
class Registers:
    """A processor's integer vector instructions.

    Attributes:
        name: as the user knows them.
        features: what the processor has to have, by LLVM's names.
        bits: of a register.
        group: registers of columns that are summed up together, for `ROWS` rows.
        dot: whether products are added to sums by one instruction (VNNI), those of bytes too; otherwise there are
            products of 16-bit words alone, and queries and keys are held in such.
    """

    name: str
    features: tuple[str, ...]
    bits: int
    group: int
    dot: bool

    @property
    def size(self) -> int:
        """Bytes of one."""
        return self.bits // 8

    @property
    def lanes(self) -> int:
        """32-bit numbers in one."""
        return self.bits // 32

    @property
    def vectors(self) -> int:
        """How many hold a row's 64 columns, or keys."""
        return BLOCK // self.lanes

    def present(self) -> bool:
        """Whether code for this process may use them: the processor has them, and numba was not told to leave them."""
        told = os.environ.get("NUMBA_CPU_FEATURES")
        if told is not None:
            return all(f"+{name}" in told.split(",") for name in self.features)
        found = () if os.environ.get("NUMBA_CPU_NAME") else cpuinfo().get("flags", "").split()
        # Linux parts what LLVM writes together: avx512_vnni.
        return all(name in (flag.replace("_", "") for flag in found) for name in self.features)


AVX512 = Registers("avx512", ("avx512f", "avx512bw", "avx512vnni"), 512, 4, dot=True)
AVX_VNNI = Registers("avx-vnni", ("avx2", "avxvnni"), 256, 2, dot=True)
AVX2 = Registers("avx2", ("avx2",), 256, 2, dot=False)
