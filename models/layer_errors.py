"""How far a backend's encoder is from the FP32 one, layer by layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from models.attention import Attention, CpuAttention
from models.encoder import Encoder

__all__ = ["layer_errors"]


def layer_errors(model: Any, attention: Attention, mel: Tensor) -> list[float]:
    """Relative error of what each layer yields, against FP32 attention in every layer.

    An error includes those of the layers before: it is what the next layer gets.

    Args:
        model: a `whisper.model.Whisper`.
        attention: the backend.
        mel: log-mel features, float32, shape (windows, n_mels, 3000).

    Returns:
        One figure for each layer, and last that of the encoder states: |x - y| / |y| in the Euclidean norm.
    """
    pairs = zip(
        Encoder(model, attention).layers(mel), Encoder(model, CpuAttention()).layers(mel), strict=True
    )
    return [float((ours - exact).norm() / exact.norm()) for ours, exact in pairs]
