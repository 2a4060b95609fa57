"""Whisper's audio encoder in PyTorch, with its self-attention behind `models.attention.Attention`: the reference."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.contract import HEAD_DIM
from models.attention import Attention

__all__ = ["Encoder", "check_heads", "check_mel"]


class Encoder:
    """The encoder of a `whisper.model.Whisper`, by that model's own float32 layers.

    Several encoders can share one model. With `CpuAttention` the states equal `model.encoder(mel)` to rounding.

    Attributes:
        attention: the backend that every layer's self-attention goes through.
    """

    def __init__(self, model: Any, attention: Attention) -> None:
        """Make the encoder of `model`.

        Raises:
            ValueError: the model's heads are not 64 wide.
        """
        check_heads(model.dims)
        self.attention = attention
        self._module, self._dims = model.encoder, model.dims

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
        check_mel(mel, self._dims)
        states = torch.empty(len(mel), *self._module.positional_embedding.shape)
        # One after the other: what a layer makes of several windows would not stay in the caches.
        for i in range(len(mel)):
            states[i] = deque(self.layers(mel[i : i + 1]), maxlen=1).pop()[0]
        return states

    @torch.inference_mode()
    def layers(self, mel: Tensor) -> Iterator[Tensor]:
        """What each layer yields, in order, and last the encoder states; see `__call__`."""
        check_mel(mel, self._dims)
        encoder = self._module
        x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel))))
        # Sums keep the strides of what they are sums of: every layer would have to gather its rows.
        x = x.permute(0, 2, 1).contiguous() + encoder.positional_embedding
        for layer, block in enumerate(encoder.blocks):
            x = x + self._attend(block.attn, block.attn_ln(x), layer)
            x = x + block.mlp(block.mlp_ln(x))
            yield x
        yield encoder.ln_post(x)

    def _attend(self, attn: Any, x: Tensor, layer: int) -> Tensor:
        q, k, v = (
            project(x).view(*x.shape[:2], -1, HEAD_DIM).numpy()
            for project in (attn.query, attn.key, attn.value)
        )
        attended = torch.from_numpy(self.attention(q, k, v, layer=layer))
        result: Tensor = attn.out(attended.flatten(2))
        return result


def check_heads(dims: Any) -> None:
    """Raise ValueError where an encoder's heads are not 64 wide."""
    if dims.n_audio_state != HEAD_DIM * dims.n_audio_head:
        width = dims.n_audio_state / dims.n_audio_head
        raise ValueError(f"the model's heads are {width:g} wide; Whisper's are {HEAD_DIM}")


def check_mel(mel: Tensor, dims: Any) -> None:
    """Raise ValueError where log-mel features are not windows for an encoder of these dimensions."""
    expected = (dims.n_mels, 2 * dims.n_audio_ctx)
    if mel.ndim != 3 or mel.shape[1:] != expected:
        raise ValueError(
            f"log-mel features have to be (windows, {expected[0]}, {expected[1]}), not {tuple(mel.shape)}"
        )
