"""What every data set yields, and what is raised where one can't be had."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Utterance:
    """A recording with the words that were said in it; its id is unique in its data set.

    Speaker, and how many seconds the recording lasts, are None where the data set does not say so.
    """

    id: str
    audio: Path
    text: str
    speaker: str | None = None
    seconds: float | None = None


class DatasetError(Exception):
    """A data set that is missing or not what it should be; the text is one line with the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class UnknownDatasetError(DatasetError):
    """A name that is no data set's, and no file's: wrong usage rather than a lack of the environment."""


def unreadable(path: Path, error: OSError | UnicodeDecodeError) -> DatasetError:
    """The error for a file or folder that can't be read."""
    if isinstance(error, UnicodeDecodeError):
        line = error.object[: error.start].count(b"\n") + 1
        return DatasetError(f"{path}, line {line}: is not UTF-8 text: save the file as UTF-8")
    return DatasetError(
        f"{error.filename or path} can't be read: {error.strerror or error}: check it and its permissions"
    )
