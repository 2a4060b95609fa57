from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from material.evidence_records import run
from material.web_pages import Browser, Page
from msgspec.structs import replace

from app.evaluation.evaluation import Evaluation, summarise
from app.evaluation.records import (
    BackendRecords,
    EvidenceError,
    FindingRecord,
    SegmentRecord,
    SpeechCoverage,
    UtteranceRecord,
)
from app.evaluation.report import strips
from app.evaluation.report.page import render_page
from app.evaluation.report.strips import Strips, write_strips
from datasets.utterance import Utterance

VAD = {"threshold": 0.5, "recover": True, "drop_unspoken": True}


def records(spoken: Utterance, *ids: str, **changes: Any) -> dict[str, BackendRecords]:
    """What the cpu has whole of the sample, and of which int32 has no more than the first sentence."""
    first, _, rest = spoken.text.partition(". ")
    whole = tuple(
        SegmentRecord(at, at + 4.5, text, -0.2) for at, text in ((0.0, f" {first}."), (4.8, f" {rest}"))
    )
    found = {}
    for name, segments in (("cpu", whole), ("int32", whole[:1])):
        text = "".join(segment.text for segment in segments).strip()
        told = tuple(
            UtteranceRecord(key, spoken.text, text, audio_seconds=14.2, **{"segments": segments, **changes})
            for key in ids
        )
        found[name] = BackendRecords(run(name, len(ids)), told)
    return found


def written(
    found: Mapping[str, BackendRecords], audio: Mapping[str, Path], folder: Path
) -> tuple[Evaluation, Strips]:
    evaluation = summarise(found, replications=100)
    return evaluation, write_strips(evaluation, found, audio, folder)


def boxes(page: Page, kind: str) -> int:
    return sum(
        (own.get("class") or "").split()[:1] == [kind] and "style" in own for _, own, _ in page.elements
    )


def test_a_broken_utterance_is_seen_and_heard_where_its_words_are_gone(
    spoken: Utterance, tmp_path: Path
) -> None:
    evaluation, made = written(records(spoken, "harbour"), {"harbour": Path(spoken.audio)}, tmp_path)
    assert made.paths == {("int32", "harbour"): "strips/int32-001-harbour.html"}
    assert made.lacking == ""
    page = Page((tmp_path / "strips" / "int32-001-harbour.html").read_text(encoding="utf-8"))
    assert page.faults == []
    assert page.first("h1") == "harbour"
    assert "emulator on the CPU" in page.first("dl")
    assert len(page.all("img")) == 1
    assert boxes(page, "speech") > 0
    assert boxes(page, "said") == 1
    assert "speech without textnot decoded again" in page.first("ol", class_="findings")
    player = page.elements[page.all("audio")[0]][1]["src"] or ""
    assert (tmp_path / "strips" / player).resolve() == Path(spoken.audio).resolve()
    notes = page.first("ul", class_="notes")
    assert "broken: " in notes
    assert f"reference: {spoken.text}" in notes
    assert "cpu: The quiet" in notes
    report = Page(render_page(evaluation, strips=made))
    (link,) = [own for _, own, _ in report.elements if (own.get("href") or "").startswith("strips/")]
    assert link["href"] == made.paths["int32", "harbour"]
    assert report.data()["utterances"][0]["p"] == {"1": link["href"]}


def test_what_the_runs_own_ledger_found_is_what_is_shown(spoken: Utterance, tmp_path: Path) -> None:
    covered = SpeechCoverage(speech_seconds=12.0, covered_seconds=4.0, recovered_seconds=2.0)
    found = records(
        spoken, "a", coverage=covered, findings=(FindingRecord("recovered", 1.0, 3.0, "these words"),)
    )
    found = {
        name: BackendRecords(replace(of.run, decoding={"vad": VAD}), of.utterances)
        for name, of in found.items()
    }
    written(found, {"a": Path(spoken.audio)}, tmp_path)
    page = Page((tmp_path / "strips" / "int32-001-a.html").read_text(encoding="utf-8"))
    assert len(page.all("button")) == 1
    assert "these words" in page.first("ol", class_="findings")
    assert "2.0 s recovered" in page.first("dl")


def test_strips_of_an_earlier_report_are_gone_and_ids_are_no_paths(spoken: Utterance, tmp_path: Path) -> None:
    (tmp_path / "strips").mkdir()
    (tmp_path / "strips" / "int32-009-old.html").write_text("old")
    _, made = written(records(spoken, "../<b> ä/1"), {"../<b> ä/1": Path(spoken.audio)}, tmp_path)
    assert list(made.paths.values()) == ["strips/int32-001-.._b_1.html"]
    assert [path.name for path in (tmp_path / "strips").iterdir()] == ["int32-001-.._b_1.html"]


def test_utterances_without_a_strip_are_counted_by_the_reason(
    spoken: Utterance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.flac").write_text("no audio")
    paths = {"a": Path(spoken.audio), "b": tmp_path / "broken.flac", "c": tmp_path / "none.flac"}
    evaluation, made = written(records(spoken, "a", "b", "c", "d"), paths, tmp_path)
    assert list(made.paths) == [("int32", "a")]
    assert made.lacking == (
        "broken utterances without a strip: 1 whose recordings are not at hand; `tilescribe report --dataset` "
        "takes them; 2 whose recording can't be read"
    )
    assert "Broken utterances without a strip: 1 whose" in Page(render_page(evaluation, strips=made)).section(
        "broken"
    )
    monkeypatch.setattr(strips, "MOST", 1)
    _, made = written(records(spoken, "a", "b"), paths, tmp_path)
    assert made.missing == {"over the first 1 of a backend": 1}
    _, made = written(records(spoken, "a", segments=None), paths, tmp_path)
    assert made.missing == {"failed, or recorded before segments were kept": 1}
    assert not list((tmp_path / "strips").iterdir())


@pytest.mark.parametrize(
    ("vad", "kind", "message"),
    [
        (
            {"threshold": "loud"},
            "recovered",
            "int32: decoding.vad: Expected `float`, got `str` - at `$.threshold`",
        ),
        (VAD, "odd", "utterance a: findings: Invalid enum value 'odd' - at `$[0].kind`"),
    ],
)
def test_options_and_findings_that_there_are_not_are_refused(
    vad: Any, kind: str, message: str, spoken: Utterance, tmp_path: Path
) -> None:
    covered = SpeechCoverage(speech_seconds=12.0, covered_seconds=4.0, recovered_seconds=2.0)
    found = records(spoken, "a", coverage=covered, findings=(FindingRecord(kind, 1.0, 3.0),))
    found = {
        name: BackendRecords(replace(of.run, decoding={"vad": vad}), of.utterances)
        for name, of in found.items()
    }
    with pytest.raises(EvidenceError) as raised:
        written(found, {"a": Path(spoken.audio)}, tmp_path)
    assert str(raised.value) == message


@pytest.mark.browser
def test_a_browser_opens_a_strip_from_the_report_and_plays_what_has_no_text(
    spoken: Utterance, tmp_path: Path
) -> None:
    evaluation, made = written(records(spoken, "harbour"), {"harbour": Path(spoken.audio)}, tmp_path)
    (tmp_path / "report.html").write_text(render_page(evaluation, strips=made), encoding="utf-8")
    browser = Browser(tmp_path / "profile")
    try:
        browser.open((tmp_path / "report.html").as_uri())
        told = browser.value("document.querySelector('.kinds a').getAttribute('href')")
        assert told == made.paths["int32", "harbour"]
        browser.open((tmp_path / told).as_uri())
        player = "document.getElementById('player')"
        browser.value(
            f"window.seeked = new Promise(d => {player}.addEventListener('seeked', () => d({player}.currentTime))); 0"
        )
        browser.click("document.querySelector('.findings button')")
        assert 4.5 <= browser.value("seeked") < 6
    finally:
        browser.close()
