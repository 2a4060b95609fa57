"""`report` from the command line: records scored again, joined, and figures that are not of this run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from material.evaluating import FEW, evaluate, report, without_times
from typer.testing import CliRunner

from app.cli import app
from app.evaluation import reporting
from app.evaluation.records import EvidenceError
from app.evaluation.rules import Limits

pytestmark = pytest.mark.usefixtures("few_measurements")


def test_parts_of_a_run_joined_give_the_whole(whole: Path, tmp_path: Path) -> None:
    for part in (0, 1):
        folder = tmp_path / str(part) / "records"
        folder.mkdir(parents=True)
        shutil.copy(whole / "kernels.json", folder.parent)
        for path in (whole / "records").iterdir():
            head, *lines = path.read_text().splitlines(keepends=True)
            (folder / path.name).write_text("".join([head, *lines[part::2]]))
    joined = report(tmp_path / "0", tmp_path / "1", "-o", tmp_path / "joined", *FEW)
    assert joined.exit_code == 0, joined.output
    assert without_times(tmp_path / "joined") == without_times(whole)


def test_scoring_again_gives_the_same_and_a_gate_exits_by_the_verdict(whole: Path, tmp_path: Path) -> None:
    assert report(whole, "-o", tmp_path, *FEW).exit_code == 0
    inconclusive = report(whole, "-o", tmp_path, "--gate", *FEW)
    assert inconclusive.exit_code == 4, inconclusive.output
    assert "int32        INCONCLUSIVE" in inconclusive.stdout
    assert (tmp_path / "report.json").read_bytes() == (whole / "report.json").read_bytes()
    unknown = report(whole, "-o", tmp_path, "--gate", "--candidate", "int8", *FEW)
    assert unknown.exit_code == 2
    assert "candidate 'int8': it has to be one of the backends, and not cpu: int32" in unknown.stderr


def test_what_bench_measured_goes_into_the_report(whole: Path, how: tuple[Any, ...], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    bench = tmp_path / "bench.json"
    once = "--tiles 3 --repeat 1 --threads 1 --backends int32 --tile-size 64 --device emulator"
    model = str(how[how.index("--model") + 1])
    done = CliRunner().invoke(app, ["bench", *once.split(), "--model", model, "--json", str(bench)])
    assert done.exit_code == 0, done.output
    assert report(folder, "--bench", bench, *FEW).exit_code == 0
    page = (folder / "report.html").read_text()
    assert "Measured on the CPU, not on an NPU" in page
    assert (folder / "bench.json").read_text() == bench.read_text()
    bench.write_text("{}")
    refused = report(folder, "--bench", bench)
    assert refused.exit_code == 2
    assert "not what `tilescribe bench --json` of this version writes" in refused.stderr


def test_a_report_without_records_or_with_kernel_figures_of_another_version(
    whole: Path, tmp_path: Path
) -> None:
    empty = report(tmp_path)
    assert empty.exit_code == 2
    assert "no records/*.jsonl in it; give a folder that `evaluate` wrote" in empty.stderr
    shutil.copytree(whole, tmp_path / "old")
    (tmp_path / "old" / "kernels.json").write_text('{"schema_version": 0}')
    done = report(tmp_path / "old")
    assert done.exit_code == 2
    assert "kernels.json: schema_version: Invalid enum value 0; remove it and run evaluate" in done.stderr


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something is in a JSON document; of long lists the first two."""
    yield path
    items = (
        value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    )
    for key, item in items:
        yield from places(item, (*path, key))


def put(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    """The document with something else at a place."""
    if not path:
        return odd
    changed = copy(value)
    changed[path[0]] = put(value[path[0]], path[1:], odd)
    return changed


@pytest.mark.parametrize("odd", [None, "x", -1e308, [[]], {"a": True}], ids=str)
def test_figures_of_any_other_type_are_refused_or_shown(
    odd: Any, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    monkeypatch.setattr(reporting, "print_summary", lambda *_: None)
    judging = reporting.Judging(Limits(), 100, 0)
    path, refused = folder / "kernels.json", 0
    right = json.loads(path.read_text())
    for place in places(right):
        path.write_text(json.dumps(put(right, place, odd)))
        try:
            reporting.write_report([folder], folder, judging)
        except EvidenceError as error:
            assert str(error).startswith((f"{path}: ", "not the same run: "))  # noqa: PT017
            assert len(str(error).splitlines()) == 1  # noqa: PT017
            refused += 1
    assert refused > 40


@pytest.mark.parametrize("field", ["model_sha256", "dataset"])
def test_kernel_figures_of_another_run_are_not_believed(
    field: str, whole: Path, how: tuple[Any, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    path = folder / "kernels.json"
    other = json.loads(path.read_text())
    changed = "ab" * 32 if field == "model_sha256" else {**other["dataset"], "sha256": "ab" * 32}
    path.write_text(json.dumps({**other, field: changed}))
    both = ("--backends", "cpu,int32", "-o", folder, "--resume")
    for refused in (report(folder), evaluate(*how, *both)):
        assert refused.exit_code == 2
        assert f"not the same run: {field}" in refused.stderr
        assert "; remove it and run evaluate --resume" in refused.stderr
    path.unlink()
    assert evaluate(*how, *both).exit_code == 0
    assert json.loads(path.read_text())[field] == other[field]
