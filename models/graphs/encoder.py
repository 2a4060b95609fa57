"""Whisper's audio encoder on OpenVINO: one graph, which calls the attention that is computed elsewhere."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import openvino as ov
from openvino import Type
from openvino import opset13 as op

from kernels.arrays import Reals
from models.attention import Attention, CpuAttention
from models.compute import Context, has_bfloat16
from models.features import check_windows
from models.graphs.compiling import Graphs
from models.graphs.operations import (
    Part,
    add,
    by_heads,
    cast,
    constant,
    feed_forward,
    join_heads,
    layer_norm,
    linear,
    parameter,
    query_key_value,
    transpose,
)
from models.graphs.seam import Outside, Seam
from models.weights.building import Dimensions, Model

__all__ = ["GraphEncoder"]

_BETWEEN_LOOKS = 100
"""Milliseconds after which it is looked for a Ctrl-C."""


class GraphEncoder:
    """A model's encoder, in bfloat16 where the processor has it; see `models.encoder.Encoder`.

    The convolutions and the first layer's attention stay in float32: their errors grow through all layers. In bfloat16
    throughout, base's encoder states are off by 2.3 %; so by 1.0 %.

    Attributes:
        attention: the backend that every layer's self-attention goes through.
    """

    def __init__(
        self, model: Model, attention: Attention, threads: int | None = None, context: Context = "full"
    ) -> None:
        """Make the encoder of `model`: for windows of 30 s alone, or of any length with the context `auto`."""
        self.attention = attention
        self._dims, self._context = model.dims, context
        self._outside = None if isinstance(attention, CpuAttention) else Outside(attention)
        build = partial(
            _graph, Part(model.tensors, "encoder"), model.dims, context, seam=self._outside is not None
        )
        name = f"encoder {context} with a seam" if self._outside else f"encoder {context}"
        self._request = Graphs(model, threads).compile(name, build).request()

    def __call__(self, mel: Reals) -> Reals:
        """Encode windows; see `models.encoder.Encoder`."""
        check_windows(mel, self._dims, self._context)
        states = np.empty((len(mel), mel.shape[2] // 2, self._dims.n_audio_state), np.float32)
        for window, into in zip(mel, states, strict=True):
            self._run([window[None], self._outside.number] if self._outside else [window[None]])
            if self._outside:
                self._outside.check()
            into[:] = self._request.get_output_tensor(0).data[0]
        return states

    def _run(self, inputs: list[Any]) -> None:
        """Run the graph in a thread of OpenVINO's, to the end or up to a Ctrl-C.

        In the main thread a Ctrl-C would come up where the graph calls the seam, and OpenVINO, run by one thread, would
        go on as if all had been computed.
        """
        self._request.start_async(inputs, share_inputs=True)
        try:
            while not self._request.wait_for(_BETWEEN_LOOKS):
                pass
        except KeyboardInterrupt:
            self._request.cancel()
            with suppress(RuntimeError):  # which says that it was
                self._request.wait()
            raise


def _type(part: str, layer: int) -> Any:
    """What a part of a layer is computed in."""
    return Type.f32 if not has_bfloat16() or (layer == 0 and part == "attention") else Type.bf16


def _graph(encoder: Part, dims: Dimensions, context: Context, *, seam: bool) -> Any:
    """Log-mel features (1, n_mels, frames) -> encoder states (1, frames / 2, width).

    With a `seam` each layer's attention is `Seam`, and a second input its number.
    """
    x = mel = parameter("mel", (1, dims.n_mels, 2 * dims.n_audio_ctx if context == "full" else -1))
    number = parameter("attention", (1,), Type.i32)
    for conv, stride in ((encoder.part("conv1"), 1), (encoder.part("conv2"), 2)):
        x = op.convolution(x, constant(conv["weight"]), [stride], [1], [1], [1])
        x = op.gelu(op.add(x, constant(conv["bias"][None, :, None])), "erf")
    x, positions = transpose(x, 0, 2, 1), constant(encoder["positional_embedding"][None])
    if context == "auto":
        one, length = constant([1]), op.gather(op.shape_of(x), constant([1]), op.constant(0, Type.i64))
        positions = op.slice(positions, constant([0]), length, one, one)
    x = op.add(x, positions)
    for layer in range(dims.n_audio_layer):
        block, kind = encoder.part(f"blocks.{layer}"), _type("attention", layer)
        together = query_key_value(x, block, kind)
        if seam:
            given = cast(together, Type.f32), number, constant([layer])
            attended: Any = Seam([node.output(0) for node in given])
        else:
            attended = join_heads(op.scaled_dot_product_attention(*by_heads(together)))
        x = add(x, linear(attended, [block.part("attn.out")], kind))
        x = add(x, feed_forward(x, block, _type("MLP", layer)))
    inputs = [mel, number] if seam else [mel]
    return ov.Model([layer_norm(x, encoder.part("ln_post"))], inputs, "encoder")
