"""The utterances on which backends differ: all of them as JSON for the page's script, the first few as HTML.

The script makes rows as they are asked for, so that a page with thousands of utterances opens at once; without it the
first few are there to read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from markupsafe import Markup

from app.evaluation.report.columns import Cell, Columns, Row, lay_out

WITHOUT_SCRIPT = 12
"""Utterances that are there without the script."""

LINE = 68
"""Characters of a line of words without the script, which else measures the room that there is."""

Utterance = Mapping[str, Any]


def ordered(utterances: Sequence[Utterance]) -> list[Utterance]:
    """By the most words by which a backend's errors differ from the cpu's; the report's old kernels count last."""

    def change(utterance: Utterance) -> tuple[int, int, str]:
        cpu = utterance["transcripts"][0]["errors"]
        seeds, others = 0, 0
        for transcript in utterance["transcripts"][1:]:
            if transcript["same_as_cpu"]:
                continue
            # A transcript that differs without more errors or fewer comes before one that does not differ.
            changed = 2 * abs(transcript["errors"] - cpu) + 1
            if transcript["backend"].startswith("legacy-"):
                seeds = max(seeds, changed)
            else:
                others = max(others, changed)
        return -others, -seeds, utterance["id"]

    return sorted(utterances, key=change)


def as_json(utterances: Sequence[Utterance], backends: Sequence[str], audio: Mapping[str, str]) -> Markup:
    """The data of the page's script, safe inside a script element.

    Each utterance is `{i: id, s: speaker, d: seconds, n: words, w: reference by column, g: rows, t: texts, k: broken,
    a: audio}`. A row is `[numbers of its backends, errors, cells]`; cells are runs of columns that are as the reference
    (a number) and words: `~word` substituted, `+word` inserted, `-` deleted. Texts are `[numbers of backends, raw
    text]`, `k` is `{number of backend: kinds}`.
    """
    numbers = {name: place for place, name in enumerate(backends)}
    data = [_compact(utterance, numbers, audio) for utterance in ordered(utterances)]
    text = json.dumps(
        {"names": list(backends), "utterances": data}, ensure_ascii=False, separators=(",", ":")
    )
    # `<` opens the tags and comments that would end the element; the line separators are no JavaScript of old.
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # every letter that HTML could read is gone


def first_few(utterances: Sequence[Utterance]) -> list[dict[str, Any]]:
    """What the template shows without the script: the utterance, its columns, and the lines that they break into."""
    shown = []
    for utterance in ordered(utterances)[:WITHOUT_SCRIPT]:
        columns = lay_out(utterance["transcripts"])
        shown.append({"utterance": utterance, "columns": columns, "lines": list(columns.lines(LINE))})
    return shown


def audio_url(path: str) -> str:
    """A path or URL for an attribute: paths are quoted; URLs are taken as they are."""
    scheme = urlsplit(path).scheme.lower()
    return path if scheme in ("http", "https", "file", "data") else quote(path, safe="/")


def _compact(utterance: Utterance, numbers: Mapping[str, int], audio: Mapping[str, str]) -> dict[str, Any]:
    columns = lay_out(utterance["transcripts"])
    texts: dict[str, list[int]] = {}
    for transcript in utterance["transcripts"]:
        texts.setdefault(transcript["hypothesis"], []).append(numbers[transcript["backend"]])
    broken = {str(numbers[t["backend"]]): t["broken"] for t in utterance["transcripts"] if t["broken"]}
    data: dict[str, Any] = {
        "i": utterance["id"],
        "s": utterance["speaker"],
        "d": utterance["audio_seconds"],
        "n": utterance["words"],
        "r": utterance["reference"],
        "w": _reference(columns),
        "g": [[[numbers[b] for b in row.backends], row.errors, _runs(row)] for row in columns.rows],
        "t": [[who, text] for text, who in texts.items()],
    }
    if broken:
        data["k"] = broken
    if utterance["id"] in audio:
        data["a"] = audio[utterance["id"]]
    return {key: value for key, value in data.items() if value is not None}


def _reference(columns: Columns) -> list[str | int]:
    """Words, and 0 for the places between them."""
    return [0 if word is None else word for word in columns.reference]


def _runs(row: Row) -> list[str | int]:
    runs: list[str | int] = []
    for cell in row.cells:
        if cell.kind in ("same", "blank"):
            if runs and isinstance(runs[-1], int):
                runs[-1] += 1
            else:
                runs.append(1)
        else:
            runs.append(_code(cell))
    return runs


def _code(cell: Cell) -> str:
    return {"substituted": "~", "inserted": "+", "deleted": "-"}[cell.kind] + (
        "" if cell.kind == "deleted" else cell.word
    )
