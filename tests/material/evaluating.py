"""`evaluate` and `report`, run in the process of the tests, on the sample cut into five utterances."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from app.cli import _evaluate, app

CUTS = (
    (0.0, 2.9, "The quiet harbour wakes before the sun."),
    (2.9, 5.2, "Two boats leave for the open water,"),
    (5.2, 8.9, "and a lighthouse turns its last slow circle above them."),
    (8.9, 11.5, "By noon the market is full of voices,"),
    (11.5, 14.2, "and every basket of fish has been sold."),
)

FEW = ("--replications", "200")


def evaluate(*arguments: Any) -> Result:
    return CliRunner().invoke(_evaluate, [str(a) for a in arguments])


def report(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["report", *(str(a) for a in arguments)])


def without_times(path: Path) -> Any:
    """A report's JSON but for what a clock says."""
    timed = {"started", "speed", "seconds", "encode_seconds", "decode_seconds", "cpu_seconds"}
    timed |= {"threads", "processor"}

    def drop(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: drop(v) for k, v in value.items() if k not in timed}
        return [drop(v) for v in value] if isinstance(value, list) else value

    return drop(json.loads((path / "report.json").read_text()))


def records(folder: Path, backend: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records" / f"{backend}.jsonl").read_text().splitlines()]
