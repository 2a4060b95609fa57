"""What a command does to start sooner, in a process of its own."""

import subprocess
import sys


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


def test_a_commands_help_imports_none_of_the_heavy_libraries() -> None:
    heavy = {"torch", "whisper", "numba", "scipy", "av", "jiwer", "librosa"}
    printed = run(f"import sys, app.cli; print(sorted({heavy!r} & set(sys.modules)))")
    assert printed.strip() == "[]"
