"""Linear layers of an encoder in the compute types: what `torch.nn.Linear` gives, in float32, bfloat16 or INT8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.compute import ResolvedType
from models.vectorised import jit, largest_magnitude

__all__ = ["Linear", "prepare"]

_INT8_MAX = 127.0
_ROWS = 256  # worked on together: what they yield stays in the second-level cache


class Linear(Protocol):
    """x W^T + b.

    Takes float32 (rows, inputs); returns float32 or bfloat16 (rows, outputs).
    """

    def __call__(self, x: Tensor) -> Tensor:
        """The layer's output."""
        ...


class Float32Linear:
    """In float32."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias)


class Bfloat16Linear:
    """Weights, input and output in bfloat16, sums in float32."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight.bfloat16(), bias.bfloat16()

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x.bfloat16(), self._weight, self._bias)


class Int8Linear:
    """INT8 weights, a step per output; INT8 input, a step per row; exact sums in INT32; float32 output.

    The method is LLM.int8()'s without outliers (Dettmers et al. 2022), as CTranslate2 has it.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        step = weight.abs().amax(1).clamp(min=1e-30) / _INT8_MAX
        self._weight = (weight / step[:, None]).round().to(torch.int8).t().contiguous()
        self._step, self._bias = step.numpy(), bias.numpy()

    def __call__(self, x: Tensor) -> Tensor:
        rows, outputs = len(x), len(self._bias)
        result = torch.empty(rows, outputs)
        source, target = x.float().numpy(), result.numpy()
        for first in range(0, rows, _ROWS):
            some = source[first : first + _ROWS]
            codes = torch.empty(some.shape, dtype=torch.int8)
            steps = np.empty(len(some), np.float32)
            _codes(some, codes.numpy(), steps)
            sums = torch._int_mm(codes, self._weight)
            _scaled(sums.numpy(), steps, self._step, self._bias, target[first : first + _ROWS])
        return result


_KINDS: dict[ResolvedType, Any] = {
    "float32": Float32Linear,
    "bfloat16": Bfloat16Linear,
    "int8": Int8Linear,
}


def prepare(layers: Sequence[Any], compute_type: ResolvedType) -> Linear:
    """One linear layer whose outputs are those of `layers` (`torch.nn.Linear`, same input), one after the other."""
    if len(layers) == 1 and layers[0].bias is not None:
        weight, bias = layers[0].weight, layers[0].bias
    else:
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat(
            [torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers]
        )
    kind: Linear = _KINDS[compute_type](weight.detach(), bias.detach())
    return kind


@jit
def _codes(x, codes, steps):  # type: ignore[no-untyped-def]
    """Each row in INT8, its largest magnitude as 127."""
    width = x.shape[1]
    for i in range(x.shape[0]):
        row, out = x[i], codes[i]
        top = max(largest_magnitude(row), np.float32(1e-30))
        steps[i] = top / np.float32(_INT8_MAX)
        inverse = np.float32(_INT8_MAX) / top
        for j in range(width):
            out[j] = np.int8(np.int32(np.rint(row[j] * inverse)))


@jit
def _scaled(sums, steps, scale, bias, out):  # type: ignore[no-untyped-def]
    width = sums.shape[1]
    for i in range(sums.shape[0]):
        row, target, step = sums[i], out[i], steps[i]
        for j in range(width):
            target[j] = np.float32(row[j]) * (step * scale[j]) + bias[j]
