"""`evaluate` from the command line: the project's own sample cut into five utterances, a model made in a moment.

One run has real weights, and shows what a real kernel does to real speech.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import LocalCluster
from material.audio_files import write
from material.evaluating import CUTS, FEW, evaluate, records, report, without_times

from app import Transcriber
from app.evaluation import job as jobs
from app.evaluation import kernels, worker
from app.evaluation.worker import batches
from datasets.utterance import Utterance
from models.weights import loading

pytestmark = pytest.mark.usefixtures("few_measurements")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a scheduler with one worker; what a process of its own makes of it `--workers` tells."""
    how: Any = {"processes": False, "protocol": "tcp://", "dashboard_address": ":0", "memory_limit": 0}
    with LocalCluster(n_workers=1, threads_per_worker=1, **how) as local:
        yield local.scheduler_address


def test_a_run_leaves_records_and_three_reports(whole: Path) -> None:
    head, *lines = records(whole, "int32")
    assert (head["backend"], head["device"], head["kernel"]) == ("int32", "emulator", {"tile_size": 64})
    assert head["dataset"]["expected"] == 5
    assert re.fullmatch(r"[0-9a-f]{64}", head["model_sha256"])
    assert sorted(line["id"] for line in lines) == ["u0", "u1", "u2", "u3", "u4"]
    assert len({line["hypothesis"] for line in lines}) == 5
    for line in lines:
        assert "".join(segment["text"] for segment in line["segments"]).strip() == line["hypothesis"]
    assert all(line["audio_seconds"] > 2 and line["seconds"] > 0 < line["cpu_seconds"] for line in lines)
    evaluation = json.loads((whole / "report.json").read_text())
    words = {b["backend"]: b["rates"]["words"] for b in evaluation["backends"]}
    assert words["cpu"] == words["int32"] == sum(len(text.split()) for _, _, text in CUTS)
    assert "int32: INCONCLUSIVE" in (whole / "report.md").read_text()
    assert "INCONCLUSIVE" in (whole / "report.html").read_text()


def test_what_became_of_speech_is_in_records_and_reports_where_voice_activity_is_asked_for(
    whole: Path, how: tuple[Any, ...], tmp_path: Path
) -> None:
    assert all("coverage" not in line for line in records(whole, "cpu"))
    assert "speech with text" not in (whole / "report.md").read_text()
    done = evaluate(*how, "--backends", "cpu", "--vad", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    assert "speech with text" in done.stdout
    head, *lines = records(tmp_path, "cpu")
    assert head["decoding"]["vad"]["threshold"] == 0.5
    for line in lines:
        assert 1.5 < line["coverage"]["speech_seconds"] <= line["audio_seconds"]
    (backend,) = json.loads((tmp_path / "report.json").read_text())["backends"]
    coverage = backend["coverage"]
    for name in ("speech_seconds", "covered_seconds", "recovered_seconds"):
        assert coverage[name] == pytest.approx(sum(line["coverage"][name] for line in lines))
    assert coverage["speech_seconds"] > coverage["covered_seconds"]
    found = sum(sum(line["coverage"].get("findings", {}).values()) for line in lines)
    assert sum(coverage["findings"].values()) == found > 0  # a few words at random are not all that is said


def test_a_short_context_is_held_against_the_reference_in_the_whole_one(
    how: tuple[Any, ...], whole: Path, tmp_path: Path
) -> None:
    done = evaluate(*how, "--backends", "cpu,int32", "--context", "auto", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    assert records(tmp_path, "int32")[0]["kernel"] == {"tile_size": 64, "audio_context": "auto"}
    assert records(tmp_path, "cpu")[0]["kernel"] == {}
    texts = [[line["hypothesis"] for line in records(folder, "cpu")[1:]] for folder in (tmp_path, whole)]
    assert texts[0] == texts[1]
    assert "INCONCLUSIVE" in (tmp_path / "report.md").read_text()


def test_real_speech_is_transcribed_and_a_legacy_kernel_is_held(
    how: tuple[Any, ...], tiny_en: Transcriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INT32 errs no more than cpu; the founding report's INT8 kernel does not transcribe, and the verdict says why."""
    monkeypatch.setattr(loading, "load", lambda name: tiny_en.weights)
    monkeypatch.setattr(kernels, "_mels", lambda *_: ())
    real = ("--model", "tiny.en", "--backends", "cpu,int32,legacy-int8", "--limit", 2, "-o", tmp_path)
    done = evaluate(*how, *real, "--gate", "--candidate", "legacy-int8")
    assert done.exit_code == 3, done.output
    for backend in ("cpu", "int32"):
        said = {line["id"]: line["hypothesis"].lower() for line in records(tmp_path, backend)[1:]}
        assert "wakes before the sun" in said["u0"]
        assert "for the open water" in said["u1"]
    evaluation = json.loads((tmp_path / "report.json").read_text())
    rates = {b["backend"]: b["rates"] for b in evaluation["backends"]}
    assert rates["cpu"] == rates["int32"]
    verdict = next(line for line in done.stdout.splitlines() if line.startswith("legacy-int8  HOLD"))
    assert "correlation 0.1888 with FP32 on the founding report's tile, target 0.70" in verdict
    assert "2 of 2 broken that the cpu did not break" in verdict
    strips = sorted((tmp_path / "strips").iterdir())
    assert [strip.name for strip in strips] == ["legacy-int8-001-u0.html", "legacy-int8-002-u1.html"]
    page = tmp_path / "report.html"
    assert all(f'href="strips/{strip.name}"' in page.read_text() for strip in strips)

    without = report(tmp_path, *FEW)
    assert without.exit_code == 0, without.output
    assert "broken utterances without a strip: 2 whose recordings are not at hand" in without.stderr
    assert 'href="strips/' not in page.read_text()
    assert report(tmp_path, *FEW, "--dataset", how[1]).exit_code == 0
    assert page.read_text().count('href="strips/') == 2
    other = tmp_path / "other.jsonl"
    other.write_text('{"audio": "0.flac", "text": "else"}\n')
    refused = report(tmp_path, *FEW, "--dataset", other, "--data-dir", how[1].parent)
    assert refused.exit_code == 2
    assert refused.stderr == (
        "error: other.jsonl is another data set, or another part of it, than the records are of\n"
    )


def test_the_emulator_is_never_called_an_npu(whole: Path) -> None:
    for name in ("report.json", "report.md", "report.html"):
        text = (whole / name).read_text()
        assert "emulator" in text
        assert "on the emulator" in text
        assert "accuracy carries over" in text or "carries over bit for bit" in text


def test_an_interrupted_run_goes_on_and_gives_the_same_report(
    whole: Path, how: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = worker.BatchWorker.run
    calls = 0

    def interrupted(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return honest(self, *arguments)

    both = (*how, "--backends", "cpu,int32", "-o", tmp_path)
    with monkeypatch.context() as context:
        context.setattr(worker.BatchWorker, "run", interrupted)
        stopped = evaluate(*both)
    assert stopped.exit_code == 130
    assert f"interrupted; --resume goes on from what is in {tmp_path}" in stopped.stderr
    assert len(records(tmp_path, "cpu")) == 1 + 4
    with (tmp_path / "records" / "int32.jsonl").open("a") as file:
        file.write('{"kind":"utterance","id":"u1","hypo')  # the kill fell into a line

    again = evaluate(*both)
    assert again.exit_code == 2
    assert "has records of cpu, int32 already: --resume goes on with them" in again.stderr

    decoded: list[str] = []

    def counted(self: Any, batch: Any, wanted: Any) -> Any:
        decoded.extend(u.id for u in batch)
        return honest(self, batch, wanted)

    monkeypatch.setattr(worker.BatchWorker, "run", counted)
    resumed = evaluate(*both, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert len(decoded) == 1
    assert without_times(tmp_path) == without_times(whole)


def test_a_resumed_run_has_to_be_the_same_run(whole: Path, how: tuple[Any, ...]) -> None:
    other = evaluate(*how, "--backends", "int32", "-o", whole, "--tile-size", "128", "--resume")
    assert other.exit_code == 2
    assert "not the same run: kernel.tile_size is 64" in other.stderr


def test_processes_of_this_machine_give_the_same_report(
    whole: Path, how: tuple[Any, ...], tmp_path: Path
) -> None:
    shutil.copy(whole / "kernels.json", tmp_path)
    two = ("--backends", "cpu,int32", "-o", tmp_path, "--workers", "2", "--threads", "2", "--resume")
    done = evaluate(*how, *two)
    assert done.exit_code == 0, done.output
    assert without_times(tmp_path) == without_times(whole)


@pytest.mark.parametrize("sent", [False, True])
def test_workers_of_a_scheduler_give_the_same_report(
    sent: bool, whole: Path, how: tuple[Any, ...], cluster: str, tmp_path: Path
) -> None:
    """They join while it waits; recordings are read from the same paths or are sent."""
    shutil.copy(whole / "kernels.json", tmp_path)
    words = ["--backends", "cpu,int32", "-o", tmp_path, "--scheduler", cluster, "--resume"]
    done = evaluate(*how, *words, *["--send-audio"] * sent)
    assert done.exit_code == 0, done.output
    assert without_times(tmp_path) == without_times(whole)


def test_a_recording_that_cannot_be_read_or_is_silent_is_recorded_and_the_rest_goes_on(
    manifest: Path, how: tuple[Any, ...], tmp_path: Path
) -> None:
    for path in manifest.parent.glob("*.flac"):
        shutil.copy(path, tmp_path)
    (tmp_path / "3.flac").write_bytes(b"not audio")
    one_step = np.tile(np.array([[0], [1], [-1]], np.int16), (8000, 1))
    write(tmp_path / "1.flac", one_step, 16000, "flac")
    shutil.copy(manifest, tmp_path)
    out = tmp_path / "out"
    done = evaluate(*how, "--dataset", tmp_path / manifest.name, "--backends", "cpu", "-o", out)
    assert done.exit_code == 0, done.output
    lines = {line["id"]: line for line in records(out, "cpu")[1:]}
    assert len(lines) == 5
    assert [key for key, line in lines.items() if "error" in line] == ["u3"]
    assert "3.flac" in lines["u3"]["error"]
    assert [key for key, line in lines.items() if line.get("silent")] == ["u1"]
    (note,) = json.loads((out / "report.json").read_text())["notes"]
    assert note.startswith("1 recording is silent though its reference has words (u1)")


def test_a_limit_makes_a_part(how: tuple[Any, ...], tmp_path: Path) -> None:
    done = evaluate(*how, "--backends", "cpu", "-o", tmp_path, "--limit", 2, "--language", "auto")
    assert done.exit_code == 0, done.output
    assert "2 of 5" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--backends", "cpu,int16"], 2, "backend 'int16': it has to be one of cpu, int32"),
        (["--backends", "cpu,cpu"], 2, "name each once"),
        (["--backends", ""], 2, "at least one"),
        (["--backends", "cpu,int32", "--candidate", "int8"], 2, "candidate 'int8': it has to be one of the"),
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], 2, "has workers of its own: give one"),
        (["--margin", "-1"], 2, "--margin: it has to be a number from 0 to 100"),
        (["--limits", "absent.toml"], 2, "absent.toml"),
        (["--model", "tiny.de"], 2, "tiny.de"),
        (["--language", "xx"], 2, "xx"),
        (["--dataset", "librispeech-test-cleen"], 2, "librispeech-test-clean"),
        (["--dataset", "librispeech-test-clean", "--data-dir", "nowhere"], 5, "nowhere"),
        (["--dataset", "absent.jsonl"], 5, "absent.jsonl: no such file"),
    ],
)
def test_wrong_usage_and_a_data_set_that_is_not_there_are_one_line(
    how: tuple[Any, ...], tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = evaluate(*how, "-o", tmp_path / "out", *arguments)
    assert done.exit_code == code, done.output
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "out" / "records").exists() or not list((tmp_path / "out" / "records").iterdir())


def test_a_backend_that_is_added_is_validated_and_the_others_stay(
    whole: Path, how: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    before = json.loads((folder / "kernels.json").read_text())
    done = evaluate(*how, "--backends", "cpu,legacy-int8", "-o", folder, "--resume")
    assert done.exit_code == 0, done.output
    after = json.loads((folder / "kernels.json").read_text())
    assert after["validation"].keys() == after["extras"]["encoder_error"].keys() == {"int32", "legacy-int8"}
    assert after["validation"]["int32"] == before["validation"]["int32"]
    for name in ("validation", "score_ranges"):
        assert {row["kernel"] for row in after["extras"][name]} == {"int32", "legacy-int8"}
    verdicts = json.loads((folder / "report.json").read_text())["verdicts"]
    found = {v["backend"]: v["rules"][0]["passed"] for v in verdicts}
    assert found == {"int32": True, "legacy-int8": False}

    monkeypatch.setattr(kernels, "measure", lambda *_, **__: pytest.fail("measured again"))
    assert evaluate(*how, "--backends", "cpu,int32", "-o", folder, "--resume").exit_code == 0


def test_where_every_recording_failed_the_command_does(how: tuple[Any, ...], tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(b"not audio")
    (tmp_path / "m.csv").write_text("audio,text\na.flac,one\n")
    failed = evaluate(*how, "--dataset", tmp_path / "m.csv", "--backends", "cpu", "-o", tmp_path / "out")
    assert failed.exit_code == 1, failed.output
    assert failed.stderr.splitlines()[-1].startswith("error: no recording could be transcribed")
    assert (tmp_path / "out" / "report.html").exists()


def test_where_nothing_is_said_every_word_counts(
    manifest: Path, how: tuple[Any, ...], tmp_path: Path
) -> None:
    for name in ("0.flac", "1.flac"):
        shutil.copy(manifest.parent / name, tmp_path)
    (tmp_path / "m.csv").write_text("audio,text\n0.flac,\n1.flac,two boats\n")
    done = evaluate(*how, "--dataset", tmp_path / "m.csv", "--backends", "cpu", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    said = [line["hypothesis"] for line in records(tmp_path / "out", "cpu")[1:] if not line["reference"]]
    rates = found["backends"][0]["rates"]
    assert (rates["words"], len(said)) == (2, 1)
    assert rates["insertions"] >= len(said[0].split()) > 0
    assert rates["wer"] == (rates["substitutions"] + rates["deletions"] + rates["insertions"]) / 2
    assert found["notes"] == ["1 references have no words once normalised; all words there count as inserted"]


def test_batches_do_not_depend_on_the_order_given() -> None:
    utterances = [Utterance(f"u{i}", Path(f"{i}.flac"), "text", seconds=i % 4) for i in range(10)]
    first = batches(utterances, 3)
    assert first == batches(utterances[::-1], 3)
    assert [len(batch) for batch in first] == [3, 3, 3, 1]
    assert [u.id for u in first[0]] == ["u3", "u7", "u2"]


def test_without_dask_it_says_what_to_install(how: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    refused = evaluate(*how, "--workers", "2")
    assert refused.exit_code == 5
    assert refused.stderr == (
        "error: --workers and --scheduler need a package that is not here: pip install 'tilescribe[cluster]'\n"
    )


def test_the_folder_is_named_after_data_and_model() -> None:
    assert (
        jobs.default_folder("librispeech-test-clean", "tiny.en").as_posix()
        == "evaluations/librispeech-test-clean_tiny.en"
    )
    assert jobs.default_folder("data/mine.csv", "models/own.pt").as_posix() == "evaluations/mine_own"
