"""The workflows, as far as they can be checked without running them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from places import ROOT

from kernels.npu.build.toolchain import MLIR_AIE_VERSION

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_the_kernels_are_built_with_the_release_that_the_design_is_written_for() -> None:
    text = (ROOT / ".github" / "workflows" / "kernels.yml").read_text()
    assert re.findall(r"MLIR_AIE_VERSION: (\S+)", text) == [MLIR_AIE_VERSION]


def test_the_build_scripts_options_are_its_own() -> None:
    text = (ROOT / ".github" / "workflows" / "kernels.yml").read_text()
    used = {
        option
        for line in re.findall(r"scripts/build_xclbin (.*)", text)
        for option in re.findall(r"--[a-z-]+", line)
    }
    help_text = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "build_xclbin"), "--help"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert used == {"--all", "--output", "--install"}
    assert all(re.search(rf"{option}\b", help_text) for option in used)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_workflow_is_well_formed(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert {"name", "jobs", "permissions"} <= set(workflow)
    for job in workflow["jobs"].values():
        assert job["runs-on"] == "ubuntu-24.04"
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
