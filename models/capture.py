"""Kernels in a real encoder: on its queries, keys and values, head by head, and in what its layers yield.

What a kernel is handed there is unlike random integers: scores of a few octaves, outlying channels, heads that look at
everything and heads that look at one token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import numpy as np

from kernels import backends, legacy
from kernels.arrays import Doubles, Reals
from kernels.quantise import quantise
from kernels.validation.accuracy import INT8_STEP, Accuracy, ScoreRange, accuracy, natural_scores, score_range
from models.attention import FINE_VALUE_LAYERS, Attention, CpuAttention
from models.encoder import Encoder
from models.weights.building import Model

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class HeadResult:
    """One head's output under a kernel against FP32, in the values' own units; scores in those of Q K^T / 8."""

    head: int
    accuracy: Accuracy
    scores: ScoreRange


@dataclass(frozen=True)
class LayerResult:
    """One layer's output under a kernel, against FP32, on the input that FP32 gives that layer.

    Attributes:
        kernel: its backend's name.
        accuracy: of all heads together.
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


class _MeasuredAttention(CpuAttention):
    """FP32 attention that also hands each layer's queries, keys and values, of one window, to other backends.

    It keeps numbers, never the tensors: memory stays that of one layer.
    """

    def __init__(self, others: Sequence[Attention], on_head: Callable[[], object]) -> None:
        """Measure `others`; `on_head` is called after each head of each."""
        self.results: list[LayerResult] = []
        self._others = others
        self._on_head = on_head

    def __call__(self, q: Reals, k: Reals, v: Reals, *, layer: int) -> Reals:
        expected = super().__call__(q, k, v, layer=layer)
        exact = expected[0]
        queries, keys, values = (x[0].swapaxes(0, 1) for x in (q, k, v))
        for other in self._others:
            found = other(q, k, v, layer=layer)[0]
            heads = []
            for head, scores in enumerate(_score_ranges(other.name, queries, keys, values, layer)):
                heads.append(HeadResult(head, accuracy(found[:, head], exact[:, head]), scores))
                self._on_head()
            self.results.append(LayerResult(other.name, layer, accuracy(found, exact), tuple(heads)))
        return expected


def measure_layers(
    model: Model, mel: Reals, others: Sequence[Attention], on_progress: Progress | None = None
) -> tuple[LayerResult, ...]:
    """Compare backends with FP32 in every layer of a `whisper.model.Whisper`'s encoder.

    Each layer is given what FP32 gives it, so that the results of one layer do not depend on the layers before.

    Args:
        model: whose encoder listens.
        mel: one window of log-mel features, float32, shape (n_mels, 3000).
        others: the backends.
        on_progress: called with the heads done and the heads in all, over all backends.

    Raises:
        kernels.contract.ContractError: numbers that are not finite.
        kernels.device.DeviceError: a backend's device fails.
    """
    total, done = len(others) * model.dims.n_audio_layer * model.dims.n_audio_head, count(1)
    attention = _MeasuredAttention(others, lambda: on_progress and on_progress(next(done), total))
    Encoder(model, attention)(mel[None])
    return tuple(attention.results)


def layer_errors(model: Model, attention: Attention, mel: Reals) -> list[float]:
    """Relative error of what each layer yields, and last of the encoder states, against FP32 attention in every layer.

    It is |x - y| / |y| in the Euclidean norm, with the errors of the layers before: it is what the next layer gets.
    `mel` has log-mel features, float32, shape (windows, n_mels, 3000).
    """
    pairs = zip(
        Encoder(model, attention).layers(mel), Encoder(model, CpuAttention()).layers(mel), strict=True
    )
    return [float(np.linalg.norm(ours - exact) / np.linalg.norm(exact)) for ours, exact in pairs]


def _score_ranges(name: str, q: Reals, k: Reals, v: Reals, layer: int) -> Iterator[ScoreRange]:
    """Each head's, one after the other; q, k and v are (heads, tokens, 64)."""
    backend = backends.find(name)
    if backend.legacy:
        heads = legacy.quantise(q, k, v)
        for head, score_step in enumerate(heads.score_step):
            step = float(score_step) * 2**legacy.SHIFT / 8
            natural: Doubles = legacy.raw_scores(heads.q[head], heads.k[head]) * step
            yield score_range(natural, step if backend.scores == "int8" else None)
    elif backend.scores is not None:
        operands = quantise(q, k, v, backend.scores, fine_values=layer in FINE_VALUE_LAYERS).operands
        for head in range(len(q)):
            natural = natural_scores(operands, head, backend.scores)
            yield score_range(natural, INT8_STEP if backend.scores == "int8" else None)
