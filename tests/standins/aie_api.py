"""The AIE2 source through AMD's own aie_api, on the host: a plugin for the tests of the host-compiled kernel.

    TILESCRIBE_AIE_API=FOLDER pytest -p standins.aie_api tests/kernels/npu/test_host_kernel.py

FOLDER has `aie_api/aie.hpp`; without it the installed mlir-aie's is taken. clang compiles the source against these
headers and `aie2/`, which has the project's own bodies for the core's intrinsics.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from kernels.npu.build import host_kernel, toolchain

VARIABLE = "TILESCRIBE_AIE_API"
INTRINSICS = Path(__file__).with_name("aie2") / "intrinsics.hpp"
CLANGS = ("clang++", *(f"clang++-{version}" for version in range(30, 15, -1)))


class LackingError(Exception):
    """What is not on this machine, by its name."""


def headers() -> Path:
    """The folder that holds `aie_api`: what the variable names, or the installed mlir-aie's."""
    chosen = os.environ.get(VARIABLE)
    if chosen and not (Path(chosen) / "aie_api" / "aie.hpp").is_file():
        raise LackingError(f"{VARIABLE} is {chosen}, which has no aie_api/aie.hpp")
    if chosen:
        return Path(chosen).resolve()
    try:
        return toolchain.headers()
    except toolchain.ToolLackingError as error:
        raise LackingError(f"{VARIABLE} names no folder of AMD's headers, and {error}") from error


def compiler() -> str:
    """A clang that parses templates when they are used: aie_api's name much that no kernel of ours reaches."""
    found = next(filter(shutil.which, CLANGS), None)
    if found is None:
        raise LackingError("clang is not installed: apt install clang-19")
    return found


def flags() -> tuple[str, ...]:
    """What makes `host_kernel` compile against these headers."""
    include = headers()
    digest = hashlib.sha256()
    called: set[str] = set()
    for source in (*sorted(INTRINSICS.parent.iterdir()), *sorted((include / "aie_api").rglob("*.hpp"))):
        text = source.read_bytes()
        digest.update(text)
        if not {"aie1", "aie2p", "aie2ps"} & set(source.parts):
            called |= set(re.findall(r"(?<![\w>:])::(?!v\d)(\w+)\s*\(", text.decode()))
    front = user_cache_path("tilescribe") / "host" / f"aie_api-{digest.hexdigest()[:32]}.hpp"
    front.parent.mkdir(parents=True, exist_ok=True)
    unreached = "".join(f"UNREACHED({name})\n" for name in sorted(called))
    front.write_text(f'#include "{INTRINSICS}"\n{unreached}')
    return (
        "-fdelayed-template-parsing", "-w", "-DNDEBUG",
        "-fsanitize=alignment", "-fsanitize-trap=alignment",
        "-include", str(front), "-I", str(include),
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Let every host kernel of this run be compiled so."""
    os.environ["CXX"] = compiler()
    host_kernel._FLAGS = (*host_kernel._FLAGS, *flags())  # type: ignore[assignment]
