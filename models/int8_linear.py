"""Linear layers in INT8: weights per output channel, activations quantised row by row as they come.

A weight is symmetric, w = scale * w8; a row of activations is asymmetric, x = scale * (x8 - zero) with x8 of eight
bits without sign. The products are summed exactly, in 32 bits, by the instruction that AVX512-VNNI and AVX-VNNI
have for that (VPDPBUSD: four products to a lane), for which the weights are laid out in blocks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.emulator.vectors import Writer
from models.vectorised import jit, largest, largest_magnitude, parallel, smallest

__all__ = [
    "BLOCK",
    "SMALLEST",
    "Int8Weight",
    "linear_int8",
    "pack_int8",
    "pack_rows",
    "quantise_rows",
    "split_rows",
    "unpack_int8",
]

BLOCK = 32
"""Output channels that are worked on together: four vectors of eight 32-bit sums."""
SMALLEST = np.float32(1e-30)
"""What a row's largest number counts as at least, so that a row of zeros can be divided by it."""
_VECTORS = 4
_LANES = 8


class Int8Weight(NamedTuple):
    """A weight (n_out, n_in), as `pack_int8` makes it; n_out is filled up to a multiple of BLOCK with zeros.

    blocks : int8 (n_out / BLOCK, n_in / 4, BLOCK, 4)
    scale : float32 (n_out,)
    total : int32 (n_out,), the sum of each row of w8: what a zero point of 1 adds to its product
    bias : float32 (n_out,)
    """

    blocks: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    total: npt.NDArray[np.int32]
    bias: npt.NDArray[np.float32]


def pack_int8(weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32] | None = None) -> Int8Weight:
    """Quantise a weight (n_out, n_in), whose n_in has to be a multiple of 4, and lay it out in blocks."""
    n_out, n_in = weight.shape
    n_blocks = -(-n_out // BLOCK)
    blocks = np.zeros((n_blocks, n_in // 4, BLOCK, 4), np.int8)
    scale, total = np.zeros(n_blocks * BLOCK, np.float32), np.zeros(n_blocks * BLOCK, np.int32)
    filled = np.zeros(n_blocks * BLOCK, np.float32)
    if bias is not None:
        filled[:n_out] = bias
    pack_rows(weight, blocks.view(np.int32)[..., 0], scale, total)
    return Int8Weight(blocks, scale, total, filled)


def unpack_int8(weight: Int8Weight, n_out: int) -> npt.NDArray[np.float32]:
    """The numbers that a weight stands for, (n_out, n_in)."""
    rows = weight.blocks.transpose(0, 2, 1, 3).reshape(len(weight.scale), -1)[:n_out]
    numbers: npt.NDArray[np.float32] = rows * weight.scale[:n_out, None]
    return numbers


def _multiply_block(n_rows: int) -> Any:
    """An intrinsic that lets `n_rows` rows of `out` be those of the product with one block of weights.

    It takes addresses: of a block's weights, scale, total and bias; of the activations uint8 and, `stride` bytes
    from row to row, their scales and zero points; of the block's place in `out`, float32, `out_stride` bytes
    from row to row. And n_in / 4.
    """

    def multiply(
        typingctx: Any, w: Any, scale: Any, total: Any, bias: Any, x: Any, x_scale: Any, x_zero: Any, out: Any,
        stride: Any, out_stride: Any, quads: Any,
    ) -> Any:  # fmt: skip
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            w, scale, total, bias, x, x_scale, x_zero, out, stride, out_stride, quads = arguments
            i32, i64, f32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
            integers, reals = ir.VectorType(i32, _LANES), ir.VectorType(f32, _LANES)
            writer = Writer(builder)
            at, load, broadcast = writer.pointer, writer.load, writer.splat

            before, loop = builder.block, builder.append_basic_block("quads")
            after = builder.append_basic_block("rescale")
            builder.branch(loop)
            builder.position_at_end(loop)
            quad = builder.phi(i64)
            sums = [[builder.phi(integers) for _ in range(_VECTORS)] for _ in range(n_rows)]
            here = at(w, builder.mul(quad, ir.Constant(i64, 4 * BLOCK)))
            weights = [load(integers, here, 4 * _LANES * v) for v in range(_VECTORS)]
            column = at(x, builder.mul(quad, ir.Constant(i64, 4)))
            last = []
            for r in range(n_rows):
                row = at(column, builder.mul(stride, ir.Constant(i64, r)))
                four = broadcast(integers, load(i32, row))
                last.append([writer.bytes_dot(sums[r][v], four, weights[v]) for v in range(_VECTORS)])
                for v in range(_VECTORS):
                    sums[r][v].add_incoming(ir.Constant(integers, None), before)
                    sums[r][v].add_incoming(last[r][v], loop)
            following = at(quad, 1)
            quad.add_incoming(ir.Constant(i64, 0), before)
            quad.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, quads), loop, after)
            builder.position_at_end(after)
            for v in range(_VECTORS):
                place = 4 * _LANES * v
                scales, totals = load(reals, scale, place), load(integers, total, place)
                biases = load(reals, bias, place)
                for r in range(n_rows):
                    factor = broadcast(reals, load(f32, x_scale, 4 * r))
                    zero = broadcast(integers, load(i32, x_zero, 4 * r))
                    exact = builder.sub(last[r][v], builder.mul(zero, totals))
                    scaled = builder.fmul(builder.sitofp(exact, reals), builder.fmul(factor, scales))
                    row = at(out, builder.mul(out_stride, ir.Constant(i64, r)))
                    writer.store(builder.fadd(scaled, biases), row, place)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 11), codegen

    return intrinsic(multiply)


_multiply_1, _multiply_2, _multiply_3, _multiply_4 = (_multiply_block(n_rows) for n_rows in (1, 2, 3, 4))


@jit
def pack_rows(
    x: npt.NDArray[np.float32],
    quads: npt.NDArray[np.int32],
    scale: npt.NDArray[np.float32],
    total: npt.NDArray[np.int32],
) -> None:
    """Quantise the rows of x (n, n_in), each with its scale, into zeroed blocks of a weight, also keys of a head.

    quads : the blocks, seen as int32 (n / BLOCK, n_in / 4, BLOCK)
    """
    n_in = x.shape[1]
    row = np.empty(n_in, np.int8)
    as_quads = row.view(np.int32)
    for t in range(len(x)):
        most = max(largest_magnitude(x[t]), SMALLEST)
        inverse = np.float32(127) / most
        scale[t] = most / np.float32(127)
        count = np.int32(0)
        for c in range(n_in):
            value = np.int32(x[t, c] * inverse + np.float32(128.5)) - np.int32(128)
            row[c] = value
            count += value
        total[t] = count
        for quad in range(n_in // 4):
            quads[t // BLOCK, quad, t % BLOCK] = as_quads[quad]


@jit
def quantise_rows(
    x: npt.NDArray[np.float32], x8: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Quantise the rows of x (n, n_in) into x8; returns their scales, and their zero points, at which 0 is exact."""
    scale, zero = np.zeros(len(x), np.float32), np.zeros(len(x), np.int32)
    for r in range(len(x)):
        low, high = min(smallest(x[r]), np.float32(0)), max(largest(x[r]), np.float32(0))
        scale[r] = (high - low) / np.float32(255)
        inverse = np.float32(1) / max(scale[r], SMALLEST)
        zero[r] = np.int32(np.float32(0.5) - low * inverse)
        # What is rounded is not negative, up to rounding of its own: cutting off is rounding down.
        shift = np.float32(zero[r]) + np.float32(0.5)
        for c in range(x.shape[1]):
            x8[r, c] = min(np.int32(x[r, c] * inverse + shift), np.int32(255))
    return scale, zero


@jit
def split_rows(
    x: npt.NDArray[np.float32], x8: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Quantise the rows of x (n, n_in) to 16 bits, as two rows each of x8: the upper and the lower byte.

    Returns the scales and zero points of x8's rows; the sum of what two rows yield is the product.
    """
    scale, zero = np.empty(len(x8), np.float32), np.empty(len(x8), np.int32)
    for r in range(len(x)):
        most = max(largest_magnitude(x[r]), SMALLEST)
        inverse = np.float32(32767) / most
        for c in range(x.shape[1]):
            bits = np.int32(x[r, c] * inverse + np.float32(32768.5))
            x8[2 * r, c] = bits >> 8
            x8[2 * r + 1, c] = bits & 255
        scale[2 * r + 1] = most / np.float32(32767)
        scale[2 * r] = scale[2 * r + 1] * np.float32(256)
        zero[2 * r], zero[2 * r + 1] = 128, 0
    return scale, zero


@jit
def _linear_block(
    blocks: npt.NDArray[np.int8],
    scale: npt.NDArray[np.float32],
    total: npt.NDArray[np.int32],
    bias: npt.NDArray[np.float32],
    x8: npt.NDArray[np.uint8],
    x_scale: npt.NDArray[np.float32],
    x_zero: npt.NDArray[np.int32],
    out: npt.NDArray[np.float32],
    b: int,
) -> None:
    quads = blocks.shape[1]
    w = blocks.ctypes.data + b * quads * BLOCK * 4
    place = b * BLOCK * 4
    s, t, c = scale.ctypes.data + place, total.ctypes.data + place, bias.ctypes.data + place
    x, xs, xz, o = x8.ctypes.data, x_scale.ctypes.data, x_zero.ctypes.data, out.ctypes.data + place
    stride, out_stride = x8.strides[0], out.strides[0]
    for row in range(0, len(x8), 4):
        xr, sr, zr, to = x + row * stride, xs + 4 * row, xz + 4 * row, o + row * out_stride
        left = len(x8) - row
        if left >= 4:
            _multiply_4(w, s, t, c, xr, sr, zr, to, stride, out_stride, quads)
        elif left == 3:
            _multiply_3(w, s, t, c, xr, sr, zr, to, stride, out_stride, quads)
        elif left == 2:
            _multiply_2(w, s, t, c, xr, sr, zr, to, stride, out_stride, quads)
        else:
            _multiply_1(w, s, t, c, xr, sr, zr, to, stride, out_stride, quads)


def _linear(
    blocks: npt.NDArray[np.int8],
    scale: npt.NDArray[np.float32],
    total: npt.NDArray[np.int32],
    bias: npt.NDArray[np.float32],
    x8: npt.NDArray[np.uint8],
    x_scale: npt.NDArray[np.float32],
    x_zero: npt.NDArray[np.int32],
    out: npt.NDArray[np.float32],
) -> None:
    for b in numba.prange(len(blocks)):
        _linear_block(blocks, scale, total, bias, x8, x_scale, x_zero, out, b)


linear_int8 = jit(_linear)
linear_int8_parallel = parallel(_linear)
