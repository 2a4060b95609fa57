"""The contract at the speed of a CPU: the same bits as `reference`.

Heads are shared out among threads, which have nothing in common but the operands. What works on a head is `avx512`
where the processor has the instructions for it, and `portable` anywhere.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.emulator import avx512_code
from kernels.emulator.head import Head
from kernels.workers import Workers


class Emulator:
    """Runs operands on the CPU; `vector` says whether in the processor's integer vector instructions."""

    name = "emulator"

    def __init__(self, workers: Workers | None = None, *, vector: bool | None = None) -> None:
        """Make an emulator.

        Args:
            workers: its threads; as many as there are processors unless given.
            vector: use the integer vector instructions, which this processor has to have; where it has them unless
                given. The bits are the same.
        """
        self.workers = workers or Workers()
        self.vector = avx512_code.available() if vector is None else vector
        if self.vector:
            from kernels.emulator.avx512 import attend
        else:
            from kernels.emulator.portable import attend
        self._attend = attend

    def run(
        self,
        operands: c.Operands,
        *,
        scores: c.ScoreType = "int32",
        tile_size: int = c.DEFAULT_TILE_SIZE,
        output_bits: int = 16,
    ) -> npt.NDArray[np.int16]:
        """See `kernels.device.Device`."""
        operands.check(tile_size, scores, output_bits)
        heads, rows, _ = operands.q.shape
        valid = operands.valid_keys
        out = np.empty((heads, rows, operands.v.shape[2]), np.int16)

        def attend(h: int) -> None:
            head = Head(
                operands.q[h],
                operands.k[h, :valid],
                operands.v[h, :valid],
                operands.key_multiplier[h, :valid],
                operands.multiplier[h],
                operands.shift[h],
                scores == "int8",
                tile_size,
                output_bits,
            )
            self._attend(head, out[h])

        self.workers.each(attend, heads)
        return out
