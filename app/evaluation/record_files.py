"""Files of records: appended to line by line, read whole, and several taken as one run."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import msgspec

from app.evaluation.records import (
    BackendRecords,
    EvidenceError,
    RunDescription,
    RunLine,
    UtteranceRecord,
    reading,
    same_run,
    same_utterance,
)

SYNC_EVERY = 64
"""Utterances after which a writer waits until they are on the disk."""

_LINE = msgspec.json.Decoder(RunLine | UtteranceRecord)


def read(path: Path) -> BackendRecords:
    """A record file as it is, each line an utterance; a last line that was cut is left out.

    Raises:
        EvidenceError: the file cannot be read, is empty, has a damaged line, or does not hold one run that this version
            knows; the text has file and line.
    """
    run: RunDescription | None = None
    utterances = []
    for number, (_, line) in enumerate(_lines(path), start=1):
        if isinstance(line, UtteranceRecord):
            utterances.append(line)
        elif run is not None:
            raise EvidenceError(f"{path}:{number}: a second run's description; one file holds one run")
        else:
            run = line.run
        if run is None:
            raise EvidenceError(
                f"{path}:1: not a run's description: the first line of a record file must be one"
            )
    if run is None:
        raise EvidenceError(f"{path}: empty, or cut in its first line: a run that had not begun; remove it")
    return BackendRecords(run, tuple(utterances))


def _lines(path: Path) -> Iterator[tuple[int, RunLine | UtteranceRecord]]:
    """End in bytes and content of each line; stops before a last line that was cut."""
    end = 0
    with reading(path), open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            end += len(line)
            try:
                with reading(f"{path}:{number}"):
                    found = _LINE.decode(line)
            except EvidenceError as error:
                # What was cut is no JSON; what is JSON is wrong wherever it ends.
                if line.endswith(b"\n") or error.__cause__:
                    raise
                return
            yield end, found


class RecordWriter(AbstractContextManager["RecordWriter"]):
    """Appends utterances to a record file, each line whole and handed to the system at once.

    Attributes:
        done: ids of the utterances that were there already, without those that had failed: what a run that is
            resumed need not do again.
    """

    def __init__(self, path: Path, run: RunDescription, *, resume: bool = False) -> None:
        """Begin a file in a folder that is there, or go on with one.

        Args:
            path: where it is.
            run: must be that of the file when it is resumed.
            resume: go on with the file where there is one; else a file that is there is an error.

        Raises:
            EvidenceError: the file is there and `resume` is not set; it is damaged, or another run's; or another
                run is writing to it.
            OSError: the file cannot be written.
        """
        self.done: frozenset[str] = frozenset()
        self._unsynced = 0
        self._file: BinaryIO = open(path, "a+b")  # noqa: SIM115 - open as long as the writer
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_size and not resume:
                raise EvidenceError(f"{path}: there already; resume it, or choose another folder")
            # After a kill the last line may be cut; what is left of it goes, its utterance is done again.
            end = max((end for end, _ in _lines(path)), default=0)
            if end:
                earlier = read(path)
                same_run(earlier.run, run, path, "this run")
                self.done = frozenset(u.id for u in earlier.utterances if u.error is None)
            self._file.truncate(end)
            self._file.seek(max(end - 1, 0))
            if self._file.read(1) not in (b"\n", b""):
                self._file.write(b"\n")
            if not end:
                self._append(RunLine(schema_version=1, **msgspec.structs.asdict(run)))
                self._sync()
        except BlockingIOError:
            self._file.close()
            raise EvidenceError(f"{path}: another run is writing to it") from None
        except BaseException:
            self._file.close()
            raise

    def write(self, record: UtteranceRecord) -> None:
        """Append one utterance. Raises OSError."""
        self._append(record)
        self._unsynced += 1
        if self._unsynced >= SYNC_EVERY:
            self._sync()

    def _append(self, line: RunLine | UtteranceRecord) -> None:
        try:
            data = msgspec.json.encode(line)
        except UnicodeEncodeError:
            # Surrogates that a tokeniser left behind cannot be UTF-8; the replacement is a visible question mark.
            data = json.dumps(msgspec.to_builtins(line), ensure_ascii=False).encode("utf-8", "replace")
        self._file.write(data + b"\n")
        self._file.flush()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def __exit__(self, *_: object) -> None:
        """Wait until all is on the disk, and close."""
        self._sync()
        self._file.close()


def load(paths: Iterable[Path]) -> BackendRecords:
    """Read the files of one backend: a run in parts, taken as one.

    An utterance that failed and later succeeded counts as done; one that is there twice with the same text counts
    once, with the times of the first.

    Raises:
        EvidenceError: there are no files, one is damaged, they are of different runs, or they give different texts for
            an utterance.
    """
    files = [(path, read(path)) for path in paths]
    if not files:
        raise EvidenceError("no record files")
    first, its = files[0]
    records: dict[str, tuple[UtteranceRecord, Path]] = {}
    for path, file in files:
        same_run(its.run, file.run, first, path)
        for record in file.utterances:
            earlier, home = records.setdefault(record.id, (record, path))
            same_utterance(earlier, record, home, path)
            if earlier.error is not None and record.error is None:
                records[record.id] = record, path
            elif record.error is None and record.hypothesis != earlier.hypothesis:
                raise EvidenceError(f"utterance {record.id}: two hypotheses, in {home} and {path}")
    return BackendRecords(_joined([file.run for _, file in files]), tuple(r for r, _ in records.values()))


def _joined(runs: Sequence[RunDescription]) -> RunDescription:
    """One description; what says where and when is joined, and threads that differ are no one number."""

    def join(values: Iterable[str | None]) -> str | None:
        return "; ".join(sorted({v for v in values if v})) or None

    threads = {run.threads for run in runs}
    return msgspec.structs.replace(
        runs[0],
        device_reason=join(run.device_reason for run in runs) or "",
        processor=join(run.processor for run in runs),
        threads=threads.pop() if len(threads) == 1 else None,
        started=min((run.started for run in runs if run.started), default=None),
    )
