"""Record files: JSON lines that a run appends to, so that what a killed run had done is kept."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from app.evaluation.errors import EvidenceError
from app.evaluation.records import RunDescription, UtteranceRecord
from app.evaluation.same_run import same_run


class RecordFile:
    """A record file for reading, one utterance in memory at a time."""

    def __init__(self, path: Path) -> None:
        """Read and check the first line.

        Raises:
            EvidenceError: the file cannot be read, is empty, or does not start with a run's description that this
                version knows.
        """
        self.path = path
        for _, _, line in _lines(path):
            try:
                self.run = RunDescription.from_dict(line)
            except EvidenceError as error:
                raise EvidenceError(f"{path}:1: {error}") from None
            return
        raise EvidenceError(f"{path}: empty, or cut in its first line: a run that had not begun; remove it")

    def utterances(self) -> Iterator[UtteranceRecord]:
        """Utterances in the order of the file; a last line that was cut is left out.

        Raises:
            EvidenceError: a damaged line, or one of another run; the text has file and line.
        """
        for number, _, line in _lines(self.path):
            if number == 1:
                continue
            try:
                if line.get("kind") == "run":
                    raise EvidenceError("a second run's description; one file holds one run")
                record = UtteranceRecord.from_dict(line)
            except EvidenceError as error:
                raise EvidenceError(f"{self.path}:{number}: {error}") from None
            yield record


class RecordWriter:
    """Appends utterances to a record file, each line whole and handed to the system at once.

    Attributes:
        path: the file.
        done: ids of the utterances that were there already, without those that had failed: what a run that is
            resumed need not do again.
    """

    def __init__(self, path: Path, run: RunDescription, *, resume: bool = False, sync_every: int = 0) -> None:
        """Begin a file, or go on with one.

        Args:
            path: its folder must exist.
            run: the description; must be that of the file's when it is resumed.
            resume: go on with the file where there is one; else a file that is there is an error.
            sync_every: after so many utterances wait until they are on the disk (fsync); 0 leaves it to the system.

        Raises:
            EvidenceError: the file is there and `resume` is not set; it is damaged, or another run's; or another
                run is writing to it.
            OSError: the file cannot be written.
        """
        self.path = path
        self.done: frozenset[str] = frozenset()
        self._sync_every, self._unsynced = sync_every, 0
        self._file: BinaryIO = open(path, "a+b")  # noqa: SIM115 - open as long as the writer
        try:
            self._lock()
            begun = path.stat().st_size > 0
            if begun and not resume:
                raise EvidenceError(f"{path}: there already; resume it, or choose another folder")
            # After a kill the last line may be cut; what is left of it goes, its utterance is done again.
            end = max((end for _, end, _ in _lines(path)), default=0)
            if end:
                earlier = RecordFile(path)
                same_run(earlier.run, run, str(path), "this run")
                self.done = frozenset(u.id for u in earlier.utterances() if u.error is None)
            self._file.truncate(end)
            self._file.seek(max(end - 1, 0))
            if self._file.read(1) not in (b"\n", b""):
                self._file.write(b"\n")
            if not end:
                self._append(run.to_dict())
                self._sync()
        except BaseException:
            self._file.close()
            raise

    def write(self, record: UtteranceRecord) -> None:
        """Append one utterance. Raises OSError."""
        self._append(record.to_dict())
        self._unsynced += 1
        if self._sync_every and self._unsynced >= self._sync_every:
            self._sync()

    def close(self) -> None:
        """Wait until all is on the disk, and close."""
        if not self._file.closed:
            self._sync()
            self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EvidenceError(f"{self.path}: another run is writing to it") from None

    def _append(self, data: Mapping[str, Any]) -> None:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        # Surrogates that a tokeniser left behind cannot be UTF-8; the replacement is a visible question mark.
        self._file.write(text.encode("utf-8", "replace") + b"\n")
        self._file.flush()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Number, end in bytes, and object of each line; stops before a last line that was cut."""
    try:
        with open(path, "rb") as file:
            end = 0
            for number, line in enumerate(file, start=1):
                end += len(line)
                try:
                    data = json.loads(line.decode("utf-8"), parse_constant=_refuse)
                    if not isinstance(data, dict):
                        raise ValueError("not an object")
                except ValueError as error:
                    if not line.endswith(b"\n"):
                        return
                    reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
                    raise EvidenceError(f"{path}:{number}: damaged: {reason}") from None
                yield number, end, data
    except OSError as error:
        raise EvidenceError(f"{path}: {error.strerror or error}") from None


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
