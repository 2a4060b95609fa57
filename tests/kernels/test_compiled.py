"""Compiled code that is kept: rebuilt where it is damaged, done without where it can't be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

CODE = "import kernels.compiled\n@kernels.compiled.jit\ndef double(x):\n    return 2 * x\n"
RUN = "import double, logging; logging.basicConfig(level='INFO'); d = double.double; print(d(21), *d.stats.cache_hits)"


def double(source: Path, kept: Path, limit: str = "", **environment: str) -> tuple[str, str]:
    """What a process prints that calls the function: its result, and a signature for what was kept; and says."""
    done = subprocess.run(
        ["bash", "-c", f'{limit}\nexec "$0" -c "$1"', sys.executable, RUN],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(source), str(ROOT))),
            "NUMBA_CACHE_DIR": str(kept),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The function's folder, with `kept` for what the first process keeps."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "double.py").write_text(CODE)
    result, said = double(folder, folder / "kept")
    assert result == "42"
    assert "compiling the kernels" in said
    return folder


def test_the_next_process_has_it(source: Path) -> None:
    assert double(source, source / "kept") == ("42 (int64,)", "")


def damaged(data: bytes, how: str) -> bytes:
    if how == "overwritten":
        return bytes(len(data))
    if how == "changed":
        return data[:-200] + bytes([data[-200] ^ 1]) + data[-199:]
    return data[: {"empty": 0, "cut": len(data) // 2}[how]]


@pytest.mark.parametrize("how", [".nbi cut", ".nbi overwritten", ".nbc empty", ".nbc changed", ".nbc gone"])
def test_what_is_damaged_is_compiled_again(how: str, source: Path, tmp_path: Path) -> None:
    shutil.copytree(source / "kept", tmp_path, dirs_exist_ok=True)
    suffix, how = how.split()
    (file,) = tmp_path.rglob(f"*{suffix}")
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(damaged(file.read_bytes(), how))
    result, said = double(source, tmp_path)
    assert result == "42"
    assert "can't be kept" not in said
    assert double(source, tmp_path) == ("42 (int64,)", "")


def test_where_nothing_can_be_kept_it_is_compiled_and_told_once(tmp_path: Path) -> None:
    (tmp_path / "double.py").write_text(CODE)
    (tmp_path / "__pycache__").touch()  # a file in the folder's place; root may write anywhere else
    nowhere = Path("/dev/null")
    result, said = double(tmp_path, nowhere, HOME="/dev/null", XDG_CACHE_HOME="/dev/null")
    assert result == "42"
    assert said.count("can't be kept") == 1
    assert "neither this program's folder nor the user's cache can be written" in said


def test_a_full_disk_costs_no_result(source: Path, tmp_path: Path) -> None:
    result, said = double(source, tmp_path, "ulimit -f 1")
    assert result == "42"
    assert said.count("can't be kept") == 1
    assert "File too large" in said
