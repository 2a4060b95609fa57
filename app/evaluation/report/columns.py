"""Transcripts of one utterance laid word over word: a row for the reference and one for each different transcript.

A column is a reference word, or a place between two where some transcript has a word too many. The page's script lays
out the same columns; so they are worked out here, once, and both only break them into lines.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

LONGEST_INSERTION = 6
"""Words of a run of inserted words that are shown; a loop of two hundred says nothing more."""

CONTEXT = 4
"""Columns that are shown on each side of a difference."""

Kind = Literal["same", "substituted", "deleted", "inserted", "blank"]
ERRORS = frozenset({"substituted", "deleted", "inserted"})


@dataclass(frozen=True)
class Cell:
    """One transcript's part of a column.

    Attributes:
        kind: what became of the reference's word there.
        word: of the transcript; of the reference where it was deleted.
    """

    kind: Kind
    word: str = ""


@dataclass(frozen=True)
class Row:
    """One transcript, and the backends that gave it.

    Attributes:
        backends: their names; the cpu's row is the first.
        errors: words.
        cells: one for each column.
    """

    backends: tuple[str, ...]
    errors: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Columns:
    """An utterance laid out.

    Attributes:
        reference: a word for each column, None in the places between words.
        rows: the different transcripts.
    """

    reference: tuple[str | None, ...]
    rows: tuple[Row, ...]

    def places(self) -> list[int | None]:
        """The columns near a difference, in order; None stands for a stretch without one that is left out."""
        different = [
            i for i in range(len(self.reference)) if any(r.cells[i].kind in ERRORS for r in self.rows)
        ]
        near = {i for d in different for i in range(d - CONTEXT, d + CONTEXT + 1)}
        found: list[int | None] = []
        for i in range(len(self.reference)):
            if i in near or not different:
                found.append(i)
            elif not found or found[-1] is not None:
                found.append(None)
        return found

    def lines(self, characters: int) -> Iterator[list[int | None]]:
        """Columns of each line if a line has so many characters; a column wider than that has a line of its own."""
        line: list[int | None] = []
        used = 0
        for place in self.places():
            wide = 1 if place is None else self._width(place)
            if line and used + wide + 1 > characters:
                yield line
                line, used = [], 0
            line.append(place)
            used += wide + 1
        if line:
            yield line

    def _width(self, place: int) -> int:
        return max(width(self.reference[place] or ""), *(width(row.cells[place].word) for row in self.rows))


def lay_out(transcripts: Sequence[Mapping[str, Any]]) -> Columns:
    """Lay out the transcripts of a `DifferingUtterance`, the cpu's first; equal ones share a row."""
    operations = {tuple(map(tuple, transcripts[0]["operations"])): [transcripts[0]]}
    cpu = next(iter(operations))
    for transcript in transcripts[1:]:
        own = cpu if transcript["same_as_cpu"] else tuple(map(tuple, transcript["operations"]))
        operations.setdefault(own, []).append(transcript)
    split = [_split(own) for own in operations]
    words = [word for kind, word, _ in cpu if kind != "I"]
    gaps = [max(len(gaps[i]) for _, gaps in split) for i in range(len(words) + 1)]
    reference: list[str | None] = []
    for place, gap in enumerate(gaps):
        reference += [None] * gap
        reference += words[place : place + 1]
    rows = []
    for (cells, inserted), group in zip(split, operations.values(), strict=True):
        row: list[Cell] = []
        for place, gap in enumerate(gaps):
            added = [Cell("inserted", word) for word in inserted[place]]
            row += added + [Cell("blank")] * (gap - len(added))
            row += cells[place : place + 1]
        rows.append(Row(tuple(t["backend"] for t in group), group[0]["errors"], tuple(row)))
    return Columns(tuple(reference), tuple(rows))


def width(text: str) -> int:
    """Characters of a fixed-width face that a text takes; East Asian ones take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _split(operations: Sequence[tuple[str, str, str]]) -> tuple[list[Cell], list[list[str]]]:
    """A cell for each reference word, and the words inserted before each and after the last."""
    cells: list[Cell] = []
    inserted: list[list[str]] = [[]]
    for kind, lost, got in operations:
        if kind == "I":
            inserted[-1].append(got)
            continue
        found: dict[str, Cell] = {
            "=": Cell("same", got),
            "D": Cell("deleted", lost),
            "S": Cell("substituted", got),
        }
        cells.append(found[kind])
        inserted.append([])
    return cells, [_shortened(run) for run in inserted]


def _shortened(words: list[str]) -> list[str]:
    if len(words) <= LONGEST_INSERTION + 1:
        return words
    return [*words[:LONGEST_INSERTION], f"… {len(words) - LONGEST_INSERTION:,} more"]
