"""How far outputs lie from a reference, and what of the scores INT8 can hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels import contract as c
from kernels.arrays import Doubles

NATURAL_PER_LOGIT = math.log(2) / (1 << c.FRACTION_BITS)
"""One unit of the contract's logits (octaves / 256) in natural units, those of Q K^T / 8."""
INT8_STEP = c.INT8_SCORE_STEP * NATURAL_PER_LOGIT
"""The step of the `int8` kernel's scores in natural units."""


@dataclass(frozen=True)
class Accuracy:
    """Outputs against a reference.

    Attributes:
        correlation: Pearson's, over all outputs; NaN where either is constant.
        relative_error: Euclidean norm of the error over that of the reference.
        within_5: share of outputs whose error is at most 5.
    """

    correlation: float
    mae: float
    rmse: float
    max_error: float
    relative_error: float
    within_5: float
    within_10: float
    output_min: float
    output_max: float


@dataclass(frozen=True)
class ScoreRange:
    """Scores before INT8 clips them, in natural units: those of Q K^T / 8.

    Attributes:
        held: the least and the largest score that the kernel can hold; None where it holds all.
        clipped: share of the scores outside `held`.
    """

    least: float
    largest: float
    held: tuple[float, float] | None
    clipped: float


def natural_scores(operands: c.Operands, head: int, scores: c.ScoreType) -> Doubles:
    """A head's scores before INT8 clips them, in natural units: float64, shape (rows, valid keys).

    Where the operands' keys had their mean taken off, each row is off by a constant, which softmax does not see.
    """
    keys = operands.k[head, : operands.valid_keys]
    # At most 2^20, so that float32 holds every sum exactly; what follows fits in 32 bits, as the contract shows.
    s = (operands.q[head].astype(np.float32) @ keys.astype(np.float32).T).astype(np.int32)
    s = np.minimum((s + (1 << (c.SCORE_SHIFT - 1))) >> c.SCORE_SHIFT, (1 << 15) - 1)
    s = (s * operands.key_multiplier[head, : operands.valid_keys].astype(np.int32) + 128) >> c.KEY_SHIFT
    s *= operands.multiplier[head, :, None].astype(np.int32)
    shift = int(operands.shift[head])
    unit = NATURAL_PER_LOGIT / (1 << shift)
    if scores == "int8":
        s, unit = (s + (1 << (shift - 1))) >> shift, INT8_STEP
    natural: Doubles = s * unit
    return natural


def score_range(natural: Doubles, step: float | None) -> ScoreRange:
    """The range of scores, and what INT8 with this step would clip; without a step nothing is clipped."""
    least, largest = float(natural.min()), float(natural.max())
    if step is None:
        return ScoreRange(least, largest, None, 0.0)
    held = (-128 * step, 127 * step)
    # Scores are multiples of the step: half a step beyond the ends keeps float rounding out of the count.
    clipped = (natural < held[0] - step / 2) | (natural > held[1] + step / 2)
    return ScoreRange(least, largest, held, float(clipped.mean()))


def accuracy(output: npt.NDArray[Any], expected: npt.NDArray[Any]) -> Accuracy:
    """Compare outputs with a reference of the same shape."""
    x, y = output.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    error = np.abs(x - y)
    dx, dy = x - x.mean(), y - y.mean()
    spread = math.sqrt(float(dx @ dx) * float(dy @ dy))
    norm = float(np.linalg.norm(y))
    return Accuracy(
        correlation=float(dx @ dy) / spread if spread > 0 else math.nan,
        mae=float(error.mean()),
        rmse=math.sqrt(float((error**2).mean())),
        max_error=float(error.max()),
        relative_error=float(np.linalg.norm(x - y)) / norm if norm > 0 else math.nan,
        within_5=float((error <= 5).mean()),
        within_10=float((error <= 10).mean()),
        output_min=float(x.min()),
        output_max=float(x.max()),
    )
