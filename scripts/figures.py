"""The table of a script: printed, and with `--json` in a file that says what it was made on."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from app.evaluation.running import PACKAGES, processor
from app.output.writers import write_whole

PEERS = ("faster-whisper", "ctranslate2", "onnxruntime")


def versions() -> dict[str, str]:
    """Of Python, of the packages that compute, and of those peers that are installed."""
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, *PEERS):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def write(
    path: Path | None, columns: Sequence[str], rows: Sequence[Sequence[str]], threads: int, **more: Any
) -> None:
    """Write a table as JSON; without a path, nothing.

    Args:
        path: the file, which appears whole or not at all.
        columns: headings.
        rows: cells as they are shown.
        threads: that computed.
        more: what else the file holds.
    """
    if path is not None:
        made = {"processor": processor(), "threads": threads, "versions": versions()}
        data = {"columns": columns, "rows": rows, **made, **more}
        write_whole(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
