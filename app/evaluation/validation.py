"""The result of kernel validation, as far as the verdict needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.evaluation.typed import typed


@dataclass(frozen=True)
class KernelValidation:
    """Whether a kernel computes what it must.

    Attributes:
        backend: whose kernel.
        passed: all of it.
        device: where it was validated: `emulator` or `npu`.
        detail: in a few words what was compared, with figures, such as `64 tiles equal the reference bit for bit`.
        tile_size: keys per tile that were validated; None where the kernel has no choice.
    """

    backend: str
    passed: bool
    device: str
    detail: str
    tile_size: int | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> KernelValidation:
        """From JSON. Raises `app.evaluation.errors.EvidenceError` naming the field that is wrong."""
        return cls(**typed(cls, data))
