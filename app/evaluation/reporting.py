"""From records on disk to the report: report.json, report.md and report.html."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from app.console import say
from app.evaluation import kernels
from app.evaluation.evaluation import Evaluation, summarise
from app.evaluation.record_files import load
from app.evaluation.records import EvidenceError, reading
from app.evaluation.report.measured import Bench
from app.evaluation.report.metrics import BACKENDS
from app.evaluation.report.page import render_markdown, render_page
from app.evaluation.report.strips import write_strips
from app.evaluation.rules import Limits
from app.output import tables
from app.output.writers import write_whole
from kernels.backends import DEFAULT, REFERENCE, UnknownBackendError, find

if TYPE_CHECKING:
    from datasets.dataset import Dataset

BENCH_FILE = "bench.json"
"""Beside the records: latency and energy, as `tilescribe bench --json` wrote them, where somebody measured them."""


@dataclass(frozen=True)
class Judging:
    """How records are judged; the seed is the bootstrap's, and that of the kernels' test operands."""

    limits: Limits
    replications: int
    seed: int


class BenchFile(Bench, kw_only=True):
    """What of bench.json is read."""

    schema_version: Literal[1]


def write_report(
    folders: Sequence[Path], output: Path, judging: Judging, *, dataset: Dataset | None = None
) -> Evaluation:
    """Score the records of some folders, of one run or of its parts, write the report to `output`, and sum it up.

    The recordings of the `dataset` are played from the page, and those that a backend broke are shown.

    Raises:
        EvidenceError: there are no records, they do not belong together, or are of another data set.
        OSError: the report cannot be written.
    """
    paths: dict[str, list[Path]] = {}
    for folder in folders:
        found = sorted((folder / "records").glob("*.jsonl"))
        if not found:
            raise EvidenceError(f"{folder}: no records/*.jsonl in it; give a folder that `evaluate` wrote")
        for path in found:
            paths.setdefault(path.stem, []).append(path)
    try:
        names = sorted(paths, key=lambda name: find(name).position)
    except UnknownBackendError as error:
        raise EvidenceError(f"{folders[0] / 'records'}: {error}") from None
    records = {name: load(paths[name]) for name in names}
    figures = kernels.read(folders, records[names[0]].run)
    evaluation = summarise(
        records,
        limits=judging.limits,
        validation=figures.validation,
        replications=judging.replications,
        seed=judging.seed,
    )
    output.mkdir(parents=True, exist_ok=True)
    audio = _recordings(dataset, evaluation)
    strips = write_strips(evaluation, records, audio, output)
    if strips.lacking:
        say(f"note: {strips.lacking}")
    links = {name: os.path.relpath(path, output) for name, path in audio.items()}
    bench = next((folder / BENCH_FILE for folder in folders if (folder / BENCH_FILE).exists()), None)
    extras = {**figures.extras, "latency": read_bench(bench) if bench else {}}
    page = render_page(evaluation, extras=extras, audio=links, strips=strips)
    text = json.dumps(evaluation.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(output / "report.json", text + "\n")
    write_whole(output / "report.md", render_markdown(evaluation))
    write_whole(output / "report.html", page)
    print_summary(evaluation, output)
    return evaluation


def _recordings(dataset: Dataset | None, evaluation: Evaluation) -> Mapping[str, Path]:
    """By utterance."""
    if dataset is None:
        return {}
    if evaluation.dataset.sha256 not in (None, dataset.content_sha256):
        raise EvidenceError(
            f"{dataset.name} is another data set, or another part of it, than the records are of"
        )
    return {utterance.id: utterance.audio for utterance in dataset.utterances}


def print_summary(evaluation: Evaluation, folder: Path) -> None:
    """What came out, on standard output."""
    print(evaluation.dataset.title)
    print("\n".join(tables.console(BACKENDS, evaluation.backends)))
    for verdict in evaluation.verdicts:
        reasons = "; ".join(verdict.reasons)
        print(f"{verdict.backend:12} {verdict.outcome}{': ' + reasons if reasons else ''}")
    print(f"report: {folder / 'report.html'}")


def candidate_of(name: str | None, backends: Sequence[str]) -> str | None:
    """Whose verdict a gate reads: the one named, else int32 where it runs, else the first that is not cpu.

    Raises:
        EvidenceError: the one named does not run, or is cpu.
    """
    candidates = [backend for backend in backends if backend != REFERENCE]
    if name is not None and name not in candidates:
        raise EvidenceError(
            f"candidate {name!r}: it has to be one of the backends, and not {REFERENCE}: "
            f"{', '.join(candidates) or 'there is none'}"
        )
    return name or (DEFAULT if DEFAULT in candidates else next(iter(candidates), None))


def keep_bench(path: Path, folder: Path) -> None:
    """Put the JSON of `tilescribe bench` beside the records. Raises `EvidenceError` where it is something else."""
    read_bench(path)
    write_whole(folder / BENCH_FILE, path.read_text(encoding="utf-8"))


def read_bench(path: Path) -> dict[str, Any]:
    """The JSON of `tilescribe bench`. Raises `EvidenceError` where it is something else."""
    try:
        with reading(path):
            data = path.read_bytes()
            found: dict[str, Any] = msgspec.to_builtins(msgspec.json.decode(data, type=BenchFile))
            return found
    except EvidenceError as error:
        raise EvidenceError(f"{error}: not what `tilescribe bench --json` of this version writes") from None
