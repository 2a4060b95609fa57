"""Checks of the built kernel, and of what builds one and tests its source: running a built kernel needs no tools."""

from __future__ import annotations

import os
import shutil
from importlib.machinery import PathFinder

from kernels.contract import SCORE_TYPES, TILE_SIZES
from kernels.npu.build import store
from kernels.npu.build.manifest import BuildError, Program
from kernels.npu.diagnosis.host import Answer, Host, missing, note, ok, warning, wrong
from kernels.npu.program.plan import Plan


def built_kernel() -> Answer:
    """Whether the default program is built and may be used, and which others are."""
    programs = [Program(of) for s in SCORE_TYPES for of in (*(Plan(s, t) for t in TILE_SIZES), s)]
    usable: list[str] = []
    refusals: list[BuildError] = []
    for program in programs:
        try:
            store.usable(program)
            usable.append(program.name)
        except BuildError as error:
            refusals.append(error)
    default = programs[0].name
    if default in usable:
        return ok(f"built from these sources in {store.folder()}: {', '.join(usable)}")
    cause, _, remedy = str(refusals[0]).rpartition(": ")
    return (wrong if any(store.folder().glob(f"{default}-*-*")) else missing)(cause, remedy)


def host_compiler(host: Host) -> Answer:
    """A C++ compiler, which lets the tests run the kernel's source on the CPU. Optional."""
    for compiler in ("g++", "clang++"):
        path = shutil.which(compiler, path=host.environment.get("PATH", ""))
        if path:
            return ok(path)
    return note("no g++ or clang++; only the test of the kernel's source on the CPU needs one")


def mlir_aie(host: Host) -> Answer:
    """mlir-aie, whose Python package is called aie. Only building a kernel needs it."""
    try:
        spec = PathFinder.find_spec("aie", list(host.import_path))
    except (ImportError, OSError, ValueError):
        spec = None
    for folder in (spec and spec.submodule_search_locations) or ():
        if os.path.isdir(os.path.join(folder, "dialects")):
            return ok(folder)
    return note("not installed; only building a kernel needs it")


def peano(host: Host) -> Answer:
    """Peano (llvm-aie), the compiler for AIE cores. Only building a kernel needs it."""
    chosen = host.environment.get("PEANO_INSTALL_DIR")
    if chosen:
        if os.path.exists(os.path.join(chosen, "bin", "clang++")):
            return ok(f"{chosen} (PEANO_INSTALL_DIR)")
        found = f"PEANO_INSTALL_DIR is {chosen}, where bin/clang++ is absent"
        return warning(found, "correct or unset it")
    for folder in host.import_path:
        place = os.path.join(folder, "llvm-aie")  # what its wheel installs
        if os.path.exists(os.path.join(place, "bin", "clang++")):
            return ok(place)
    return note("not installed; only building a kernel needs it")
