"""Whisper's audio encoder on OpenVINO: one graph, or cut at the seam for attention that is computed elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import Type
from openvino import opset13 as op

from models.attention import Attention, CpuAttention
from models.compute import has_bfloat16
from models.features import check_windows
from models.graphs.operations import (
    Part,
    add,
    by_heads,
    cast,
    compile_graph,
    constant,
    feed_forward,
    join_heads,
    layer_norm,
    linear,
    parameter,
    query_key_value,
    split_heads,
    transpose,
)
from models.weights.building import Dimensions, Model

__all__ = ["GraphEncoder"]


class GraphEncoder:
    """A model's encoder, in bfloat16 where the processor has it; see `models.encoder.Encoder`.

    The convolutions and the first layer's attention stay in float32: their errors grow through all layers. In bfloat16
    throughout, base's encoder states are off by 2.3 %; so by 1.0 %.

    Attributes:
        attention: the backend that every layer's self-attention goes through.
    """

    def __init__(self, model: Model, attention: Attention, threads: int | None = None) -> None:
        """Make the encoder of `model`."""
        self.attention = attention
        self._dims = model.dims
        encoder = Part(model.tensors, "encoder")
        whole = isinstance(attention, CpuAttention)
        graphs = [_whole(encoder, model.dims)] if whole else _cut(encoder, model.dims)
        self._requests = [compile_graph(graph, threads).create_infer_request() for graph in graphs]

    def __call__(self, mel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Encode windows; see `models.encoder.Encoder`."""
        check_windows(mel, self._dims)
        states = np.empty((len(mel), self._dims.n_audio_ctx, self._dims.n_audio_state), np.float32)
        for window, into in zip(mel, states, strict=True):
            into[:] = self._window(window[None])[0]
        return states

    def _window(self, mel: npt.NDArray[np.float32]) -> Any:
        first, *layers = self._requests
        x, *together = _outputs(first, mel)
        for layer, request in enumerate(layers):
            q, k, v = np.split(together[0], 3, axis=2)
            attended = self.attention(q, k, v, layer=layer)
            x, *together = _outputs(request, x, attended.reshape(x.shape))
        return x


def _outputs(request: Any, *inputs: npt.NDArray[np.float32]) -> Iterable[Any]:
    """What an `openvino.InferRequest` makes of its inputs; its next run overwrites it."""
    found: Iterable[Any] = request.infer(inputs, share_inputs=True, share_outputs=True).values()
    return found


def _type(part: str, layer: int) -> Any:
    """What a part of a layer is computed in."""
    return Type.f32 if not has_bfloat16() or (layer == 0 and part == "attention") else Type.bf16


def _input(encoder: Part, dims: Dimensions) -> tuple[Any, Any]:
    """Log-mel features (1, n_mels, frames), and what convolutions and positions make of them (1, frames / 2, width)."""
    x = mel = parameter("mel", (1, dims.n_mels, 2 * dims.n_audio_ctx))
    for conv, stride in ((encoder.part("conv1"), 1), (encoder.part("conv2"), 2)):
        x = op.convolution(x, constant(conv["weight"]), [stride], [1], [1], [1])
        x = op.gelu(op.add(x, constant(conv["bias"][None, :, None])), "erf")
    return mel, op.add(transpose(x, 0, 2, 1), constant(encoder["positional_embedding"][None]))


def _after_attention(x: Any, attended: Any, block: Part, layer: int) -> Any:
    x = add(x, linear(attended, [block.part("attn.out")], _type("attention", layer)))
    return add(x, feed_forward(x, block, _type("MLP", layer)))


def _blocks(encoder: Part, dims: Dimensions) -> list[Part]:
    return [encoder.part(f"blocks.{layer}") for layer in range(dims.n_audio_layer)]


def _whole(encoder: Part, dims: Dimensions) -> Any:
    """Log-mel features -> encoder states."""
    mel, x = _input(encoder, dims)
    for layer, block in enumerate(_blocks(encoder, dims)):
        heads = by_heads(query_key_value(x, block, _type("attention", layer)))
        x = _after_attention(x, join_heads(op.scaled_dot_product_attention(*heads)), block, layer)
    return ov.Model([layer_norm(x, encoder.part("ln_post"))], [mel], "encoder")


def _cut(encoder: Part, dims: Dimensions) -> list[Any]:
    """What comes before the first attention, and after each: the residual, and the next queries, keys and values."""
    blocks = _blocks(encoder, dims)

    def ahead(x: Any, layer: int) -> list[Any]:
        if layer == len(blocks):
            return [layer_norm(x, encoder.part("ln_post"))]
        together = query_key_value(x, blocks[layer], _type("attention", layer))
        return [x, cast(split_heads(together), Type.f32)]

    mel, x = _input(encoder, dims)
    graphs = [ov.Model(ahead(x, 0), [mel], "before layer 0's attention")]
    for layer, block in enumerate(blocks):
        shape = (1, dims.n_audio_ctx, dims.n_audio_state)
        residual, attended = parameter("residual", shape), parameter("attended", shape)
        x = _after_attention(residual, attended, block, layer)
        graphs.append(ov.Model(ahead(x, layer + 1), [residual, attended], f"after layer {layer}'s attention"))
    return graphs
