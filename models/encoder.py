"""Whisper's audio encoder in PyTorch, with its self-attention behind `models.attention.Attention`: the reference."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.arrays import Reals
from kernels.contract import HEAD_DIM
from models.attention import Attention
from models.compute import Context
from models.features import check_windows
from models.weights.building import Model


class Encoder:
    """A model's encoder, by the layers of its `whisper.model.Whisper` in float32.

    Several encoders can share one model. With `CpuAttention` the states equal `model.whisper.encoder(mel)` to rounding.

    Attributes:
        attention: the backend that every layer's self-attention goes through.
    """

    def __init__(self, model: Model, attention: Attention, context: Context = "full") -> None:
        """Make the encoder of `model`: for windows of 30 s alone, or of any length with the context `auto`."""
        self.attention = attention
        self._module, self._dims, self._context = model.whisper.encoder, model.dims, context

    @torch.inference_mode()
    def __call__(self, mel: Reals) -> Reals:
        """Encode windows.

        Args:
            mel: log-mel features, float32, shape (windows, n_mels, 3000).

        Returns:
            Encoder states, float32, shape (windows, 1500, n_audio_state).

        Raises:
            ValueError: `mel` has another shape.
        """
        check_windows(mel, self._dims, self._context)
        states = np.empty((len(mel), mel.shape[2] // 2, self._dims.n_audio_state), np.float32)
        # One after the other: what a layer makes of several windows would not stay in the caches.
        for i in range(len(mel)):
            states[i] = deque(self.layers(mel[i : i + 1]), maxlen=1).pop()[0]
        return states

    @torch.inference_mode()
    def layers(self, mel: Reals) -> Iterator[Reals]:
        """What each layer yields, in order, and last the encoder states; see `__call__`."""
        check_windows(mel, self._dims, self._context)
        encoder = self._module
        x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(torch.from_numpy(mel)))))
        # Sums keep the strides of what they are sums of: every layer would have to gather its rows.
        x = x.permute(0, 2, 1).contiguous() + encoder.positional_embedding[: x.shape[2]]
        for layer, block in enumerate(encoder.blocks):
            x = x + self._attend(block.attn, block.attn_ln(x), layer)
            x = x + block.mlp(block.mlp_ln(x))
            yield x.numpy()
        yield encoder.ln_post(x).numpy()

    def _attend(self, attn: Any, x: Tensor, layer: int) -> Tensor:
        q, k, v = (
            project(x).view(*x.shape[:2], -1, HEAD_DIM).numpy()
            for project in (attn.query, attn.key, attn.value)
        )
        attended = torch.from_numpy(self.attention(q, k, v, layer=layer))
        result: Tensor = attn.out(attended.flatten(2))
        return result
