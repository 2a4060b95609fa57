"""The contract at the speed of a CPU: the same bits as `reference`.

Heads are shared out among threads, which have nothing in common but the operands. What works on a head is
`vector_attention` where the processor has the instructions for it, and `float_attention` anywhere.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.emulator import avx512_code as vector_code
from kernels.workers import Workers


class Emulator:
    """Runs operands on the CPU.

    Attributes:
        name: what to call it in reports.
        workers: the threads that it runs on.
        vector: whether it uses the processor's integer vector instructions.
    """

    name = "emulator"

    def __init__(self, workers: Workers | None = None, *, vector: bool | None = None) -> None:
        """Make an emulator.

        Args:
            workers: its threads; as many as there are processors unless given.
            vector: use the integer vector instructions, which this processor has to have; where it has them unless
                given. The bits are the same.
        """
        self.workers = workers or Workers()
        self.vector = vector_code.available() if vector is None else vector
        if self.vector:
            from kernels.emulator.avx512 import VectorAttention

            self._head = VectorAttention().head
        else:
            from kernels.emulator.portable import FloatAttention

            self._head = FloatAttention().head

    def run(
        self,
        operands: c.Operands,
        *,
        scores: c.ScoreType = "int32",
        tile_size: int = c.DEFAULT_TILE_SIZE,
        output_bits: int = 16,
    ) -> npt.NDArray[np.int16]:
        """Attention of every head, by the contract.

        Args:
            operands: the integers of the run.
            scores: `int32` keeps exact scores; `int8` holds them in INT8.
            tile_size: keys per tile: 64, 128 or 256.
            output_bits: 16 for the value's step / 256, 8 for the value's step.

        Returns:
            int16, shape (n, rows, 64 or 128): as many columns as the values have.

        Raises:
            kernels.contract.ContractError: operands outside the contract.
        """
        operands.check(tile_size, scores, output_bits)
        heads, rows, _ = operands.q.shape
        out = np.empty((heads, rows, operands.v.shape[2]), np.int16)

        def head(h: int) -> None:
            self._head(operands, h, scores == "int8", tile_size, output_bits, out[h])

        self.workers.each(head, heads)
        return out
