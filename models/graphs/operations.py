"""What the graphs are made of: Whisper's layers in OpenVINO's operations, and their compilation.

Types are explicit: what goes from layer to layer, layer norms and softmax over text are float32, and each product is in
the type that it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch
from openvino import Type
from openvino import opset13 as op

from kernels.contract import HEAD_DIM

_ROWS = 4096  # quantised at a time: what that needs stays small beside the weight


def compile_graph(graph: Any, *, group_size: int = 0) -> Any:
    """Compile an `openvino.Model` for the processor, on as many threads as PyTorch takes at the time.

    Args:
        graph: to compile.
        group_size: of activations that share a step where they are rounded to INT8 before INT8 weights; 0 leaves them
            as they are.
    """
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Runs side by side would pin their threads to the same processors.
        "ENABLE_CPU_PINNING": False,
        # As the graph has it: otherwise OpenVINO would round activations to bfloat16, or to INT8 before INT8 weights,
        # and keys and values of the text to 8 bits.
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": group_size,
        "KV_CACHE_PRECISION": "f32",
    }
    return _core().compile_model(graph, "CPU", settings)


@cache
def _core() -> Any:
    return ov.Core()


def parameter(name: str, shape: Sequence[int], kind: Any = Type.f32) -> Any:
    """An input; dimensions of -1 are any."""
    node = op.parameter(list(shape), kind)
    node.output(0).set_names({name})
    return node


def constant(x: Any) -> Any:
    """A constant: an array or a PyTorch tensor, which is not copied, or integers."""
    if isinstance(x, torch.Tensor):
        x = x.detach().numpy()
    return op.constant(np.ascontiguousarray(x), shared_memory=True)


def cast(x: Any, kind: Any) -> Any:
    """x in that type."""
    return x if x.get_element_type() == kind else op.convert(x, kind)


def transpose(x: Any, *axes: int) -> Any:
    """x with its axes in that order."""
    return op.transpose(x, constant(axes))


def product(x: Any, weight: npt.NDArray[np.float32], kind: Any) -> Any:
    """x times the transpose of a weight (outputs, inputs).

    Args:
        x: (n, tokens, inputs).
        weight: (outputs, inputs).
        kind: of factors and result; `Type.i8` is a weight held in INT8, the rest in float32.
    """
    if kind == Type.i8:
        return op.matmul(x, _int8(weight), False, True)
    return op.matmul(cast(x, kind), cast(constant(weight), kind), False, True)


def _int8(weight: npt.NDArray[np.float32]) -> Any:
    """INT8 with a step per output, in the form in which OpenVINO leaves it INT8 in memory."""
    step = np.maximum(np.abs(weight).max(1, keepdims=True), np.float32(1e-30)) / np.float32(127)
    codes = np.empty(weight.shape, np.int8)
    for first in range(0, len(weight), _ROWS):
        rows = slice(first, first + _ROWS)
        np.rint(weight[rows] / step[rows], out=codes[rows], casting="unsafe")
    return op.multiply(op.convert(constant(codes), Type.f32), constant(step))


def linear(x: Any, modules: Sequence[Any], kind: Any) -> Any:
    """`torch.nn.Linear` layers that have the same input, their outputs one after the other; see `product`."""
    weights = [module.weight.detach().numpy() for module in modules]
    biases = [
        np.zeros(len(m.weight), np.float32) if m.bias is None else m.bias.detach().numpy() for m in modules
    ]
    result = product(x, weights[0] if len(weights) == 1 else np.concatenate(weights), kind)
    return op.add(result, cast(constant(np.concatenate(biases)[None, None]), result.get_element_type()))


def layer_norm(x: Any, module: Any) -> Any:
    """`torch.nn.LayerNorm` over the last axis."""
    y = op.mvn(x, constant([-1]), True, float(module.eps), "inside_sqrt")
    return op.add(op.multiply(y, constant(module.weight[None, None])), constant(module.bias[None, None]))


def add(x: Any, change: Any) -> Any:
    """The residual x, float32, with what a layer adds to it."""
    return op.add(x, cast(change, Type.f32))


def feed_forward(x: Any, block: Any, kind: Any) -> Any:
    """What a layer's MLP adds to x."""
    hidden = op.gelu(linear(layer_norm(x, block.mlp_ln), [block.mlp[0]], kind), "erf")
    return linear(hidden, [block.mlp[2]], kind)


def split_heads(x: Any) -> Any:
    """(n, tokens, heads * 64) -> (n, tokens, heads, 64)."""
    return op.reshape(x, constant([0, 0, -1, HEAD_DIM]), True)


def join_heads(x: Any) -> Any:
    """(n, heads, tokens, 64) -> (n, tokens, heads * 64)."""
    return op.reshape(transpose(x, 0, 2, 1, 3), constant([0, 0, -1]), True)


def query_key_value(x: Any, block: Any, kind: Any) -> Any:
    """Queries, keys and values of a layer's self-attention, one after the other: (n, tokens, 3 * heads * 64)."""
    attn = block.attn
    return linear(layer_norm(x, block.attn_ln), [attn.query, attn.key, attn.value], kind)


def by_heads(together: Any) -> list[Any]:
    """Queries, keys and values, (n, heads, tokens, 64) each, from `query_key_value`'s."""
    parts = op.split(together, op.constant(2, Type.i64), 3)
    return [transpose(split_heads(part), 0, 2, 1, 3) for part in parts.outputs()]
