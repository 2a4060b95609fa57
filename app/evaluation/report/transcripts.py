"""Where backends differ: the transcripts of an utterance laid word over word under its reference.

A column is a reference word, or a place between two where some transcript has a word too many. All utterances go into
the page as JSON for its script, which makes rows as they are asked for, so that a page with thousands opens at once;
the first few are there as HTML without it.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from markupsafe import Markup

from app.evaluation.alignment import Operation
from app.evaluation.evaluation import DifferingUtterance, ScoredHypothesis
from kernels.backends import find

WITHOUT_SCRIPT = 12
"""Utterances that are there without the script."""
LINE = 68
"""Characters of a line of words without the script, which else measures the room that there is."""
LONGEST_INSERTION = 6
"""Words of a run of inserted words that are shown; a loop of two hundred says nothing more."""
CONTEXT = 4
"""Columns that are shown on each side of a difference."""

Cell = tuple[str, str]
"""What became of a column's word (`=`, `S`, `D`, `I`, or empty where there is nothing), and the transcript's word."""
BLANK: Cell = ("", "")
SIGNS = {"S": "~", "D": "-", "I": "+"}
"""Of the errors in the script's data."""


class Row(NamedTuple):
    """One transcript, a cell for each column, and the backends that gave it."""

    backends: list[str]
    errors: int
    cells: list[Cell]


class Columns(NamedTuple):
    """An utterance's transcripts word over word.

    Attributes:
        reference: a word for each column, None in the places between words.
        rows: the different transcripts, the cpu's first.
    """

    reference: list[str | None]
    rows: list[Row]

    def places(self) -> list[int | None]:
        """The columns near a difference, in order; None stands for a stretch without one that is left out."""
        everything = range(len(self.reference))
        different = [i for i in everything if any(row.cells[i][0] in SIGNS for row in self.rows)]
        near = {i for d in different for i in range(d - CONTEXT, d + CONTEXT + 1)} or everything
        return [place for place, _ in groupby(i if i in near else None for i in everything)]

    def lines(self, characters: int = LINE) -> Iterator[list[int | None]]:
        """Columns of each line if a line has so many characters; a column wider than that has a line of its own."""
        line: list[int | None] = []
        used = 0
        for place in self.places():
            wide = 2
            if place is not None:
                words = [self.reference[place] or "", *(row.cells[place][1] for row in self.rows)]
                wide = 1 + max(map(_characters, words))
            if line and used + wide > characters:
                yield line
                line, used = [], 0
            line.append(place)
            used += wide
        if line:
            yield line


def lay_out(transcripts: Sequence[ScoredHypothesis]) -> Columns:
    """Lay out the transcripts of an utterance, the cpu's first; equal ones share a row."""
    cpu = transcripts[0].operations
    groups: dict[tuple[Operation, ...], list[ScoredHypothesis]] = {}
    for one in transcripts:
        groups.setdefault(cpu if one.same_as_cpu else one.operations, []).append(one)
    split = [_split(operations) for operations in groups]
    words = [word for kind, word, _ in cpu if kind != "I"]
    gaps = [max(len(inserted[i]) for _, inserted in split) for i in range(len(words) + 1)]
    reference: list[str | None] = []
    for place, gap in enumerate(gaps):
        reference += [None] * gap
        reference += words[place : place + 1]
    rows = []
    for (cells, inserted), group in zip(split, groups.values(), strict=True):
        row: list[Cell] = []
        for place, gap in enumerate(gaps):
            added = [("I", word) for word in inserted[place]]
            row += added + [BLANK] * (gap - len(added)) + cells[place : place + 1]
        rows.append(Row([one.backend for one in group], group[0].errors, row))
    return Columns(reference, rows)


def _split(operations: Sequence[Operation]) -> tuple[list[Cell], list[list[str]]]:
    """A cell for each reference word, and the words inserted before each and after the last."""
    cells: list[Cell] = []
    inserted: list[list[str]] = [[]]
    for kind, lost, got in operations:
        if kind == "I":
            inserted[-1].append(got)
        else:
            cells.append((kind, lost if kind == "D" else got))
            inserted.append([])
    for words in inserted:
        if len(words) > LONGEST_INSERTION + 1:
            words[LONGEST_INSERTION:] = [f"… {len(words) - LONGEST_INSERTION:,} more"]
    return cells, inserted


def _characters(text: str) -> int:
    """Characters of a fixed-width face that a text takes; East Asian ones take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def ordered(utterances: Sequence[DifferingUtterance]) -> list[DifferingUtterance]:
    """By the most words by which a backend's errors differ from the cpu's; the legacy kernels count last."""

    def change(utterance: DifferingUtterance) -> tuple[int, int, str]:
        cpu, *others = utterance.transcripts
        most = {False: 0, True: 0}
        for one in others:
            if not one.same_as_cpu:
                # A transcript that differs without more errors or fewer comes before one that does not differ.
                legacy = find(one.backend).legacy
                most[legacy] = max(most[legacy], 2 * abs(one.errors - cpu.errors) + 1)
        return -most[False], -most[True], utterance.id

    return sorted(utterances, key=change)


def as_json(
    utterances: Sequence[DifferingUtterance],
    backends: Sequence[str],
    audio: Mapping[str, str],
    strips: Mapping[tuple[str, str], str] | None = None,
) -> Markup:
    """The data of the page's script, safe inside a script element.

    Each utterance is `{i: id, s: speaker, d: seconds, n: words, r: reference, w: reference by column, g: rows,
    t: texts, k: broken, a: audio, p: strips}`. A row is `[numbers of its backends, errors, cells]`; cells are runs of
    columns that are as the reference (a number) and words: `~word` substituted, `+word` inserted, `-` deleted. Texts
    are `[numbers of backends, raw text]`, `k` is `{number of backend: kinds}`, `p` `{number of backend: path}`.
    """
    numbers = {name: place for place, name in enumerate(backends)}
    data = {
        "names": backends,
        "utterances": [_compact(one, numbers, audio, strips or {}) for one in ordered(utterances)],
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # `<` opens the tags and comments that would end the element; the line separators are no JavaScript of old.
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # every letter that HTML could read is gone


def audio_url(path: str) -> str:
    """A path or URL for an attribute: paths are quoted; URLs are taken as they are."""
    scheme = urlsplit(path).scheme.lower()
    return path if scheme in ("http", "https", "file", "data") else quote(path, safe="/")


def _compact(
    utterance: DifferingUtterance,
    numbers: Mapping[str, int],
    audio: Mapping[str, str],
    strips: Mapping[tuple[str, str], str],
) -> dict[str, Any]:
    columns = lay_out(utterance.transcripts)
    texts: dict[str, list[int]] = {}
    for transcript in utterance.transcripts:
        texts.setdefault(transcript.hypothesis, []).append(numbers[transcript.backend])
    shown = {str(numbers[b]): strips[b, utterance.id] for b in numbers if (b, utterance.id) in strips}
    data = {
        "i": utterance.id,
        "s": utterance.speaker,
        "d": utterance.audio_seconds,
        "n": utterance.words,
        "r": utterance.reference,
        "w": [0 if word is None else word for word in columns.reference],
        "g": [[[numbers[b] for b in row.backends], row.errors, _runs(row)] for row in columns.rows],
        "t": [[who, text] for text, who in texts.items()],
        "k": {str(numbers[t.backend]): t.broken for t in utterance.transcripts if t.broken} or None,
        "a": audio.get(utterance.id),
        "p": shown or None,
    }
    return {key: value for key, value in data.items() if value is not None}


def _runs(row: Row) -> list[str | int]:
    runs: list[str | int] = []
    for kind, word in row.cells:
        if kind in SIGNS:
            runs.append(SIGNS[kind] + ("" if kind == "D" else word))
        elif runs and isinstance(runs[-1], int):
            runs[-1] += 1
        else:
            runs.append(1)
    return runs
