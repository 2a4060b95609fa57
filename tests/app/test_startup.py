"""What a command does to start sooner, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_numba_is_loaded_without_scipy_and_scipy_can_be_imported_afterwards() -> None:
    printed = run(
        """
import sys
from app.startup import load_numba
load_numba()
print("scipy.linalg" in sys.modules)
import numba, numpy as np
total = numba.njit(lambda x: x.sum() + np.exp(x).max())
print(total(np.zeros(3)))
import scipy.linalg.cython_blas, scipy.signal
print(scipy.signal.medfilt(np.array([3.0, 9.0, 4.0])).tolist())
load_numba()
"""
    )
    assert printed.splitlines() == ["False", "1.0", "[3.0, 4.0, 4.0]"]


@pytest.mark.parametrize("script", ["transcribe", "evaluate", "tilescribe"])
def test_help_comes_without_loading_what_is_heavy(script: str, scripts: Path) -> None:
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(
        [scripts / script, "--help"], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.startswith("Usage: ")
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    heavy = {
        "torch",
        "numpy",
        "numba",
        "scipy",
        "whisper",
        "librosa",
        "av",
        "jiwer",
        "tqdm",
        "msgspec",
        "openvino",
    }
    assert not imported & heavy
