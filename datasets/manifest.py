"""Data sets of one's own: a manifest names recordings and their texts, as JSON Lines, CSV or TSV.

Every row has `audio` (a path, relative to the manifest unless absolute) and `text`; `id`, `speaker` and `seconds`
are optional, and anything else is passed over. CSV and TSV begin with a line of column names. CSV is quoted as in
RFC 4180; TSV has no quoting, so that a quotation mark in a text stands for itself.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.utterance import DatasetError, Utterance, unreadable

SUFFIXES = (".jsonl", ".csv", ".tsv")

Row = tuple[int, dict[str, Any]]
"""A line number, from 1, and what the line says."""


def read(manifest: Path, base: Path | None = None) -> tuple[tuple[Utterance, ...], tuple[str, ...]]:
    """Read a manifest: its utterances in the order of their ids, and a line about each recording that is not there.

    Args:
        manifest: its suffix says its format.
        base: what paths are relative to; the manifest's folder unless given.

    An utterance without an id gets its path as the manifest has it (relative to `base`, if it lies there).

    Raises:
        DatasetError: the manifest can't be read or has no rows; a row has no audio or no text, a field of the wrong
            kind, or an id that another row has. The message has the file and the line.
    """
    base = manifest.parent if base is None else base
    found: dict[str, Utterance] = {}
    lines: dict[str, int] = {}
    missing: list[str] = []
    for number, row in _rows(manifest):
        try:
            utterance = _utterance(row, base)
        except ValueError as error:
            raise DatasetError(f"{manifest}, line {number}: {error}") from None
        if utterance.id in lines:
            raise DatasetError(
                f"{manifest}, line {number}: id {utterance.id!r} is that of line {lines[utterance.id]}: "
                "give every row an id of its own"
            )
        lines[utterance.id] = number
        if utterance.audio.is_file():
            found[utterance.id] = utterance
        else:
            missing.append(f"{manifest}, line {number}: {utterance.audio} is missing")
    if not lines:
        raise DatasetError(f"{manifest}: has no rows: give each recording one, with audio and text")
    return tuple(found[name] for name in sorted(found)), tuple(missing)


def _rows(manifest: Path) -> Iterator[Row]:
    suffix = manifest.suffix.lower()
    if suffix not in SUFFIXES:
        raise DatasetError(f"{manifest}: is not a manifest: its name has to end in {', '.join(SUFFIXES)}")
    try:
        text = manifest.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(manifest, error) from None
    return _json_rows(manifest, text) if suffix == ".jsonl" else _table_rows(manifest, text, suffix)


def _json_rows(manifest: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{manifest}, line {number}: is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise DatasetError(
                f'{manifest}, line {number}: is not an object like {{"audio": ..., "text": ...}}'
            )
        yield number, row


def _table_rows(manifest: Path, text: str, suffix: str) -> Iterator[Row]:
    lines = io.StringIO(text, newline="")
    table = (
        csv.reader(lines, strict=True)
        if suffix == ".csv"
        else csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    )
    columns: list[str] = []
    while True:
        number = table.line_num + 1
        try:
            cells = next(table, None)
        except csv.Error as error:
            raise DatasetError(
                f"{manifest}, line {number}: can't be read as {suffix[1:].upper()} ({error})"
            ) from None
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if not columns:
            columns = [cell.strip() for cell in cells]
            _check_columns(manifest, number, columns)
        elif len(cells) != len(columns):
            raise DatasetError(
                f"{manifest}, line {number}: has {len(cells)} cells, where the first line names {len(columns)} columns"
            )
        else:
            yield number, dict(zip(columns, cells, strict=True))


def _check_columns(manifest: Path, number: int, columns: list[str]) -> None:
    for needed in ("audio", "text"):
        if columns.count(needed) != 1:
            problem = "more than one column" if needed in columns else "no column"
            raise DatasetError(
                f"{manifest}, line {number}: {problem} {needed!r}: the first line has to name the columns "
                f"audio and text (it names {', '.join(map(repr, columns))})"
            )


def _utterance(row: dict[str, Any], base: Path) -> Utterance:
    """Raises ValueError, saying what is wrong with the row."""
    for needed in ("audio", "text"):
        if needed not in row or row[needed] is None:
            raise ValueError(f"no {needed!r}")
        if not isinstance(row[needed], str):
            raise ValueError(f"{needed!r} is not text but {row[needed]!r}")
        if not row[needed].strip():
            raise ValueError(f"{needed!r} is empty")
    given = row["audio"].strip()
    if "\0" in given:
        raise ValueError("'audio' has a NUL character in it")
    audio = base / Path(given).expanduser()
    name = _label(row, "id") or (audio.relative_to(base) if audio.is_relative_to(base) else audio).as_posix()
    return Utterance(name, audio, row["text"].strip(), _label(row, "speaker"), _seconds(row.get("seconds")))


def _label(row: dict[str, Any], column: str) -> str | None:
    """An id or a speaker: text, or a whole number; None where it is left out."""
    value = row.get(column)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{column!r} is neither text nor a number but {value!r}")
    return str(value).strip() or None


def _seconds(value: object) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        seconds = (
            float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
        )
    except (ValueError, OverflowError):
        seconds = math.nan
    if not (0 < seconds < math.inf):
        raise ValueError(f"'seconds' is not a length of time but {value!r}")
    return seconds
