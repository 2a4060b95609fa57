"""The versions that pyproject.toml declares: closed ranges, in which those lie that the tests are run with."""

from __future__ import annotations

import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
)


@pytest.mark.parametrize("declared", PROJECT["dependencies"], ids=str)
def test_a_dependency_has_both_ends_and_the_pinned_version_between_them(declared: str) -> None:
    wanted = Requirement(declared)
    pinned = {canonicalize_name(name): version for name, version in PINNED.items()}
    if wanted.name == "pip":  # whatever the environment was made with
        return
    assert wanted.specifier.contains(pinned[wanted.name])
    assert not wanted.specifier.contains("99999999")
