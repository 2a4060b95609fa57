"""The rotation of queries and keys before they are quantised: a fast Walsh-Hadamard transform of 64 numbers.

Six steps of sums and differences take the place of 64 x 64 products, and since their order is fixed the results are the
same on every processor, which a BLAS does not promise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types

from kernels.arrays import Reals
from kernels.contract import HEAD_DIM

_intrinsic: Any = extending.intrinsic

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_LANES = 16
_REGISTER = ir.VectorType(ir.FloatType(), _LANES)
"""Of 512 bits; LLVM makes more of it where the processor's are smaller."""
_SCALE = 1 / math.sqrt(HEAD_DIM)


def hadamard() -> Reals:
    """The orthonormal 64-point Hadamard matrix (Sylvester's construction), float32, shape (64, 64).

    Rotating queries and keys alike leaves every dot product as it is and spreads outlying channels over all 64, so
    that INT8 wastes less of its range (QuaRot, Ashkboos et al. 2024). The rotation can be folded into the weights of
    the projections that make queries and keys.
    """
    h = np.ones((1, 1))
    while len(h) < HEAD_DIM:
        h = np.block([[h, h], [h, -h]])
    return (h * _SCALE).astype(np.float32)


def _constants(values: list[float]) -> Any:
    return ir.Constant(_REGISTER, values)


@_intrinsic
def rotate(typingctx, source, target):  # type: ignore[no-untyped-def]
    """Within compiled code: 64 float32 at one address times `hadamard()`, to another."""

    def code(context, builder, signature, addresses):  # type: ignore[no-untyped-def]
        pointers = [builder.inttoptr(a, _REGISTER.as_pointer()) for a in addresses]

        def place(of: int, register: int) -> Any:
            return builder.gep(pointers[of], [ir.Constant(_I64, register)])

        scale = _constants([_SCALE] * _LANES)
        x = [builder.fmul(builder.load(place(0, r), align=4), scale) for r in range(HEAD_DIM // _LANES)]
        for distance in (2, 1):  # in registers
            pairs = [(r, r + distance) for r in range(len(x)) if not r & distance]
            for r, s in pairs:
                x[r], x[s] = builder.fadd(x[r], x[s]), builder.fsub(x[r], x[s])
        for distance in (8, 4, 2, 1):  # in lanes
            order = ir.Constant(ir.VectorType(_I32, _LANES), [lane ^ distance for lane in range(_LANES)])
            sign = _constants([-1.0 if lane & distance else 1.0 for lane in range(_LANES)])
            x = [builder.fadd(builder.shuffle_vector(a, a, order), builder.fmul(a, sign)) for a in x]
        for r, value in enumerate(x):
            builder.store(value, place(1, r), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code
