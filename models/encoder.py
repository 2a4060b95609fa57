"""Whisper's audio encoder, with its self-attention behind `models.attention.Attention`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.contract import HEAD_DIM
from models.attention import Attention
from models.compute import ResolvedType
from models.linear import prepare

__all__ = ["Encoder"]

_FLOAT32_LAYERS = 1
"""Layers that stay in float32, and the convolutions before them: errors of the first layer grow through all others.

In bfloat16 throughout, base's encoder states are off by 1.9 %; so by 0.6 %.
"""


class Encoder:
    """The encoder of a `whisper.model.Whisper`; reads that model's float32 weights in place.

    Several encoders can share one model. With `CpuAttention` the states equal `model.encoder(mel)` to rounding.

    Attributes:
        attention: the backend that every layer's self-attention goes through.
    """

    def __init__(self, model: Any, attention: Attention, compute_type: ResolvedType = "float32") -> None:
        """Make the encoder of `model`.

        Raises:
            ValueError: the model's heads are not 64 wide.
        """
        dims = model.dims
        if dims.n_audio_state != HEAD_DIM * dims.n_audio_head:
            raise ValueError(
                f"the model's heads are {dims.n_audio_state / dims.n_audio_head:g} wide; Whisper's are {HEAD_DIM}"
            )
        self.attention = attention
        self.compute_type = compute_type
        self._module = model.encoder
        self._input_shape = (dims.n_mels, 2 * dims.n_audio_ctx)
        self._blocks = [
            _Block(block, compute_type if layer >= _FLOAT32_LAYERS else "float32")
            for layer, block in enumerate(model.encoder.blocks)
        ]

    @torch.inference_mode()
    def __call__(self, mel: Tensor) -> Tensor:
        """Encode windows.

        Args:
            mel: log-mel features, float32, shape (windows, n_mels, 3000).

        Returns:
            Encoder states, float32, shape (windows, 1500, n_audio_state).

        Raises:
            ValueError: `mel` has another shape.
        """
        self._check(mel)
        states = torch.empty(len(mel), *self._module.positional_embedding.shape)
        # One after the other: what a layer makes of several windows would not stay in the caches.
        for i in range(len(mel)):
            states[i] = deque(self.layers(mel[i : i + 1]), maxlen=1).pop()[0]
        return states

    @torch.inference_mode()
    def layers(self, mel: Tensor) -> Iterator[Tensor]:
        """What each layer yields, in order, and last the encoder states; see `__call__`."""
        self._check(mel)
        encoder = self._module
        x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel))))
        # Sums keep the strides of what they are sums of: every layer would have to gather its rows.
        x = x.permute(0, 2, 1).contiguous() + encoder.positional_embedding
        for layer, block in enumerate(self._blocks):
            x = x + block.attend(x, self.attention, layer)
            x = x + block.feed_forward(x)
            yield x
        yield encoder.ln_post(x)

    def _check(self, mel: Tensor) -> None:
        n_mels, frames = self._input_shape
        if mel.ndim != 3 or mel.shape[1:] != (n_mels, frames):
            raise ValueError(
                f"log-mel features have to be (windows, {n_mels}, {frames}), not {tuple(mel.shape)}"
            )


class _Block:
    """One layer: layer norms, softmax and what is carried from layer to layer stay in float32."""

    def __init__(self, block: Any, compute_type: ResolvedType) -> None:
        attn = block.attn
        self._heads = attn.n_head
        self._attention_type = torch.float32 if compute_type == "float32" else torch.bfloat16
        self._attention_norm, self._feed_forward_norm = block.attn_ln, block.mlp_ln
        # Stacked projections would be a copy of float32 weights.
        together = [[attn.query], [attn.key], [attn.value]]
        if compute_type != "float32":
            together = [[attn.query, attn.key, attn.value]]
        self._projections = [prepare(layers, compute_type) for layers in together]
        self._out, self._up, self._down = (
            prepare([layer], compute_type) for layer in (attn.out, block.mlp[0], block.mlp[2])
        )

    def attend(self, x: Tensor, attention: Attention, layer: int) -> Tensor:
        heads = (*x.shape[:2], -1, HEAD_DIM)
        rows = self._attention_norm(x).flatten(0, 1)
        q, k, v = (
            part.view(heads).to(self._attention_type)
            for projected in (projection(rows) for projection in self._projections)
            for part in torch.split(projected, self._heads * HEAD_DIM, dim=1)
        )
        return self._out(attention(q, k, v, layer=layer).flatten(2).flatten(0, 1)).view(x.shape)

    def feed_forward(self, x: Tensor) -> Tensor:
        rows = self._feed_forward_norm(x).flatten(0, 1)
        return self._down(F.gelu(self._up(rows))).view(x.shape)
