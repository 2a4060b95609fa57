"""Checks of the built kernel, and of what builds one and tests its source: running a built kernel needs no tools."""

from __future__ import annotations

import os
import shutil
from importlib.machinery import PathFinder

from kernels.contract import TILE_SIZES
from kernels.npu.build import store
from kernels.npu.build.manifest import BuildError, Program
from kernels.npu.diagnosis.finding import Finding
from kernels.npu.diagnosis.machine import Machine
from kernels.npu.program.plan import SCORE_TYPES, Plan


def built_kernel() -> Finding:
    """Whether the default program is built and may be used, and which others are."""
    name = "xclbin"
    programs = [Program(s, plan) for s in SCORE_TYPES for plan in (*(Plan(s, t) for t in TILE_SIZES), None)]
    usable: list[str] = []
    refusals: list[BuildError] = []
    for program in programs:
        try:
            store.usable(program)
            usable.append(program.name)
        except BuildError as error:
            refusals.append(error)
    if programs[0].name in usable:
        return Finding(name, "ok", f"built from these sources in {store.folder()}: {', '.join(usable)}")
    cause, _, remedy = str(refusals[0]).rpartition(": ")
    there = any(store.folder().glob(f"{programs[0].name}-*-*"))
    return Finding(name, "wrong" if there else "missing", cause, remedy)


def host_compiler(machine: Machine) -> Finding:
    """A C++ compiler, which lets the tests run the kernel's source on the CPU. Optional."""
    name = "host compiler"
    for compiler in ("g++", "clang++"):
        path = shutil.which(compiler, path=machine.environment.get("PATH", ""))
        if path:
            return Finding(name, "ok", path)
    return Finding(
        name, "note", "no g++ or clang++; only the test of the kernel's source on the CPU needs one"
    )


def mlir_aie(machine: Machine) -> Finding:
    """mlir-aie, whose Python package is called aie. Only building a kernel needs it."""
    name = "mlir-aie"
    try:
        spec = PathFinder.find_spec("aie", list(machine.import_path))
    except (ImportError, OSError, ValueError):
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        if os.path.isdir(os.path.join(folder, "dialects")):
            return Finding(name, "ok", folder)
    return Finding(name, "note", "not installed; only building a kernel needs it")


def peano(machine: Machine) -> Finding:
    """Peano (llvm-aie), the compiler for AIE cores. Only building a kernel needs it."""
    name = "Peano"
    chosen = machine.environment.get("PEANO_INSTALL_DIR")
    if chosen:
        if os.path.exists(os.path.join(chosen, "bin", "clang++")):
            return Finding(name, "ok", f"{chosen} (PEANO_INSTALL_DIR)")
        return Finding(
            name,
            "warning",
            f"PEANO_INSTALL_DIR is {chosen}, where bin/clang++ is absent",
            "correct or unset it",
        )
    for folder in machine.import_path:
        place = os.path.join(folder, "llvm-aie")  # what its wheel installs
        if os.path.exists(os.path.join(place, "bin", "clang++")):
            return Finding(name, "ok", place)
    return Finding(name, "note", "not installed; only building a kernel needs it")
