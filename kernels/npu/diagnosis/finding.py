"""The result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, get_args

State = Literal["ok", "note", "warning", "missing", "wrong", "unknown"]
STATES: tuple[State, ...] = get_args(State)


class Answer(NamedTuple):
    """What a check says.

    Attributes:
        state: `ok`; `note` (worth knowing, changes nothing); `warning` (may be in the NPU's way); `missing` and
            `wrong` (the NPU cannot be used); `unknown` (could not be read).
        found: what is there, in words that can stand alone.
        remedy: what to do, where something is amiss.
    """

    state: State
    found: str
    remedy: str | None = None


ok, note, warning, missing, wrong, unknown = (partial(Answer, state) for state in STATES)


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: of the check, one or two words.
        state: see `Answer`, as the others.
        found: what is there.
        remedy: what to do.
    """

    name: str
    state: State
    found: str
    remedy: str | None = None

    def __str__(self) -> str:
        return f"{self.found}: {self.remedy}" if self.remedy else self.found

    @property
    def obstructs(self) -> bool:
        """Whether it keeps the NPU from being used."""
        return self.state in ("missing", "wrong")
