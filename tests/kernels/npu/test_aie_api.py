"""The AIE2 source through AMD's own aie_api, where its headers are: the host kernel's tests, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from standins import aie_api

TESTS = ("test_host_kernel.py", "test_xrt.py")


def test_the_host_tests_pass_through_amds_own_headers() -> None:
    try:
        aie_api.headers(), aie_api.compiler()
    except aie_api.LackingError as error:
        pytest.skip(f"it needs AMD's aie_api and clang: {error}")
    here = Path(__file__).parent
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "standins.aie_api",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow",
    ]
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    done = subprocess.run(
        [*command, *(str(here / name) for name in TESTS), str(here.parent / "test_validation_batch.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("lacking", "says"),
    [
        ("headers", "TILESCRIBE_AIE_API is .*, which has no aie_api/aie.hpp"),
        ("mlir-aie", "TILESCRIBE_AIE_API names no folder of AMD's headers, and .*mlir"),
        ("clang", "clang is not installed"),
    ],
)
def test_what_is_lacking_is_named(
    lacking: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(aie_api.VARIABLE, raising=False)
    if lacking == "headers":
        monkeypatch.setenv(aie_api.VARIABLE, str(tmp_path))
    else:
        monkeypatch.setenv("MLIR_AIE_INSTALL_DIR", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(aie_api.LackingError, match=says):
        aie_api.compiler() if lacking == "clang" else aie_api.headers()
