"""`transcribe` in a cluster, against itself in one process: a model made in a moment."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster
from material.small_models import write_terse_model
from typer.testing import CliRunner, Result

from app.cli import _transcribe
from datasets.utterance import Utterance


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a scheduler with one worker, to which all goes over TCP."""
    how: Any = {"processes": False, "protocol": "tcp://", "dashboard_address": ":0", "memory_limit": 0}
    with LocalCluster(n_workers=1, threads_per_worker=1, **how) as local:
        yield local.scheduler_address


@pytest.fixture(scope="module")
def how(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    model = write_terse_model(tmp_path_factory.mktemp("models") / "terse.pt")
    return ("--model", str(model), "--backend", "cpu", "--compute-type", "float32", "--threads", "1")


@pytest.fixture
def folder(tmp_path: Path, spoken: Utterance) -> Path:
    """Two recordings, and three that are none."""
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.flac", "deeper/b.flac"):
        shutil.copy(spoken.audio, folder / name)
    for name in ("c.wav", "d.wav"):
        (folder / name).touch()
    (folder / "e.wav").write_bytes(b"no sound" * 20)
    return folder


def transcribe(*words: Any) -> Result:
    return CliRunner().invoke(_transcribe, list(map(str, words)))


@pytest.mark.parametrize("sent", [(), ("--send-audio",)])
def test_a_cluster_writes_what_one_process_writes(
    sent: tuple[str, ...], folder: Path, how: tuple[str, ...], cluster: str, tmp_path: Path
) -> None:
    outputs = {}
    for name, where in (("one", ()), ("cluster", ("--scheduler", cluster, *sent))):
        result = transcribe(folder, *how, *where, "-f", "json", "-o", tmp_path / name)
        assert result.exit_code == 1, result.output
        errors = sorted(line for line in result.stderr.splitlines() if line.startswith("error: "))
        files = sorted(path for path in (tmp_path / name).rglob("*.*"))
        texts = [json.loads(path.read_text()) for path in files]
        outputs[name] = errors, [path.relative_to(tmp_path / name) for path in files], texts
        assert (
            "2 of 5 transcribed; failed: 2 empty file, 1 not audio that FFmpeg's libraries can read"
            in result.stderr
        )
    assert result.stdout == ""
    assert outputs["one"] == outputs["cluster"]
    assert len(outputs["one"][2]) == 2


def test_a_run_goes_on_where_it_stopped_and_prints_where_nothing_is_written(
    folder: Path, how: tuple[str, ...], cluster: str, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("kept")
    where = ("--scheduler", cluster)
    result = transcribe(folder, *how, *where, "-o", tmp_path / "out", "--skip-existing")
    assert "1 already transcribed" in result.stderr
    assert (tmp_path / "out" / "a.txt").read_text() == "kept"
    printed = transcribe(folder / "deeper", *how, *where).stdout
    assert printed == f"==> {folder}/deeper/b.flac <==\n" + (tmp_path / "out/deeper/b.txt").read_text()


def test_standard_input_is_not_for_a_cluster(how: tuple[str, ...]) -> None:
    result = transcribe("-", *how, "--workers", "1")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: a stream is read here: without --workers and --scheduler\n",
    )
