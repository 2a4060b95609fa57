"""Writing vector code inside numba: LLVM's operations by name, and blocks of sums that stay in registers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import extending, types
from numba.core import cgutils

from kernels.emulator.head import BLOCK
from kernels.emulator.registers import Registers

# Their own types do not fit what they make.
_intrinsic: Any = extending.intrinsic
_cgutils: Any = cgutils

I8, I16, I32, I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)


class Writer:
    """Shorthand for writing LLVM's intermediate language.

    Attributes:
        b: where it stands.
        registers: what it writes for.
        lanes, words, bytes: the types of a register of 32, 16 and 8-bit numbers.
    """

    def __init__(self, builder: Any, registers: Registers) -> None:
        """Write where `builder` stands, for these registers."""
        self.b = builder
        self.registers = registers
        self.lanes, self.words, self.bytes = (
            ir.VectorType(kind, registers.bits // kind.width) for kind in (I32, I16, I8)
        )

    def load(self, kind: Any, address: Any, offset: int = 0) -> Any:
        """What lies so many bytes past an address."""
        return self.b.load(self._pointer(kind, address, offset), align=1)

    def store(self, value: Any, address: Any, offset: int = 0) -> None:
        """Put a value there."""
        self.b.store(value, self._pointer(value.type, address, offset), align=1)

    def _pointer(self, kind: Any, address: Any, offset: int) -> Any:
        return self.b.inttoptr(self.b.add(address, ir.Constant(I64, offset)), kind.as_pointer())

    def splat(self, kind: Any, value: Any) -> Any:
        """A vector of one value, a number or a scalar of the language."""
        if isinstance(value, (int, float)):
            return ir.Constant(kind, [value] * kind.count)
        one = self.b.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
        return self.b.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)

    def call(self, name: str, kind: Any, *arguments: Any) -> Any:
        """What LLVM's function of that name returns, of type `kind`."""
        signature = ir.FunctionType(kind, [a.type for a in arguments])
        return self.b.call(_cgutils.get_or_insert_function(self.b.module, signature, name), arguments)

    def each(self, name: str, x: Any, y: Any) -> Any:
        """What LLVM's function of that name makes of each two signed numbers: `smax`, `smin`, `ssub.sat`."""
        return self.call(f"llvm.{name}.v{x.type.count}i{x.type.element.width}", x.type, x, y)

    def clamped(self, x: Any, low: int, high: int) -> Any:
        """The numbers held within two ends."""
        return self.each("smax", self.each("smin", x, self.splat(x.type, high)), self.splat(x.type, low))

    def high(self, x: Any, y: Any) -> Any:
        """(x y + 2^14) >> 15 of signed words (VPMULHRSW)."""
        return self.call(self._named("pmul.hr.sw"), self.words, x, y)

    def packed(self, x: Any, y: Any) -> Any:
        """Two registers of lanes as one of words, 128 bits of each in turn; what does not fit is saturated."""
        return self.call(self._named("packssdw"), self.words, x, y)

    def unpacked(self, words: Any) -> tuple[Any, Any]:
        """The unsigned lanes of the two registers that `packed` makes words of."""
        count = words.type.count
        zeros = self.splat(words.type, 0)
        registers = []
        for first in (0, 4):
            order = [8 * (i // 8) + first + i % 8 // 2 + i % 2 * count for i in range(count)]
            mask = ir.Constant(ir.VectorType(I32, count), order)
            registers.append(self.b.bitcast(self.b.shuffle_vector(words, zeros, mask), self.lanes))
        return registers[0], registers[1]

    def narrowed(self, x: Any, y: Any) -> Any:
        """Two registers of lanes as one of words, in order; what does not fit is saturated."""
        words = self.packed(x, y)
        pairs = ir.VectorType(I64, self.registers.bits // 64)
        order = [*range(0, pairs.count, 2), *range(1, pairs.count, 2)]
        mask = ir.Constant(ir.VectorType(I32, pairs.count), order)
        words = self.b.bitcast(words, pairs)
        return self.b.bitcast(self.b.shuffle_vector(words, words, mask), self.words)

    def looked_up(self, table: list[int], at: Any) -> Any:
        """For each byte the one of 16 in a table, by its low four bits; zero where its highest is set (VPSHUFB)."""
        entries = ir.Constant(self.bytes, table * (self.bytes.count // 16))
        found = self.call(self._named("pshuf.b"), self.bytes, entries, self.b.bitcast(at, self.bytes))
        return self.b.bitcast(found, at.type)

    def _named(self, operation: str) -> str:
        return (
            f"llvm.x86.avx512.{operation}.512" if self.registers.bits == 512 else f"llvm.x86.avx2.{operation}"
        )

    def bytes_dot(self, sums: Any, x: Any, y: Any) -> Any:
        """Adds four products of uint8 and int8 to each 32-bit lane (VPDPBUSD)."""
        return self._dot("vpdpbusd", self.bytes, sums, x, y)

    def words_dot(self, sums: Any, x: Any, y: Any) -> Any:
        """Adds two products of int16 to each 32-bit lane (VPDPWSSD, or VPMADDWD and VPADDD)."""
        if self.registers.dot:
            return self._dot("vpdpwssd", self.words, sums, x, y)
        x, y = (self.b.bitcast(a, self.words) for a in (x, y))
        return self.b.add(sums, self.call(self._named("pmadd.wd"), self.lanes, x, y))

    def _dot(self, name: str, kind: Any, sums: Any, x: Any, y: Any) -> Any:
        if binding.llvm_version_info[0] < 22:  # which took every operand as 32-bit lanes
            kind = sums.type
        x, y = self.b.bitcast(x, kind), self.b.bitcast(y, kind)
        return self.call(f"llvm.x86.avx512.{name}.{self.registers.bits}", sums.type, sums, x, y)

    def products(
        self,
        dot: Callable[[Any, Any, Any], Any],
        start: list[list[Any]],
        x: Any,
        y: Any,
        steps: int,
        row: int,
    ) -> list[list[Any]]:
        """`start` plus x y, for `ROWS` rows and a group of registers of columns.

        Args:
            dot: adds to sums the products of a step's part of a row, in every lane, and of columns.
            start: of each row, its registers.
            x: the address of rows, 4 bytes a step.
            y: the address of the group's columns; from step to step it is all 64 columns further.
            steps: how many.
            row: bytes from row to row.

        Returns:
            As `start`.
        """
        sums = [[_cgutils.alloca_once(self.b, value.type) for value in values] for values in start]
        for places, values in zip(sums, start, strict=True):
            for place, value in zip(places, values, strict=True):
                self.b.store(value, place)
        with _cgutils.for_range(self.b, ir.Constant(I64, steps), intp=I64) as loop:
            at = self.b.add(y, self.b.mul(loop.index, ir.Constant(I64, 4 * BLOCK)))
            columns = [self.load(self.lanes, at, v * self.registers.size) for v in range(len(start[0]))]
            across = self.b.add(x, self.b.mul(loop.index, ir.Constant(I64, 4)))
            for r, places in enumerate(sums):
                some = self.splat(self.lanes, self.load(I32, across, r * row))
                for place, column in zip(places, columns, strict=True):
                    self.b.store(dot(self.b.load(place), some, column), place)
        return [[self.b.load(place) for place in places] for places in sums]


def piece(write: Callable[..., None]) -> Any:
    """Let compiled code call what `write` writes, for the registers that its first argument's class has.

    That argument is a named tuple, the others are integers.

    Args:
        write: called with a `Writer` for those registers and integers, most of them addresses (`array.ctypes.data`).
    """
    names = list(inspect.signature(write).parameters)[1:]

    @functools.wraps(write)
    def typed(typingctx, like, *_):  # type: ignore[no-untyped-def]
        registers = like.instance_class.registers

        def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
            write(Writer(builder, registers), *values[1:])
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * len(names)), code

    # numba reads the names of the arguments there.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    typed.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in ("typingctx", "like", *names)]
    )
    return _intrinsic(typed)
