"""Data sets of one's own: a manifest names recordings and their texts, as JSON Lines, CSV or TSV.

Every row has `audio` (a path, relative to the manifest unless absolute) and `text`, which is empty where nothing is
said; `id`, `speaker` and `seconds` are optional, and anything else is passed over. CSV and TSV begin with a line of
column names. CSV is quoted as in RFC 4180; TSV has no quoting, so that a quotation mark in a text stands for itself.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from datasets import MANIFESTS
from datasets.strict import DAMAGE, what_is_wrong
from datasets.utterance import DatasetError, Utterance, unreadable


class _Named(msgspec.Struct):
    """What a line says, where its recording alone counts."""

    audio: str


class _Row(_Named):
    """What a line says."""

    text: str
    id: str | int | None = None
    speaker: str | int | None = None
    seconds: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None


R = TypeVar("R", bound=_Named)


class _LineError(Exception):
    """What is wrong with a line, after its number."""


def read(manifest: Path, base: Path) -> tuple[tuple[Utterance, ...], tuple[str, ...]]:
    """Read a manifest: its utterances in the order of their ids, and a line about each recording that is not there.

    An utterance without an id gets its path as the manifest has it (relative to `base`, if it lies there).

    Args:
        manifest: its suffix says its format.
        base: what paths are relative to.

    Raises:
        DatasetError: the manifest can't be read or has no rows; a row has no audio or no text, a field of the wrong
            kind, or an id that another row has. The message has the file and the line.
    """
    if manifest.suffix.lower() not in MANIFESTS:
        raise DatasetError(f"{manifest}: is not a manifest: its name has to end in {', '.join(MANIFESTS)}")
    try:
        text = manifest.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(manifest, error) from None
    found: dict[str, Utterance] = {}
    lines: dict[str, int] = {}
    missing: list[str] = []
    try:
        for number, row in _rows(io.StringIO(text, newline=_newline(manifest)), manifest, _Row):
            utterance = _utterance(number, row, base)
            if utterance.id in lines:
                first = f"id {utterance.id!r} is that of line {lines[utterance.id]}"
                raise _LineError(number, f"{first}: give every row an id of its own")
            lines[utterance.id] = number
            if os.path.isfile(utterance.audio):  # no error for a name that the system refuses
                found[utterance.id] = utterance
            else:
                missing.append(f"{manifest}, line {number}: {utterance.audio} is missing")
    except _LineError as error:
        number, problem = error.args
        raise DatasetError(f"{manifest}, line {number}: {problem}") from None
    if not lines:
        raise DatasetError(f"{manifest}: has no rows: give each recording one, with audio and text")
    return tuple(found[name] for name in sorted(found)), tuple(missing)


def recordings(manifest: Path) -> Iterator[str]:
    """The paths of a manifest's recordings as its lines have them; the lines are read one at a time, and need no text.

    Raises:
        DatasetError: as `read`, once everything before that line was given.
    """
    try:
        with manifest.open(encoding="utf-8-sig", newline=_newline(manifest)) as lines:
            for number, row in _rows(lines, manifest, _Named):
                if not row.audio.strip():
                    raise _LineError(number, "audio: is empty")
                yield row.audio.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(manifest, error) from None
    except _LineError as error:
        number, problem = error.args
        raise DatasetError(f"{manifest}, line {number}: {problem}") from None


def _newline(manifest: Path) -> str:
    """What ends a line of a file: in a table a cell may have line ends of any kind, which its reader tells apart."""
    return "\n" if manifest.suffix.lower() == ".jsonl" else ""


def _rows(lines: Iterable[str], manifest: Path, kind: type[R]) -> Iterator[tuple[int, R]]:
    """Line numbers, from 1, and what the lines say."""
    suffix = manifest.suffix.lower()
    return _json_rows(lines, kind) if suffix == ".jsonl" else _table_rows(lines, suffix, kind)


def _json_rows(lines: Iterable[str], kind: type[R]) -> Iterator[tuple[int, R]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            with _reading(number):
                row = msgspec.json.decode(line, type=kind)
            yield number, row


def _table_rows(lines: Iterable[str], suffix: str, kind: type[R]) -> Iterator[tuple[int, R]]:
    how: dict[str, Any] = (
        {"strict": True} if suffix == ".csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    )
    table = csv.reader(lines, **how)
    needed = msgspec.structs.fields(kind)
    columns: list[str] = []
    number = 1
    try:
        for cells in table:
            if not any(cell.strip() for cell in cells):
                pass
            elif not columns:
                columns = _columns(number, cells, [one.name for one in needed if one.required])
            elif len(cells) != len(columns):
                wrong = f"has {len(cells)} cells, where the first line names {len(columns)} columns"
                raise _LineError(number, wrong)
            else:
                given = dict(zip(columns, cells, strict=True))
                # What an empty cell says of a text is that nothing was said; of anything else, nothing.
                known = {name: cell for name, cell in given.items() if cell.strip() or name == "text"}
                with _reading(number):
                    row = msgspec.convert(known, kind, strict=False)
                yield number, row
            number = table.line_num + 1
    except csv.Error as error:
        raise _LineError(number, f"can't be read as {suffix[1:].upper()} ({error})") from None


def _columns(number: int, cells: list[str], needed: list[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    for one in needed:
        if columns.count(one) != 1:
            problem = "more than one column" if one in columns else "no column"
            rule = (
                f"the first line has to name the column{'s' * (len(needed) > 1)} {' and '.join(needed)} "
                f"(it names {', '.join(map(repr, columns))})"
            )
            raise _LineError(number, f"{problem} {one!r}: {rule}")
    return columns


@contextmanager
def _reading(number: int) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise _LineError(number, what_is_wrong(error)) from None


def _utterance(number: int, row: _Row, base: Path) -> Utterance:
    given = row.audio.strip()
    if not given:
        raise _LineError(number, "audio: is empty")
    if "\0" in given:
        raise _LineError(number, "audio: has a NUL character in it")
    audio = base / os.path.expanduser(given)
    own_name = (audio.relative_to(base) if audio.is_relative_to(base) else audio).as_posix()
    name, speaker = ("" if label is None else str(label).strip() for label in (row.id, row.speaker))
    return Utterance(name or own_name, audio, row.text.strip(), speaker or None, row.seconds)
