"""Kernels on the queries, keys and values of a real encoder, layer by layer and head by head.

What a kernel is handed there is unlike random integers: scores of a few octaves, outlying channels, heads that look at
everything and heads that look at one token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from kernels import backends, legacy
from kernels.quantise import quantise
from kernels.validation.accuracy import (
    INT8_STEP,
    Accuracy,
    Float,
    ScoreRange,
    accuracy,
    natural_scores,
    score_range,
)
from models.attention import FINE_VALUE_LAYERS, Attention, CpuAttention
from models.encoder import Encoder

Progress = Callable[[int, int], None]
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class HeadResult:
    """One head's output under a kernel, against FP32.

    Attributes:
        head: from 0.
        accuracy: in the values' own units.
        scores: their range in natural units (those of Q K^T / 8), and what INT8 clips.
    """

    head: int
    accuracy: Accuracy
    scores: ScoreRange


@dataclass(frozen=True)
class LayerResult:
    """One layer's output under a kernel, against FP32, on the input that FP32 gives that layer.

    Attributes:
        kernel: its backend's name.
        layer: from 0.
        accuracy: of all heads together.
        heads: each on its own.
    """

    kernel: str
    layer: int
    accuracy: Accuracy
    heads: tuple[HeadResult, ...]

    @property
    def worst(self) -> HeadResult:
        """The head with the largest relative error."""
        return max(self.heads, key=lambda head: head.accuracy.relative_error)

    @property
    def score_limits(self) -> tuple[float, float]:
        """The least and the largest score of any head, in natural units."""
        return min(head.scores.least for head in self.heads), max(head.scores.largest for head in self.heads)

    @property
    def clipped(self) -> float:
        """Share of all heads' scores that INT8 clips; the heads have equally many."""
        return sum(head.scores.clipped for head in self.heads) / len(self.heads)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {**asdict(self), "clipped": self.clipped, "worst_head": self.worst.head}


class MeasuredAttention(CpuAttention):
    """FP32 attention that also hands each layer's queries, keys and values to other backends, and compares.

    It keeps numbers, never the tensors: memory stays that of one layer.

    Attributes:
        results: of each layer and backend so far.
    """

    def __init__(
        self, others: Sequence[Attention], on_head: Callable[[str, int, int], None] | None = None
    ) -> None:
        """Measure `others`; `on_head` is told the backend, layer and head that are done."""
        self.results: list[LayerResult] = []
        self._others = others
        self._on_head = on_head

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, layer: int) -> Tensor:
        """See `Attention`; takes one window at a time."""
        expected = super().__call__(q, k, v, layer=layer)
        queries, keys, values = (x[0].transpose(0, 1).numpy() for x in (q, k, v))
        for other in self._others:
            found = other(q, k, v, layer=layer)[0].numpy()
            exact = expected[0].numpy()
            scores = _score_ranges(other.name, queries, keys, values, layer)
            heads = []
            for head in range(len(queries)):
                heads.append(HeadResult(head, accuracy(found[:, head], exact[:, head]), scores(head)))
                if self._on_head:
                    self._on_head(other.name, layer, head)
            self.results.append(LayerResult(other.name, layer, accuracy(found, exact), tuple(heads)))
        return expected


def measure_layers(
    model: Any, mel: Tensor, others: Sequence[Attention], on_progress: Progress | None = None
) -> tuple[LayerResult, ...]:
    """Compare backends with FP32 in every layer of an encoder.

    Each layer is given what FP32 gives it, so that the results of one layer do not depend on the layers before.

    Args:
        model: a `whisper.model.Whisper`.
        mel: one window of log-mel features, float32, shape (n_mels, 3000).
        others: the backends.
        on_progress: called with the heads done and the heads in all, over all backends.

    Raises:
        kernels.contract.ContractError: numbers that are not finite.
        kernels.device.DeviceError: a backend's device fails.
    """
    total = len(others) * model.dims.n_audio_layer * model.dims.n_audio_head
    done = 0

    def on_head(*_: object) -> None:
        nonlocal done
        done += 1
        if on_progress:
            on_progress(done, total)

    attention = MeasuredAttention(others, on_head)
    Encoder(model, attention)(mel[None])
    return tuple(attention.results)


def _score_ranges(backend: str, q: Array, k: Array, v: Array, layer: int) -> Callable[[int], ScoreRange]:
    """What finds a head's score range, one head at a time; q, k and v are (heads, tokens, 64)."""
    chosen = backends.find(backend)
    scores = chosen.scores
    if chosen.kernel == "tile" and scores is not None:
        operands = quantise(q, k, v, scores, fine_values=layer in FINE_VALUE_LAYERS).operands
        step = INT8_STEP if scores == "int8" else None
        return lambda head: score_range(natural_scores(operands, head, scores), step)
    heads = legacy.quantise(q, k, v)

    def legacy_scores(head: int) -> ScoreRange:
        unit = float(heads.score_step[head]) * 2**legacy.SHIFT / 8
        natural: Float = legacy.raw_scores(heads.q[head], heads.k[head]) * unit
        return score_range(natural, unit if scores == "int8" else None)

    return legacy_scores
