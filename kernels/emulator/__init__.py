"""The contract at the speed of a CPU: the same bits as `reference`.

Heads are shared out among threads, which have nothing in common but the operands. What works on a head is `vector`
where the processor has integer vector instructions that it is written for, and `portable` anywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.emulator.head import Head
from kernels.emulator.registers import AVX2, AVX512, AVX_VNNI
from kernels.workers import Workers

PORTABLE = "portable"
_VECTORS = (AVX512, AVX_VNNI, AVX2)


def available() -> tuple[str, ...]:
    """What this processor has of what the emulator is written for, fastest first; the last runs on any."""
    return (*(registers.name for registers in _VECTORS if registers.present()), PORTABLE)


class Emulator:
    """Runs operands on the CPU.

    Attributes:
        instructions: by which of `available()`.
    """

    name = "emulator"

    def __init__(self, workers: Workers | None = None, *, instructions: str | None = None) -> None:
        """Make an emulator.

        Args:
            workers: its threads; as many as there are processors unless given.
            instructions: one of `available()`; the fastest unless given. The bits are the same.
        """
        self.workers = workers or Workers()
        self.instructions = instructions or available()[0]
        registers = next((r for r in _VECTORS if r.name == self.instructions), None)
        self._attend: Callable[[Head, npt.NDArray[np.int16]], None]
        if registers is None:
            from kernels.emulator.portable import attend

            self._attend = attend
        else:
            from kernels.emulator.vector import attention_in

            self._attend = attention_in(registers)

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
