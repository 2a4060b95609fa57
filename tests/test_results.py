"""The pages' tables are those of the runs that are kept."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from places import SCRIPTS


def load_results() -> Any:
    spec = importlib.util.spec_from_file_location("results", SCRIPTS / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


results = load_results()


@pytest.mark.parametrize("path", results.PAGES, ids=lambda path: path.name)
def test_a_page_shows_what_the_runs_found(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert results.MARK.search(text)
    assert results.page(path) == text, "python scripts/results.py write"


def test_every_run_that_is_kept_is_shown_and_no_other() -> None:
    shown = {
        name
        for path in results.PAGES
        for mark in results.MARK.finditer(path.read_text(encoding="utf-8"))
        for name in mark[3].split()
    }
    assert shown == {path.stem for path in results.KEPT.glob("*.json")}


def test_a_figure_that_changes_changes_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in results.KEPT.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    run = json.loads((tmp_path / "wer-base.json").read_text())
    run["rows"][0]["wer"] += 0.01
    (tmp_path / "wer-base.json").write_text(json.dumps(run))
    monkeypatch.setattr(results, "KEPT", tmp_path)
    changed = [p.name for p in results.PAGES if results.page(p) != p.read_text(encoding="utf-8")]
    assert changed == ["README.md", "results.md"]
