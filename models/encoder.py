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

__all__ = ["Encoder"]


class Encoder:
    """The encoder of a `whisper.model.Whisper`; reads that model's float32 weights in place.

    Several encoders can share one model. With `CpuAttention` the states equal `model.encoder(mel)` to rounding.

    Attributes:
        attention: the backend that every layer's self-attention goes through.
    """

    def __init__(self, model: Any, attention: Attention) -> None:
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
        self._module = model.encoder
        self._input_shape = (dims.n_mels, 2 * dims.n_audio_ctx)

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
        states: Tensor = deque(self.layers(mel), maxlen=1).pop()
        return states

    @torch.inference_mode()
    def layers(self, mel: Tensor) -> Iterator[Tensor]:
        """What each layer yields, in order, and last the encoder states; see `__call__`."""
        n_mels, frames = self._input_shape
        if mel.ndim != 3 or mel.shape[1:] != (n_mels, frames):
            raise ValueError(
                f"log-mel features have to be (windows, {n_mels}, {frames}), not {tuple(mel.shape)}"
            )
        encoder = self._module
        x = F.gelu(encoder.conv1(mel))
        x = F.gelu(encoder.conv2(x)).permute(0, 2, 1)
        x = x + encoder.positional_embedding
        for layer, block in enumerate(encoder.blocks):
            x = x + self._attend(layer, block.attn, block.attn_ln(x))
            x = x + block.mlp(block.mlp_ln(x))
            yield x
        yield encoder.ln_post(x)

    def _attend(self, layer: int, projections: Any, x: Tensor) -> Tensor:
        heads = (*x.shape[:2], projections.n_head, HEAD_DIM)
        q, k, v = (p(x).view(heads) for p in (projections.query, projections.key, projections.value))
        result: Tensor = projections.out(self.attention(q, k, v, layer=layer).flatten(2))
        return result
