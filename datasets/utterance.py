"""What every data set yields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Utterance:
    """A recording with the words that were said in it.

    Attributes:
        id: unique in its data set.
        audio: the file.
        text: the reference transcript.
        speaker: where it is known.
    """

    id: str
    audio: Path
    text: str
    speaker: str | None = None


class DatasetError(Exception):
    """A data set that is missing or not what it should be; the text is one line with the remedy."""
