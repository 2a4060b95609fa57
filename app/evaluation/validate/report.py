"""All that a run of `tilescribe validate` found, and its JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernels.validation import Validation
    from models.capture import LayerResult

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Captured:
    """Kernels on a real encoder's queries, keys and values.

    Attributes:
        model: its name, or the path that it was loaded from.
        model_sha256: of the weights' file.
        audio: the file; its first 30 s are the encoder's window.
        seconds: of audio in the window.
        layers: the results of every layer and kernel.
    """

    model: str
    model_sha256: str
    audio: str
    seconds: float
    layers: tuple[LayerResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        what = {name: value for name, value in vars(self).items() if name != "layers"}
        return {**what, "layers": [layer.to_dict() for layer in self.layers]}


@dataclass(frozen=True)
class Report:
    """A run's findings.

    Attributes:
        validation: of the kernels themselves.
        captured: on a real encoder; None where that was left out.
        version: of Tilescribe.
    """

    validation: Validation
    captured: Captured | None
    version: str = field(default_factory=lambda: version("tilescribe"))

    @property
    def passed(self) -> bool:
        """Whether this project's kernels passed. What a real encoder hands them is shown, and has no target."""
        return self.validation.passed

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "schema_version": SCHEMA_VERSION,
            "version": self.version,
            "passed": self.passed,
            "validation": self.validation.to_dict(),
            "captured": self.captured.to_dict() if self.captured else None,
        }

    def to_json(self) -> str:
        """JSON, in which a number that is none (the correlation of a constant) is null."""
        return json.dumps(_finite(self.to_dict()), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if hasattr(value, "__dataclass_fields__"):
        return _finite(asdict(value))
    return None if isinstance(value, float) and not math.isfinite(value) else value
