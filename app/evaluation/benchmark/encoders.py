"""Whisper's audio encoders as stacks of attention layers: what `kernels.npu.cost` needs to know of them."""

from __future__ import annotations

from typing import Any

from kernels.contract import HEAD_DIM
from kernels.npu.cost import Stack

TOKENS = 1500
"""Of a 30 s window after the second convolution's stride of 2."""

ENCODERS: dict[str, tuple[int, int, int]] = {
    "tiny": (4, 6, 80),
    "base": (6, 8, 80),
    "small": (12, 12, 80),
    "medium": (24, 16, 80),
    "large": (32, 20, 128),
    "turbo": (32, 20, 128),
}
"""Layers, heads and mel bands (Radford et al. 2022, table 1; openai-whisper). turbo has large-v3's encoder."""
VERSIONS = {
    "large-v1": (32, 20, 80),
    "large-v2": (32, 20, 80),
    "large-v3": ENCODERS["large"],
    "large-v3-turbo": ENCODERS["turbo"],
}


def stack(name: str, layers: int, heads: int, mels: int, tokens: int = TOKENS) -> Stack:
    """An encoder of blocks of self-attention and feed-forward, the latter four times as wide.

    Args:
        name: what to call it.
        layers: how many blocks.
        heads: of a layer, 64 wide.
        mels: bands of the features; two convolutions of width 3 come before the layers.
        tokens: of a window.
    """
    width = heads * HEAD_DIM
    projections, feed_forward = 4 * tokens * width**2, 8 * tokens * width**2
    convolutions = 2 * tokens * 3 * mels * width + tokens * 3 * width**2
    return Stack(name, layers, heads, tokens, projections + feed_forward, convolutions)


def of_dimensions(name: str, dims: Any) -> Stack:
    """An encoder from a `whisper.model.ModelDimensions`."""
    return stack(name, dims.n_audio_layer, dims.n_audio_head, dims.n_mels, dims.n_audio_ctx)


def of_name(model: str) -> Stack | None:
    """The encoder of a named model (`base`, `small.en`, `large-v3-turbo`, ...); None where the name is no model's."""
    dimensions = VERSIONS.get(model) or ENCODERS.get(model.removesuffix(".en"))
    return stack(model, *dimensions) if dimensions else None


def every() -> tuple[Stack, ...]:
    """Every size, smallest first."""
    return tuple(stack(name, *dimensions) for name, dimensions in ENCODERS.items())
