"""Which Python the Makefile's setup takes, and that the environment sees a system's pyxrt."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

LACKS, HAS = "exit 1", "exit 0"


@pytest.mark.parametrize(
    ("pythons", "options", "made"),
    [
        ({"python3": LACKS, "python3.11": LACKS}, (), "python3.11 -m venv "),
        ({"python3": LACKS}, (), "python3 -m venv "),
        (
            {"python3": LACKS, "python3.11": LACKS, "python3.13": HAS},
            (),
            "python3.13 -m venv --system-site-packages ",
        ),
        ({"python3": HAS, "python3.11": LACKS}, (), "python3 -m venv --system-site-packages "),
        ({"python3": HAS, "python3.11": LACKS}, ("PYTHON=python3.11",), "python3.11 -m venv "),
        (
            {"python3": LACKS, "python3.12": HAS},
            ("PYTHON=python3.12",),
            "python3.12 -m venv --system-site-packages ",
        ),
    ],
)
def test_a_system_that_has_xrts_binding_is_found(
    tmp_path: Path, pythons: dict[str, str], options: tuple[str, ...], made: str
) -> None:
    for name, answer in pythons.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / name).chmod(0o755)
    for tool in ("sh", "make"):
        found = subprocess.run(["which", tool], capture_output=True, text=True, check=True).stdout.strip()
        (tmp_path / tool).symlink_to(os.path.realpath(found))
    command = ["make", "--dry-run", "setup", "VENV=/nowhere", *options]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    announced, first = (" ".join(line.split()) for line in done.stdout.splitlines()[:2])
    assert announced.startswith('echo "setting up /nowhere')
    assert first.removeprefix(f"{tmp_path}/") == f"{made}/nowhere"


@pytest.mark.parametrize("reached", [True, False])
def test_pytorch_for_the_cpu_alone_is_taken_where_pip_finds_it(tmp_path: Path, reached: bool) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncase "$*" in *+cpu) exit {0 if reached else 1};; esac\n'
    )
    python.chmod(0o755)
    command = ["make", "setup", f"VENV={tmp_path}", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    made, pip, first, rest = (
        line for line in (tmp_path / "asked").read_text().splitlines() if "import" not in line
    )
    assert re.fullmatch(f"-m venv .*{tmp_path}", made)
    assert pip.endswith("-c constraints.txt pip")
    assert re.search(r"-c constraints\.txt torch==[\d.]+\+cpu$", first)
    assert rest.endswith("--editable .[dev]")
    assert ("PIP_EXTRA_INDEX_URL=URL" in done.stdout) is not reached


def test_what_is_asked_of_a_python(tmp_path: Path) -> None:
    question = (ROOT / "Makefile").read_text().partition("HAS_XRT = -c '")[2].partition("'\n")[0]
    (tmp_path / "pyxrt.py").write_text("")
    for folder, code in ((tmp_path, 0), (tmp_path / "none", 1)):
        done = subprocess.run(
            [sys.executable, "-S", "-c", question],  # without the system's own pyxrt
            env={"PYTHONPATH": str(folder)},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (code, b"")
