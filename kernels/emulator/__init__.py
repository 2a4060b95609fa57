"""The contract at the speed of a CPU: the same bits as `reference`.

Heads, or parts of their rows, are shared out among threads, which have nothing in common but the operands. What works
on them is `vector` where the processor has integer vector instructions that it is written for, and `portable` anywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.emulator.head import Head
from kernels.emulator.registers import AVX2, AVX512, AVX_VNNI, ROWS
from kernels.workers import Workers

PORTABLE = "portable"
_SHARES = 4
"""Pieces of work a thread, at the least."""
_FEWEST_ROWS = 256
"""Of a piece: its head's keys and values are packed for it, which costs as much as 20 rows."""
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

        # Of so many rows that no thread waits long for the last one.
        parts = max(1, min(-(-_SHARES * self.workers.threads // max(1, heads)), rows // _FEWEST_ROWS))
        step = -(-rows // (parts * ROWS)) * ROWS

        def attend(part: int) -> None:
            h, first = part // parts, part % parts * step
            some = slice(first, min(first + step, rows))
            head = Head(
                operands.q[h, some],
                operands.k[h, :valid],
                operands.v[h, :valid],
                operands.key_multiplier[h, :valid],
                operands.multiplier[h, some],
                operands.shift[h],
                scores == "int8",
                tile_size,
                output_bits,
            )
            self._attend(head, out[h, some])

        self.workers.each(attend, heads * parts)
        return out
