"""What a verdict is held to: the limits, from options or a TOML file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from app.evaluation.stored import convert, read_toml


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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

    margin: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.5
    broken_per_thousand: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 1.0
    minimum_utterances: Annotated[int, msgspec.Meta(ge=0)] = 300
    resampling: Literal["utterances", "speakers"] = "utterances"

    def allowed_broken(self, utterances: int) -> int:
        """Broken utterances that are allowed in a whole set of so many."""
        return math.floor(self.broken_per_thousand * utterances / 1000 + 1e-9)


def read_limits(path: Path | None = None, **overrides: Any) -> Limits:
    """Limits from a TOML file of `Limits`' fields, then from options.

    Args:
        path: the file; None takes the defaults.
        overrides: fields that an option gives; None leaves a field as it is.

    Raises:
        app.evaluation.stored.EvidenceError: the file cannot be read or is not TOML; a key is unknown, a value has the
            wrong type or is out of range. The text names file and key.
    """
    limits = read_toml(path, Limits) if path else Limits()
    given = {name: value for name, value in overrides.items() if value is not None}
    return convert({**msgspec.structs.asdict(limits), **given}, Limits, "limits")
