from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from material.audio_files import write
from material.evaluating import CUTS, FEW, evaluate
from material.small_models import write_terse_model

from app.audio.reading import load_audio
from app.evaluation import job as jobs
from datasets.sample import sample


@pytest.fixture(scope="package")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("harbour")
    samples = load_audio(sample().audio)
    lines = []
    for number, (start, end, text) in enumerate(CUTS):
        part = (samples[round(start * 16000) : round(end * 16000), None] * 32767).astype("int16")
        write(folder / f"{number}.flac", part, 16000, "flac")
        entry = {"audio": f"{number}.flac", "text": text, "id": f"u{number}", "speaker": "ab"[number % 2]}
        lines.append(json.dumps(entry))
    path = folder / "harbour.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="package")
def few_measurements() -> Iterator[None]:
    """Of the kernels, which have tests of their own."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(jobs, "VALIDATION_TILES", 2)
        context.setattr(jobs, "SAMPLED_UTTERANCES", 1)
        yield


@pytest.fixture(scope="package")
def how(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """The options of most runs: the five utterances, and the small model."""
    model = write_terse_model(tmp_path_factory.mktemp("models") / "terse.pt")
    return ("--dataset", manifest, "--model", model, "--device", "emulator", "--batch-size", 2, *FEW)


@pytest.fixture(scope="package")
def whole(how: tuple[Any, ...], few_measurements: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished evaluation of cpu and int32."""
    folder = tmp_path_factory.mktemp("whole")
    done = evaluate(*how, "--backends", "cpu,int32", "-o", folder)
    assert done.exit_code == 0, done.output
    return folder
