"""What the graphs are made of: Whisper's layers in OpenVINO's operations.

Types are explicit: what goes from layer to layer, layer norms and softmax over text are float32, and each product is in
the type that it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import Type
from openvino import opset13 as op

from kernels.contract import HEAD_DIM

_ROWS = 4096  # quantised at a time: what that needs stays small beside the weight
_EPSILON = 1e-5  # of Whisper's layer norms


class Part:
    """A part of a model, whose tensors go by their names in it."""

    def __init__(self, tensors: Mapping[str, npt.NDArray[Any]], name: str = "") -> None:
        """Take those of `tensors` whose names begin with `name` and a dot."""
        self._tensors, self._name = tensors, name

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        """A tensor in float32."""
        return self._tensors[f"{self._name}.{name}"].astype(np.float32)

    def get(self, name: str, default: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A tensor in float32, or the default where there is none."""
        return self[name] if f"{self._name}.{name}" in self._tensors else default

    def part(self, name: object) -> Part:
        """A part of it."""
        return Part(self._tensors, f"{self._name}.{name}")


def parameter(name: str, shape: Sequence[int], kind: Any = Type.f32) -> Any:
    """An input; dimensions of -1 are any."""
    node = op.parameter(list(shape), kind)
    node.output(0).set_names({name})
    return node


def constant(x: Any, kind: Any = None) -> Any:
    """A constant: an array, which is not copied, or integers; of float32 also in bfloat16."""
    x = np.ascontiguousarray(x)
    if kind == Type.bf16:
        rounded, bits = ov.Tensor(kind, ov.Shape(x.shape)), x.view(np.uint32)
        # To the nearest, and of two to the even one.
        rounded.data.view(np.uint16)[...] = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
        x = rounded
    return op.constant(x, shared_memory=True)


def cast(x: Any, kind: Any) -> Any:
    """x in that type."""
    return x if x.get_element_type() == kind else op.convert(x, kind)


def transpose(x: Any, *axes: int) -> Any:
    """x with its axes in that order."""
    return op.transpose(x, constant(axes))


def product(x: Any, weight: npt.NDArray[Any], kind: Any) -> Any:
    """x times the transpose of a weight (outputs, inputs).

    Args:
        x: (n, tokens, inputs).
        weight: float16 or float32, (outputs, inputs).
        kind: of factors and result; `Type.i8` is a weight held in INT8, the rest in float32.
    """
    if kind == Type.i8:
        return op.matmul(x, _int8(weight), False, True)
    return op.matmul(cast(x, kind), constant(weight.astype(np.float32, copy=False), kind), False, True)


def _int8(weight: npt.NDArray[Any]) -> Any:
    """INT8 with a step per output, in the form in which OpenVINO leaves it INT8 in memory."""
    codes, step = np.empty(weight.shape, np.int8), np.empty((len(weight), 1), np.float32)
    for first in range(0, len(weight), _ROWS):
        rows = slice(first, first + _ROWS)
        exact = weight[rows].astype(np.float32)
        step[rows] = np.maximum(np.abs(exact).max(1, keepdims=True), np.float32(1e-30)) / np.float32(127)
        np.rint(exact / step[rows], out=codes[rows], casting="unsafe")
    return op.multiply(op.convert(constant(codes), Type.f32), constant(step))


def linear(x: Any, parts: Sequence[Part], kind: Any) -> Any:
    """Linear layers that have the same input, their outputs one after the other; see `product`."""
    weight = np.concatenate([part["weight"] for part in parts])
    zeros = np.zeros(len(weight) // len(parts), np.float32)
    bias = np.concatenate([part.get("bias", zeros) for part in parts])
    result = product(x, weight, kind)
    return op.add(result, constant(bias[None, None], result.get_element_type()))


def layer_norm(x: Any, part: Part) -> Any:
    """A layer norm over the last axis."""
    y = op.mvn(x, constant([-1]), True, _EPSILON, "inside_sqrt")
    return op.add(op.multiply(y, constant(part["weight"][None, None])), constant(part["bias"][None, None]))


def add(x: Any, change: Any) -> Any:
    """The residual x, float32, with what a layer adds to it."""
    return op.add(x, cast(change, Type.f32))


def feed_forward(x: Any, block: Part, kind: Any) -> Any:
    """What a layer's MLP adds to x."""
    hidden = op.gelu(linear(layer_norm(x, block.part("mlp_ln")), [block.part("mlp.0")], kind), "erf")
    return linear(hidden, [block.part("mlp.2")], kind)


def split_heads(x: Any) -> Any:
    """(n, tokens, heads * 64) -> (n, tokens, heads, 64)."""
    return op.reshape(x, constant([0, 0, -1, HEAD_DIM]), True)


def join_heads(x: Any) -> Any:
    """(n, heads, tokens, 64) -> (n, tokens, heads * 64)."""
    return op.reshape(transpose(x, 0, 2, 1, 3), constant([0, 0, -1]), True)


def query_key_value(x: Any, block: Part, kind: Any) -> Any:
    """Queries, keys and values of a layer's self-attention, one after the other: (n, tokens, 3 * heads * 64)."""
    parts = [block.part(f"attn.{name}") for name in ("query", "key", "value")]
    return linear(layer_norm(x, block.part("attn_ln")), parts, kind)


def by_heads(together: Any) -> list[Any]:
    """Queries, keys and values, (n, heads, tokens, 64) each, from `query_key_value`'s."""
    parts = op.split(together, op.constant(2, Type.i64), 3)
    return [transpose(split_heads(part), 0, 2, 1, 3) for part in parts.outputs()]
