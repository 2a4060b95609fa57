"""`evaluate` in several processes against one: the same report, whatever becomes of the processes."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from material.audio_files import write
from material.clusters import scheduler, worker
from material.evaluating import without_times
from material.small_models import write_terse_model
from places import ROOT

from app.audio.reading import load_audio
from datasets.utterance import Utterance

pytestmark = pytest.mark.slow

KILLED = 20


# Kernels, which have tests of their own, are measured in a moment.
START = (
    "from app.evaluation import job; job.VALIDATION_TILES, job.SAMPLED_UTTERANCES = 2, 1; "
    "from app.cli import evaluate_main; evaluate_main()"
)


def command(*words: Any) -> list[str]:
    return [sys.executable, "-c", START, *map(str, words), "--replications", "200", "--threads", "1"]


def evaluate(*words: Any) -> None:
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def count_of(records: Path) -> int:
    """Utterances in all backends' records."""
    return sum(len(path.read_bytes().splitlines()) - 1 for path in records.glob("*.jsonl"))


@pytest.fixture(scope="module")
def speech_run(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Any, ...], Path]:
    """Real weights on real speech, in one process: its options, and where its report is."""
    data = ("--dataset", "librispeech-test-clean", "--data-dir", speech / "LibriSpeech", "--allow-missing")
    kernel = ("--backends", "cpu,int32", "--model", "tiny.en", "--device", "emulator")
    how = (*data, *kernel, "--limit", 10, "--batch-size", 2)
    folder = tmp_path_factory.mktemp("one")
    evaluate(*how, "-o", folder)
    return how, folder


@pytest.mark.parametrize("workers", [2, 4])
def test_so_many_workers_give_the_report_of_one_process(
    workers: int, speech_run: tuple[tuple[Any, ...], Path], tmp_path: Path
) -> None:
    how, one = speech_run
    shutil.copy(one / "kernels.json", tmp_path)
    evaluate(*how, "-o", tmp_path, "--resume", "--workers", workers)
    assert without_times(tmp_path) == without_times(one)


def test_a_scheduler_and_workers_over_tcp_give_the_report_of_one_process(
    speech_run: tuple[tuple[Any, ...], Path], tmp_path: Path
) -> None:
    how, one = speech_run
    shutil.copy(one / "kernels.json", tmp_path)
    with scheduler() as (address, _), ExitStack() as stack:
        for _ in range(2):
            process = stack.enter_context(worker(address))
            stack.callback(process.terminate)
        evaluate(*how, "-o", tmp_path, "--resume", "--scheduler", address)
    assert without_times(tmp_path) == without_times(one)


@pytest.fixture(scope="module")
def small_run(spoken: Utterance, tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Any, ...], Path]:
    """The smallest model on 60 cuts of the sample, in one process."""
    folder = tmp_path_factory.mktemp("small")
    samples, entries = load_audio(spoken.audio), []
    for number in range(60):
        begin = number * 3000
        part = (samples[begin : begin + 32000, None] * 32767).astype(np.int16)
        write(folder / f"{number}.flac", part, 16000, "flac")
        entries.append({"audio": f"{number}.flac", "text": "the quiet harbour", "id": f"u{number}"})
    manifest = folder / "cuts.jsonl"
    manifest.write_text("\n".join(map(json.dumps, entries)) + "\n")
    model = write_terse_model(folder / "terse.pt")
    how = ("--dataset", manifest, "--model", model, "--device", "emulator", "--backends", "cpu")
    evaluate(*how, "--batch-size", 1, "-o", folder / "one")
    return (*how, "--batch-size", 1), folder / "one"


def test_workers_killed_at_twenty_moments_leave_the_same_report(
    small_run: tuple[tuple[Any, ...], Path], tmp_path: Path
) -> None:
    how, one = small_run
    chosen = random.Random(14)
    killed, before = 0, 0
    with subprocess.Popen(
        command(*how, "-o", tmp_path, "--workers", 2), stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as run:
        while run.poll() is None and killed < KILLED:
            if (now := count_of(tmp_path / "records")) == before:  # a kill for each that was done since
                time.sleep(0.05)
                continue
            before = now
            time.sleep(chosen.uniform(0, 1))
            with suppress(psutil.NoSuchProcess):
                of_dask = [
                    child
                    for child in psutil.Process(run.pid).children()
                    if "spawn_main" in " ".join(child.cmdline())
                ]
                if of_dask:
                    chosen.choice(of_dask).kill()
                    killed += 1
        _, said = run.communicate()
    assert (run.returncode, killed) == (0, KILLED), said
    assert without_times(tmp_path) == without_times(one)


def test_where_the_scheduler_is_killed_the_run_is_resumed(
    small_run: tuple[tuple[Any, ...], Path], tmp_path: Path
) -> None:
    how, one = small_run
    with scheduler() as (address, process), ExitStack() as stack:
        stack.callback(stack.enter_context(worker(address)).terminate)
        with subprocess.Popen(
            command(*how, "-o", tmp_path, "--scheduler", address), stderr=subprocess.PIPE, text=True, cwd=ROOT
        ) as run:
            while count_of(tmp_path / "records") < 5:
                assert run.poll() is None
                time.sleep(0.02)
            process.kill()
            _, said = run.communicate()
    assert run.returncode == 5
    assert f"error: scheduler {address}: is gone" in said
    assert 5 <= count_of(tmp_path / "records") < 60
    evaluate(*how, "-o", tmp_path, "--resume")
    assert without_times(tmp_path) == without_times(one)
