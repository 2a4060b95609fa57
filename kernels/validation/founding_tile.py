"""How near each kernel comes to FP32 attention on the founding report's test data.

One tile of 64 x 64 random integers is a check that a kernel computes what it should. It says nothing about words: the
founding report's own kernel passes its targets here, and fails as a Whisper encoder.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels import backends, legacy
from kernels import contract as c
from kernels.device import Device
from kernels.npu.program.layout import tile_operands
from kernels.npu.program.plan import SINGLE_TILE
from kernels.validation import accuracy as a
from kernels.validation.accuracy import Accuracy, Float, ScoreRange
from kernels.workers import Workers

FOUNDING_SEED = 42
FOUNDING_CORRELATION = 0.70  # the founding report's target
FOUNDING_BASELINE = 0.123  # what it gives for the kernel before; its second target is twice that
CORRELATION = 0.999  # this project's target for its default kernel on the same data

Int8 = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Target:
    """A limit and what came out, in words."""

    name: str
    wanted: str
    found: str
    passed: bool


@dataclass(frozen=True)
class TileResult:
    """One kernel on the founding report's tile.

    Attributes:
        shift: of the scores, where it is a legacy kernel.
        device: `emulator` or `npu`.
        accuracy: against FP32.
        report_targets: the founding report's.
        targets: this project's. `int8` has none: it is not made for scores of this size.
        output: (64, 64), as `reference` and `natural_scores`, the scores before any clipping.
    """

    kernel: str
    shift: int | None
    device: str
    accuracy: Accuracy
    scores: ScoreRange
    report_targets: tuple[Target, ...]
    targets: tuple[Target, ...]
    output: Float = field(repr=False, compare=False)
    reference: Float = field(repr=False, compare=False)
    natural_scores: Float = field(repr=False, compare=False)

    @property
    def legacy(self) -> bool:
        """Whether it is one of the founding report's kernels."""
        return self.shift is not None

    @property
    def documented(self) -> bool:
        """Whether it is the kernel as a backend runs it: of a legacy one, with the documented shift."""
        return self.shift in (None, legacy.SHIFT)

    @property
    def label(self) -> str:
        """The kernel's name, with its shift where it is not the documented one."""
        return self.kernel if self.documented else f"{self.kernel}, shift {self.shift}"

    @property
    def passed(self) -> bool:
        """Whether the kernel's own targets are met: this project's, or of the legacy kernels the founding report's."""
        return all(target.passed for target in (self.report_targets if self.legacy else self.targets))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, without the arrays."""
        return {
            "kernel": self.kernel,
            "shift": self.shift,
            "device": self.device,
            **asdict(self.accuracy),
            "scores": asdict(self.scores),
            "report_targets": [asdict(target) for target in self.report_targets],
            "targets": [asdict(target) for target in self.targets],
            "passed": self.passed,
        }


def tile_data(seed: int = FOUNDING_SEED) -> tuple[Int8, Int8, Int8]:
    """The founding report's Q, K and V: int8, shape (64, 64), -64..63, from numpy's legacy generator."""
    random = np.random.RandomState(seed)
    q, k, v = (random.randint(-64, 64, (SINGLE_TILE, c.HEAD_DIM), dtype=np.int8) for _ in range(3))
    return q, k, v


def softmax_attention(q: Int8, k: Int8, v: Int8) -> Float:
    """softmax(Q K^T / 8) V in float64, of one head: shape (rows, 64)."""
    scores = q.astype(np.float64) @ k.astype(np.float64).T / math.sqrt(c.HEAD_DIM)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Float = weights @ v.astype(np.float64) / weights.sum(axis=1, keepdims=True)
    return result


def validate_tile(kernel: str, device: Device, shift: int = legacy.SHIFT) -> TileResult:
    """Run one kernel on the founding report's tile, with its INT8 output.

    The device runs this project's kernels; the legacy kernels, whose scores have the shift, exist only as emulation.
    """
    q, k, v = tile_data()
    backend = backends.find(kernel)
    scores = backend.scores
    if scores is None:
        raise c.ContractError(f"{kernel} is no integer kernel")
    output: npt.NDArray[Any]
    if backend.legacy:
        output = legacy.attention(q[None], k[None], v[None], scores, Workers(1), shift)[0]
        # A shift of 3 counts in units of Q K^T / 8.
        step = 2.0 ** (shift - 3)
        natural: Float = np.multiply(legacy.raw_scores(q, k, shift), step, dtype=np.float64)
    else:
        operands = tile_operands(scores, q, k, v)
        # An NPU has a run of its own for one tile.
        single = getattr(device, "run_single", None) if device.name == "npu" else None
        if single is not None:
            output = single(scores, q, k, v)
        else:
            output = device.run(operands, scores=scores, tile_size=SINGLE_TILE, output_bits=8)[0]
        step, natural = a.INT8_STEP, a.natural_scores(operands, 0, scores)
    expected = softmax_attention(q, k, v)
    found = a.accuracy(output, expected)
    r, low, high = found.correlation, found.output_min, found.output_max
    gain = r / FOUNDING_BASELINE
    report_targets = (
        _correlation(r, f"{FOUNDING_CORRELATION:.2f}"),
        Target("improvement", f"> 2 x {FOUNDING_BASELINE}", f"{gain:.1f} x", gain > 2),
        Target("output range", "within INT8", f"{low:.0f}..{high:.0f}", -128 <= low and high <= 127),
    )
    return TileResult(
        kernel=kernel,
        shift=shift if backend.legacy else None,
        device="emulator" if backend.legacy else device.name,
        accuracy=found,
        scores=a.score_range(natural, step if scores == "int8" else None),
        report_targets=report_targets,
        targets=(_correlation(r, str(CORRELATION)),) if kernel == backends.DEFAULT else (),
        output=output.astype(np.float64),
        reference=expected,
        natural_scores=natural,
    )


def _correlation(found: float, least: str) -> Target:
    return Target("correlation", f">= {least}", f"{found:.4f}", found >= float(least))
