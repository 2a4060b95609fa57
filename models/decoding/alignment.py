"""When each token was said: dynamic time warping over what the decoder's alignment heads attend to.

Source of the method: `whisper.timing.find_alignment`, here on attention that a decoder has kept, without PyTorch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels.arrays import Reals

__all__ = ["POSITIONS_PER_SECOND", "attended", "token_positions"]

POSITIONS_PER_SECOND = 50
"""Of the encoder."""
_SMOOTHED = 7  # positions: whisper's median filter


def attended(attention: Reals, content: int) -> Reals:
    """How much each token looks at each position of the audio, beside what the other tokens do.

    Args:
        attention: of one sequence, probabilities (heads, tokens, positions).
        content: how many positions hold audio.

    Returns:
        Mean over the heads: float32 (tokens, content).
    """
    weights = attention[:, :, :content]
    weights = weights / np.maximum(weights.sum(-1, keepdims=True), np.float32(1e-9))
    mean, deviation = weights.mean(1, keepdims=True), weights.std(1, keepdims=True)
    weights = (weights - mean) / np.maximum(deviation, np.float32(1e-9))
    reach = _SMOOTHED // 2
    if content > reach:
        padded = np.pad(weights, ((0, 0), (0, 0), (reach, reach)), mode="reflect")
        weights = np.median(np.lib.stride_tricks.sliding_window_view(padded, _SMOOTHED, axis=2), axis=3)
    matrix: Reals = weights.mean(0, dtype=np.float32)
    return matrix


def token_positions(matrix: Reals) -> npt.NDArray[np.int64]:
    """The position at which each token begins, and that after the last: the path of most attention through `matrix`.

    Args:
        matrix: of `attended`, (tokens, positions).

    Returns:
        int64 (tokens + 1,), not decreasing.
    """
    tokens, positions = matrix.shape
    if not positions:
        return np.zeros(tokens + 1, np.int64)
    cost = -matrix.astype(np.float64)
    best = np.full((tokens + 1, positions + 1), np.inf)
    best[0, 0] = 0
    for i in range(tokens):
        # From the token before, at this position or the one before; then along the positions.
        entered = np.minimum(best[i, :-1], best[i, 1:])
        total = np.cumsum(cost[i])
        best[i + 1, 1:] = total + np.minimum.accumulate(entered - (total - cost[i]))
    begins = np.empty(tokens + 1, np.int64)
    begins[tokens] = j = positions
    for i in reversed(range(tokens)):
        j -= 1
        while j and best[i + 1, j] < min(best[i, j], best[i, j + 1]):
            j -= 1
        begins[i] = j
        j = j if best[i, j] <= best[i, j + 1] else j + 1
    return begins
