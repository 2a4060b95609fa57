"""docs/inputs.md names a test for each of its rows, and there are those tests."""

from __future__ import annotations

import re

from places import ROOT


def test_every_row_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| what |")]
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert rows
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        assert all(f"def {name}(" in code for name in named), row
