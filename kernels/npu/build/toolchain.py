"""The tools that make an xclbin: mlir-aie (IRON, aiecc, aie_api's headers), Peano, and XRT's xclbinutil.

None of them comes from the Python package index. Where one is lacking, the error names it and says how to get it from
its project. Compiler flags follow mlir-aie's `python/utils/compile/utils.py`, aiecc's options its
`tools/aiecc/CommandLineOptions.h`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kernels.npu.build.store import XCLBIN, BuildError, Program, instructions_name

MLIR_AIE_VERSION = "1.4.2"  # the release that the design is written for
LLVM_AIE_VERSION = "21.0.0.2026080301+c9c5ecb7"  # the Peano that it was released with
MLIR_AIE_REMEDY = (
    f"python -m pip install mlir_aie=={MLIR_AIE_VERSION} "
    f"-f https://github.com/Xilinx/mlir-aie/releases/expanded_assets/v{MLIR_AIE_VERSION}, "
    "or set MLIR_AIE_INSTALL_DIR"
)
PEANO_REMEDY = (
    f"python -m pip install llvm-aie=={LLVM_AIE_VERSION} "
    "-f https://github.com/Xilinx/llvm-aie/releases/expanded_assets/nightly, or set PEANO_INSTALL_DIR"
)
XCLBINUTIL_REMEDY = (
    "it comes with XRT (Ubuntu: sudo add-apt-repository ppa:amd-team/xrt && sudo apt install libxrt-utils), "
    "or set AIE_XCLBINUTIL"
)

COMPILE_FLAGS = (
    "--target=aie2-none-unknown-elf", "-std=c++20", "-O2", "-DNDEBUG",
    # Each function's frame, for `elf.py`: on AIE2 the stack grows into the buffers.
    "-fstack-size-section",
    # aie_api would include Vitis's adf.h, which Peano has not.
    "-D__AIE_API_AIE_ADF_HPP__",
    "-Wno-parentheses", "-Wno-attributes", "-Wno-macro-redefined", "-Wno-empty-body",
)  # fmt: skip

ROOT = Path(__file__).resolve().parents[3]
AIE = ROOT / "kernels" / "npu" / "program" / "aie"


class ToolLackingError(BuildError):
    """A tool that is not installed; the text says which one and how to get it."""


@dataclass(frozen=True)
class Toolchain:
    """Where the tools are: mlir-aie's compiler driver and its headers with aie_api, Peano's folder, XRT's packager.

    `bindings` is the folder of the Python package `aie`, where it is not importable as it stands.
    """

    aiecc: Path
    headers: Path
    bindings: Path | None
    peano: Path
    xclbinutil: Path
    versions: dict[str, str]

    def environment(self) -> dict[str, str]:
        """Variables for the design's Python and for aiecc, which looks for xclbinutil on PATH."""
        paths = (ROOT, self.bindings, os.environ.get("PYTHONPATH"))
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path),
            "PATH": f"{self.xclbinutil.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PEANO_INSTALL_DIR": str(self.peano),
        }

    def compile_command(self, program: Program, target: Path) -> list[str]:
        """Peano's command that compiles the cores' functions."""
        scores = f"-DSCORES_INT8={int(program.scores == 'int8')}"
        kind = f"-DTILE_SIZE={program.plan.tile_size}" if program.plan else "-DSINGLE_TILE"
        return [
            str(self.peano / "bin" / "clang++"), *COMPILE_FLAGS, f"-I{self.headers}", kind, scores,
            "-c", str(AIE / "kernel.cc"), "-o", str(target),
        ]  # fmt: skip

    def design_command(self, program: Program, heads: int) -> list[str]:
        """The command that prints the program's MLIR."""
        options = [*program.options.split(), "--heads", str(heads)] if program.plan else ["--single-tile"]
        return [sys.executable, str(AIE / "design.py"), *options]

    def aiecc_command(self, heads: int, work: Path, stage: Path, *, with_xclbin: bool) -> list[str]:
        """The command that makes a run's instructions, in `stage`, from the design in `work`; and the program itself.

        Buffers are laid out in sequence: the default scheme keeps each within one of a core's four banks of 16 KiB, and
        key and value tiles are larger.
        """
        program = ["--get-xclbin", f"--xclbin-name={stage / XCLBIN}"] if with_xclbin else []
        return [
            str(self.aiecc), *program, "--get-npu-insts", f"--npu-insts-name={stage / instructions_name(heads)}",
            f"--peano={self.peano}", "--alloc-scheme=basic-sequential", f"--tmpdir={work / f'aiecc_{heads}'}",
            str(work / f"design_{heads}.mlir"),
        ]  # fmt: skip


def find(*, any_version: bool = False) -> Toolchain:
    """Find the tools: by their variables, as wheels of this Python, or on PATH.

    Raises:
        ToolLackingError: one is not there, or is of another version than the pinned one and any was not asked for.
    """
    include = headers()
    root = include.parent
    aiecc = _first(os.environ.get("AIECC_PATH"), root / "bin" / "aiecc", shutil.which("aiecc"))
    if aiecc is None:
        raise ToolLackingError(f"aiecc is not in {root / 'bin'}: {MLIR_AIE_REMEDY}")
    peano = _folder("PEANO_INSTALL_DIR", "bin/clang++", "Peano", PEANO_REMEDY, _peano(root))
    xclbinutil = _first(
        os.environ.get("AIE_XCLBINUTIL"), shutil.which("xclbinutil"), "/opt/xilinx/xrt/bin/xclbinutil"
    )
    if xclbinutil is None:
        raise ToolLackingError(f"xclbinutil is not installed: {XCLBINUTIL_REMEDY}")
    versions = {
        "mlir_aie": _version("mlir_aie", aiecc, "--aie-version"),  # --version is LLVM's
        "aiecc": "; ".join(_said(aiecc, "--aie-version")),
        "peano": _version("llvm-aie", peano / "bin" / "clang++", "--version"),
        "python": ".".join(map(str, sys.version_info[:3])),
    }
    if not any_version:
        number, commit = re.escape(MLIR_AIE_VERSION), LLVM_AIE_VERSION.partition("+")[2]
        _check_pin("mlir-aie", versions["mlir_aie"], rf"(?<![\w.]){number}(?!\w|\.\d)", MLIR_AIE_REMEDY)
        _check_pin("Peano", versions["peano"], rf"\b{commit}", PEANO_REMEDY)
    bindings = root / "python" if importlib.util.find_spec("aie") is None else None
    return Toolchain(aiecc, include, bindings, peano, xclbinutil, versions)


def headers() -> Path:
    """mlir-aie's folder of headers, with aie_api's.

    Raises:
        ToolLackingError: mlir-aie or they are not there.
    """
    include = (
        _folder("MLIR_AIE_INSTALL_DIR", "python/aie", "mlir-aie", MLIR_AIE_REMEDY, _mlir_aie()) / "include"
    )
    if not (include / "aie_api").is_dir():
        raise ToolLackingError(f"aie_api's headers are not in {include}: {MLIR_AIE_REMEDY}")
    return include


def _folder(variable: str, needed: str, name: str, remedy: str, candidates: Iterable[Path]) -> Path:
    """Where a tool is installed: the folder that a variable names, else the first candidate with what is needed."""
    chosen = os.environ.get(variable)
    for root in [Path(os.path.expanduser(chosen))] if chosen else candidates:
        if (root / needed).exists():
            return root
        if chosen:
            raise ToolLackingError(f"{variable} is {root}, which has no {needed}: {remedy}")
    raise ToolLackingError(f"{name} is not installed: {remedy}")


def _mlir_aie() -> Iterator[Path]:
    """Where its packages are, by either of their names."""
    for name, up in (("aie", 2), ("mlir_aie", 0)):
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations if spec else None) or ():
            yield Path(place, *[".."] * up).resolve()


def _peano(mlir_aie: Path) -> Iterator[Path]:
    """Where its wheel is, or would be beside mlir-aie's."""
    try:
        yield Path(str(importlib.metadata.distribution("llvm-aie").locate_file("llvm-aie")))
    except importlib.metadata.PackageNotFoundError:
        yield mlir_aie.parent / "llvm-aie"


def _first(*paths: str | Path | None) -> Path | None:
    return next((Path(path) for path in paths if path and Path(path).is_file()), None)


def _version(distribution: str, tool: Path, option: str) -> str:
    """Of a tool's wheel; where it has none, the first line of what it says of itself."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(distribution)
    return next(iter(_said(tool, option)), "unknown")


def _said(tool: Path, option: str) -> list[str]:
    """The lines that a tool prints of its version."""
    try:
        done = subprocess.run([tool, option], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolLackingError(f"{tool} {option} fails ({error}): install it again") from error
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _check_pin(name: str, found: str, pinned: str, remedy: str) -> None:
    """Refuse a version in whose name there is nothing of this pattern."""
    if not re.search(pinned, found):
        raise ToolLackingError(
            f"{name} is {found}; the kernels are built with another one: {remedy}, or build with this one by "
            "--any-version"
        )
