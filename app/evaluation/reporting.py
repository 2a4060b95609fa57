"""From records on disk to the report: report.json, report.md and report.html."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.evaluation.errors import EvidenceError
from app.evaluation.evaluation import Evaluation
from app.evaluation.limits import Limits
from app.evaluation.merging import load
from app.evaluation.report.text import report_markdown
from app.evaluation.summarise import summarise
from app.evaluation.validation import KernelValidation
from app.output.files import write_whole

KERNELS_FILE = "kernels.json"
"""Beside the records: the kernels' validation, the encoder's error and the scores' ranges."""

BENCH_FILE = "bench.json"
"""Beside the records: latency and energy, as `tilescribe bench --json` wrote them, where somebody measured them."""

ORDER = ("cpu", "int32", "int8", "legacy-int32", "legacy-int8")


def write_report(
    folders: Sequence[Path],
    output: Path,
    limits: Limits,
    replications: int = 10_000,
    seed: int = 0,
    *,
    audio: Mapping[str, Path] | None = None,
) -> Evaluation:
    """Score the records of some folders as one run, and write the report.

    Args:
        folders: of one run, or of its shards.
        output: where the report goes.
        limits: of the verdict.
        replications: of the bootstrap.
        seed: of the bootstrap.
        audio: recordings by utterance, to be played from the page.

    Raises:
        EvidenceError: there are no records, or they do not belong together.
        OSError: the report cannot be written.
    """
    from app.evaluation.report.page import render_page

    paths: dict[str, list[Path]] = {}
    for folder in folders:
        found = sorted((folder / "records").glob("*.jsonl"))
        if not found:
            raise EvidenceError(f"{folder}: no records/*.jsonl in it; give a folder that `evaluate` wrote")
        for path in found:
            paths.setdefault(path.stem, []).append(path)
    names = sorted(paths, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    measured = _json(folders, KERNELS_FILE)
    validation = {
        name: KernelValidation.from_dict(data) for name, data in measured.get("validation", {}).items()
    }
    evaluation = summarise(
        {name: load(paths[name]) for name in names},
        limits=limits,
        validation=validation,
        replications=replications,
        seed=seed,
    )
    output.mkdir(parents=True, exist_ok=True)
    links = {name: os.path.relpath(path, output) for name, path in (audio or {}).items()}
    extras = {**measured.get("extras", {}), "latency": _json(folders, BENCH_FILE)}
    page = render_page(evaluation, extras=extras, audio=links)
    text = json.dumps(evaluation.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(output / "report.json", text + "\n")
    write_whole(output / "report.md", report_markdown(evaluation))
    write_whole(output / "report.html", page)
    return evaluation


def candidate_in(evaluation: Evaluation, name: str | None) -> str:
    """The candidate of a gate among an evaluation's backends.

    Raises:
        EvidenceError: it is not among them, or there is none.
    """
    names = [verdict.backend for verdict in evaluation.verdicts]
    if name is None and names:
        return "int32" if "int32" in names else names[0]
    if name not in names:
        raise EvidenceError(f"candidate {name!r}: these records have {', '.join(names) or 'none'}")
    return name


def keep_bench(path: Path, folder: Path) -> None:
    """Put the JSON of `tilescribe bench` beside the records.

    Raises:
        EvidenceError: it is something else.
        OSError: it cannot be read or written.
    """
    text = path.read_text(encoding="utf-8")
    try:
        data = json.loads(text)
        known = isinstance(data, dict) and data.get("schema_version") == 1 and "measurements" in data
    except ValueError:
        known = False
    if not known:
        raise EvidenceError(f"{path}: not what `tilescribe bench --json` of this version writes")
    write_whole(folder / BENCH_FILE, text)


def _json(folders: Sequence[Path], name: str) -> dict[str, Any]:
    """What was measured beside the records: the first folder's that has it."""
    for folder in folders:
        path = folder / name
        if path.exists():
            try:
                data = json.loads(path.read_text(encoding="utf-8"))
                if isinstance(data, dict) and data.get("schema_version") == 1:
                    return data
            except ValueError:
                pass
            raise EvidenceError(f"{path}: damaged, or another version's; remove it and run evaluate --resume")
    return {}
