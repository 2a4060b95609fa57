"""Writing 512-bit vector code inside numba: LLVM's operations by name, and blocks of sums that stay in registers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import config, extending, types
from numba.core import cgutils

# Their own types do not fit what they make.
_intrinsic: Any = extending.intrinsic
_cgutils: Any = cgutils

ROWS = 6
"""Worked on together: with 64 columns in four registers each, their sums fill 24 of the 32 registers."""
VECTORS = 4
"""Registers for a row's 64 columns, or keys."""
REGISTER = 64
"""Bytes of one."""

I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
WORDS, LANES = ir.VectorType(I16, 32), ir.VectorType(I32, 16)


def processor_has(*features: str) -> bool:
    """Whether code may use these features, by LLVM's names."""
    settings: Any = config
    if settings.CPU_NAME or settings.CPU_FEATURES:
        return False  # numba was told to leave some unused
    try:
        found = binding.get_host_cpu_features()
    except RuntimeError:
        return False
    return all(found.get(name, False) for name in features)


class Writer:
    """Shorthand for writing LLVM's intermediate language."""

    def __init__(self, builder: Any) -> None:
        """Write where `builder` stands."""
        self.b = builder

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

    def bytes_dot(self, sums: Any, x: Any, y: Any) -> Any:
        """Adds four products of uint8 and int8 to each 32-bit lane (VPDPBUSD)."""
        return self._dot("vpdpbusd", 8, sums, x, y)

    def words_dot(self, sums: Any, x: Any, y: Any) -> Any:
        """Adds two products of int16 to each 32-bit lane (VPDPWSSD)."""
        return self._dot("vpdpwssd", 16, sums, x, y)

    def _dot(self, name: str, bits: int, sums: Any, x: Any, y: Any) -> Any:
        width = 32 * sums.type.count
        kind = ir.VectorType(ir.IntType(bits), width // bits)
        if binding.llvm_version_info[0] < 22:  # which took every operand as 32-bit lanes
            kind = sums.type
        x, y = self.b.bitcast(x, kind), self.b.bitcast(y, kind)
        return self.call(f"llvm.x86.avx512.{name}.{width}", sums.type, sums, x, y)

    def products(
        self,
        dot: Callable[[Any, Any, Any], Any],
        start: list[list[Any]],
        x: Any,
        y: Any,
        steps: int,
        row: int,
    ) -> list[list[Any]]:
        """`start` plus x y, for `ROWS` rows and four registers of columns.

        Args:
            dot: adds to sums the products of a step's part of a row, in every lane, and of columns.
            start: of each row, four registers.
            x: the address of rows, 4 bytes a step.
            y: the address of columns, four registers a step.
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
            at = self.b.mul(loop.index, ir.Constant(I64, VECTORS * REGISTER))
            columns = [self.load(LANES, self.b.add(y, at), v * REGISTER) for v in range(VECTORS)]
            across = self.b.add(x, self.b.mul(loop.index, ir.Constant(I64, 4)))
            for r, places in enumerate(sums):
                some = self.splat(LANES, self.load(I32, across, r * row))
                for place, column in zip(places, columns, strict=True):
                    self.b.store(dot(self.b.load(place), some, column), place)
        return [[self.b.load(place) for place in places] for places in sums]


def piece(write: Callable[..., None]) -> Any:
    """Let compiled code call what `write` writes.

    Args:
        write: called with a `Writer` and integers, most of them addresses (`array.ctypes.data`).
    """
    arguments = len(inspect.signature(write).parameters) - 1

    @functools.wraps(write)  # numba reads the names of the arguments there
    def typed(typingctx, *_):  # type: ignore[no-untyped-def]
        def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
            write(Writer(builder), *values)
            return context.get_dummy_value()

        return types.void(*[types.int64] * arguments), code

    return _intrinsic(typed)
