"""Compiled code that is kept: rebuilt where it is damaged, done without where it can't be, run without its compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from places import ROOT

from kernels.compiled import Fixed, jit
from kernels.machine_code import ForeignCodeError, load

CODE = "import kernels.compiled\n@kernels.compiled.jit\ndef double(x):\n    return 2 * x\n"
RUN = "import double, logging, sys; logging.basicConfig(level='INFO'); print(double.double(21), 'numba' in sys.modules)"
COMPILED, LOADED = "42 True", "42 False"


def double(source: Path, kept: Path | str, limit: str = "", **environment: str) -> tuple[str, str]:
    """What a process prints that calls the function: its result, and whether it took numba; and what it says."""
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
    assert result == COMPILED
    assert "compiling the kernels" in said
    return folder


def test_the_next_process_has_it_and_does_not_load_what_compiles(source: Path) -> None:
    assert double(source, source / "kept") == (LOADED, "")


def test_another_source_is_compiled(source: Path, tmp_path: Path) -> None:
    (tmp_path / "double.py").write_text(CODE.replace("2 * x", "x + x"))
    assert double(tmp_path, source / "kept")[0] == COMPILED


def test_the_oldest_are_removed(source: Path, tmp_path: Path) -> None:
    for number in range(40):
        for name in ("double", "other"):
            (tmp_path / f"{name}-{number}.code").touch()
            os.utime(tmp_path / f"{name}-{number}.code", (number, number))
    double(source, tmp_path)
    assert len(list(tmp_path.glob("other-*"))) == 40
    left = {path.stem for path in tmp_path.glob("double-*")}
    assert len(left) == 32
    assert {f"double-{number}" for number in range(9, 40)} < left


def damaged(data: bytes, how: str) -> bytes:
    if how == "overwritten":
        return bytes(len(data))
    if how == "changed":
        return data[:-200] + bytes([data[-200] ^ 1]) + data[-199:]
    return data[: {"empty": 0, "cut": len(data) // 2}[how]]


@pytest.mark.parametrize("how", ["empty", "cut", "overwritten", "changed"])
def test_what_is_damaged_is_compiled_again(how: str, source: Path, tmp_path: Path) -> None:
    shutil.copytree(source / "kept", tmp_path, dirs_exist_ok=True)
    for file in tmp_path.iterdir():
        file.write_bytes(damaged(file.read_bytes(), how))
    result, said = double(source, tmp_path)
    assert result == COMPILED
    assert "can't be kept" not in said
    assert double(source, tmp_path) == (LOADED, "")


@pytest.mark.parametrize("named", ["/dev/null", ""])
def test_where_nothing_can_be_kept_it_is_compiled_and_told_once(named: str, tmp_path: Path) -> None:
    (tmp_path / "double.py").write_text(CODE)
    (tmp_path / "__pycache__").touch()  # a file in the folder's place; root may write anywhere else
    result, said = double(tmp_path, named, HOME="/dev/null", XDG_CACHE_HOME="/dev/null")
    assert result == COMPILED
    assert said.count("can't be kept") == 1
    assert f"{named or tmp_path / '__pycache__'}: File exists" in said


def test_a_full_disk_costs_no_result(source: Path, tmp_path: Path) -> None:
    result, said = double(source, tmp_path, "ulimit -f 1")
    assert result == COMPILED
    assert said.count("can't be kept") == 1
    assert "File too large" in said
    assert not list(tmp_path.iterdir())


class Pair(NamedTuple):
    numbers: Any
    factor: int


@jit
def total(x: Any, half: Any, whole: Any, pair: Any, negative: Any) -> Any:
    found = np.float64(half) + whole
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            found += x[i, j] * pair.factor * pair.numbers[j]
    pair.numbers[0] = found
    return np.int64(-found if negative else found)


def test_arguments_of_every_kind_arrive() -> None:
    x = np.arange(12, dtype=np.int16).reshape(3, 4)
    numbers = np.array([1, 2, 3], np.uint8)
    for array in (x[:, :3], np.ascontiguousarray(x[:, :3]), np.asfortranarray(x[:, :3]), x[::-1, 2::-1]):
        expected = int((array.astype(int) * numbers.astype(int)).sum()) * 10 + 3
        for negative in (False, True):
            pair = Pair(numbers.astype(np.float64), 10)
            given = total(array, np.float32(0.5), 2.5, Fixed(pair), negative)
            assert given == (-expected if negative else expected)
            assert pair.numbers[0] == expected
    assert total(x, np.float32(0), 0.0, Pair(np.ones(4), -3), np.True_) == 3 * x.sum()


@jit
def triple(x: Any) -> Any:
    return 3 * x


@pytest.mark.parametrize(
    "problem", [ForeignCodeError("a reference of kind 2"), OSError("no memory for code")]
)
def test_code_that_cannot_be_put_into_memory_here_is_run_where_numba_put_it(
    problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(code: bytes, name: str) -> int:
        raise problem

    monkeypatch.setattr("kernels.compiled.load", refuse)
    monkeypatch.setattr(triple, "_ready", {})
    assert triple(7) == 21


@jit
def allocating(x: Any) -> Any:
    return np.empty(x).shape[0]


def test_a_function_that_allocates_is_refused() -> None:
    with pytest.raises(ValueError, match="it allocates"):
        allocating(7)


@pytest.mark.parametrize("code", [b"", b"\x7fELF\x02\x01", b"\x7fELF\x02\x01" + bytes(100), bytes(500)])
def test_what_is_no_object_is_refused(code: bytes) -> None:
    with pytest.raises(ValueError, match=r"no object|unpack"):
        load(code, "double")
