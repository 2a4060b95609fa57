"""What the scripts have in common: their options, and the table, printed and with `--json` in a file of its own."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.machine import processor, versions
from app.output.writers import write_whole


def options(about: str | None, data: str = "a set's folder, such as LibriSpeech/test-clean") -> Any:
    """A parser with the data, the model and the file to write; `about` is a script's docstring."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help=data)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--json", type=Path, help="write the table there as well")
    return parser


def configured(parser: argparse.ArgumentParser, backend: str) -> tuple[argparse.Namespace, Any]:
    """The options, with what else a transcriber takes, and that transcriber."""
    from app import load_model

    parser.add_argument("--backend", default=backend)
    parser.add_argument("--threads", type=int, help="all processors unless given")
    parser.add_argument("--compute-type", default="float32", help="auto, float32, bfloat16 or int8")
    given = parser.parse_args()
    how = {"threads": given.threads, "compute_type": given.compute_type}
    return given, load_model(given.model, given.backend, **how)


def write(
    path: Path | None, columns: Sequence[str], rows: Sequence[Sequence[str]], threads: int, **more: Any
) -> None:
    """Write a table as JSON, whole or not at all, with what it was made on and `more`; without a path, nothing."""
    if path is not None:
        made = {"processor": processor(), "threads": threads, "versions": versions()}
        data = {"columns": columns, "rows": rows, **made, **more}
        write_whole(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
