"""The backends of the encoder's attention: the one list of them, which everything else asks.

A new kernel is one entry here, and whatever computes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kernels.contract import ScoreType

Kernel = Literal["float", "tile", "legacy"]


class UnknownBackendError(ValueError):
    """There is no backend of that name; the text names those that there are."""


@dataclass(frozen=True)
class Backend:
    """One arithmetic of the encoder's attention.

    Attributes:
        name: as commands, records and reports have it.
        kernel: `float` is floating point on the host; `tile` is the contract's kernel (`CONTRACT.md`); `legacy` are
            the founding report's kernels (`kernels.legacy`).
        scores: what holds the scores Q K^T; None in floating point.
        devices: what can compute it: `cpu`, or `npu` and `emulator`.
    """

    name: str
    summary: str
    kernel: Kernel
    scores: ScoreType | None
    devices: tuple[str, ...]

    @property
    def legacy(self) -> bool:
        """Whether it is one of the founding report's kernels, kept for comparison."""
        return self.kernel == "legacy"

    @property
    def position(self) -> int:
        """Its place among all backends, from 0: the order of tables, and the mark in charts."""
        return BACKENDS.index(self)


NPU = ("npu", "emulator")
BACKENDS = (
    Backend("cpu", "softmax attention in floating point, the reference", "float", None, ("cpu",)),
    Backend("int32", "this project's kernel, scores summed up in INT32", "tile", "int32", NPU),
    Backend("int8", "the same kernel, scores held in INT8: the fair rival", "tile", "int8", NPU),
    Backend("legacy-int32", "the founding report's INT32 kernel", "legacy", "int32", ("emulator",)),
    Backend("legacy-int8", "the founding report's INT8 kernel", "legacy", "int8", ("emulator",)),
)
"""In the order of tables and charts."""

REFERENCE = "cpu"
"""What every other backend is compared with."""
DEFAULT = "int32"
"""What commands run, and whose verdict a gate reads, unless told otherwise."""
RIVAL = "int8"
"""What a candidate must not be worse than."""

BACKEND_NAMES = tuple(backend.name for backend in BACKENDS)
TILE_BACKENDS = tuple(backend.name for backend in BACKENDS if backend.kernel == "tile")
INTEGER_BACKENDS = tuple(backend.name for backend in BACKENDS if backend.scores is not None)


def find(name: str) -> Backend:
    """The backend of that name. Raises `UnknownBackendError`."""
    for one in BACKENDS:
        if one.name == name:
            return one
    raise UnknownBackendError(f"backend {name!r}: it has to be one of {', '.join(BACKEND_NAMES)}")
