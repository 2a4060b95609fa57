"""The report's transcripts laid word over word, and as the data of the page's script."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.evaluation.evaluation import DifferingUtterance, ScoredHypothesis
from app.evaluation.report.transcripts import CONTEXT, LONGEST_INSERTION, as_json, audio_url, lay_out


def heard(backend: str, *operations: Any, errors: int = 0, same: bool = False) -> ScoredHypothesis:
    return ScoredHypothesis(
        backend=backend, hypothesis="<", errors=errors, same_as_cpu=same, broken=(), operations=operations
    )


def test_columns_put_words_over_words() -> None:
    one, two, three = ("=", "one", "one"), ("=", "two", "two"), ("=", "three", "three")
    cpu = heard("cpu", one, ("D", "two", ""), three, errors=1, same=True)
    int8 = heard("int8", ("I", "", "and"), ("S", "one", "won"), two, three, ("I", "", "x"), errors=3)
    columns = lay_out([cpu, heard("int32", errors=1, same=True), int8])
    assert columns.reference == [None, "one", "two", "three", None]
    assert [row.backends for row in columns.rows] == [["cpu", "int32"], ["int8"]]
    assert [kind for kind, _ in columns.rows[0].cells] == ["", "=", "D", "=", ""]
    assert [word for _, word in columns.rows[1].cells] == ["and", "won", "two", "three", "x"]
    assert [place for line in columns.lines(8) for place in line] == [0, 1, 2, 3, 4]
    assert len(list(columns.lines(8))) > 1


def test_loops_are_cut_short_and_stretches_without_errors_folded() -> None:
    said = [("=", str(number), str(number)) for number in range(60)]
    loop = heard("int8", *said[:30], *[("I", "", "la")] * 200, *said[30:], errors=200)
    columns = lay_out([heard("cpu", *said, same=True), loop])
    inserted = [word for kind, word in columns.rows[1].cells if kind == "I"]
    assert inserted == ["la"] * LONGEST_INSERTION + [f"… {200 - LONGEST_INSERTION} more"]
    places = columns.places()
    assert (places[0], places[-1]) == (None, None)
    assert len(places) == 2 + 2 * CONTEXT + len(inserted)


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("../a b/ü#1?.flac", "../a%20b/%C3%BC%231%3F.flac"),
        ("a:b.flac", "a%3Ab.flac"),
        ("https://host/x%20y.flac", "https://host/x%20y.flac"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
    ],
)
def test_audio_paths_become_urls(path: str, url: str) -> None:
    assert audio_url(path) == url


def test_json_in_a_script_has_nothing_that_html_reads() -> None:
    cpu = heard("cpu", same=True)
    utterance = DifferingUtterance(
        id="<!--", speaker=None, reference="\u2028</ScRiPt>&", audio_seconds=None, words=1, transcripts=(cpu,)
    )
    written = as_json([utterance], ["cpu"], {})
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written)["utterances"][0]["r"] == "\u2028</ScRiPt>&"
