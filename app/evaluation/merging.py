"""Several files of one backend (shards of a data set, or a run in parts) taken as one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from app.evaluation.errors import EvidenceError
from app.evaluation.record_files import RecordFile
from app.evaluation.records import BackendRecords, RunDescription, UtteranceRecord
from app.evaluation.same_run import same_run


def load(paths: Iterable[Path]) -> BackendRecords:
    """Read the files of one backend.

    An utterance that failed and later succeeded counts as done; one that is there twice with the same text counts
    once, with the times of the first.

    Args:
        paths: at least one.

    Raises:
        EvidenceError: a file is damaged, the files are of different runs, or give different texts for an utterance.
    """
    files = [RecordFile(path) for path in paths]
    if not files:
        raise EvidenceError("no record files")
    first = files[0]
    for file in files[1:]:
        same_run(first.run, file.run, str(first.path), str(file.path))
    records: dict[str, UtteranceRecord] = {}
    homes: dict[str, Path] = {}
    for file in files:
        for record in file.utterances():
            earlier = records.get(record.id)
            if earlier is not None and not _replaces(record, earlier, homes[record.id], file.path):
                continue
            records[record.id] = record
            homes[record.id] = file.path
    return BackendRecords(_joined([file.run for file in files]), tuple(records.values()))


def _replaces(record: UtteranceRecord, earlier: UtteranceRecord, home: Path, path: Path) -> bool:
    for name in ("reference", "speaker"):
        if getattr(record, name) != getattr(earlier, name):
            raise EvidenceError(f"utterance {record.id}: {name} differs between {home} and {path}")
    if record.error is not None:
        return False
    if earlier.error is None and record.hypothesis != earlier.hypothesis:
        raise EvidenceError(f"utterance {record.id}: two hypotheses, in {home} and {path}")
    return earlier.error is not None


def _joined(runs: Sequence[RunDescription]) -> RunDescription:
    """One description; what says where and when is joined, and threads that differ are no one number."""

    def join(values: Iterable[str | None]) -> str | None:
        return "; ".join(sorted({v for v in values if v})) or None

    threads = {run.threads for run in runs}
    return dataclasses.replace(
        runs[0],
        device_reason=join(run.device_reason for run in runs) or "",
        processor=join(run.processor for run in runs),
        threads=threads.pop() if len(threads) == 1 else None,
        started=min((run.started for run in runs if run.started), default=None),
    )
