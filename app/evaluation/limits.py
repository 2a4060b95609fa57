"""What a verdict is held to: the limits, from options or a TOML file."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from app.evaluation.errors import EvidenceError
from app.evaluation.typed import typed


@dataclass(frozen=True)
class Limits:
    """The limits of the rules.

    Attributes:
        margin: points of WER; the upper end of the interval of WER(candidate) - WER(cpu) must be under it. Half a point
            is what a word error rate of 5 % changes by when one error in ten is new.
        broken_per_thousand: utterances that may be broken, per thousand of the whole set, rounded down. Not 0: greedy
            decoding turns on near-ties, so that any change of arithmetic breaks (and mends) one now and then.
        minimum_utterances: below so many no candidate is deployed. If none of 300 is broken, up to 1 % may be (the rule
            of three: 3 / 300 at 95 %).
        resampling: which interval the rules read: of utterances drawn, or of speakers drawn, which is wider.
    """

    margin: float = 0.5
    broken_per_thousand: float = 1.0
    minimum_utterances: int = 300
    resampling: Literal["utterances", "speakers"] = "utterances"

    def __post_init__(self) -> None:
        for name, largest in (
            ("margin", 100.0),
            ("broken_per_thousand", 1000.0),
            ("minimum_utterances", None),
        ):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0 or (largest is not None and value > largest):
                span = "0 or more" if largest is None else f"from 0 to {largest:g}"
                raise EvidenceError(f"{name} is {value}, not {span}")

    def allowed_broken(self, utterances: int) -> int:
        """Broken utterances that are allowed in a whole set of so many."""
        return math.floor(self.broken_per_thousand * utterances / 1000 + 1e-9)


def read_limits(path: Path | None = None, **overrides: Any) -> Limits:
    """Limits from a TOML file of `Limits`' fields, then from options.

    Args:
        path: the file; None takes the defaults.
        overrides: fields that an option gives; None leaves a field as it is.

    Raises:
        EvidenceError: the file cannot be read or is not TOML; a key is unknown, a value has the wrong type or is out of
            range. The text names file and key.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        limits = replace(_from_file(path) if path else Limits(), **typed(Limits, given))
    except EvidenceError as error:
        raise EvidenceError(f"limits: {error}") from None
    return limits


def _from_file(path: Path) -> Limits:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return Limits(**typed(Limits, data))
    except OSError as error:
        raise EvidenceError(f"{path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise EvidenceError(f"{path}: not TOML: {error}") from None
    except EvidenceError as error:
        raise EvidenceError(f"{path}: {error}") from None
