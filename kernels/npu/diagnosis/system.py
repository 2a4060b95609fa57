"""Checks around the NPU: system, processor, virtualisation, limits; the built kernel, and what builds one."""

from __future__ import annotations

import os
import shutil

from kernels.contract import SCORE_TYPES, TILE_SIZES
from kernels.npu.build import store
from kernels.npu.build.store import BuildError, NoBuildError, Program
from kernels.npu.diagnosis.host import Finding, Host, missing, note, ok, unknown, warning, wrong
from kernels.npu.program.plan import Plan

DRIVER_SOURCE = "github.com/amd/xdna-driver"
NEWER_LINUX = "boot Linux 6.18 or later (Debian 13: apt install -t trixie-backports linux-image-amd64)"
HEAP = 64 << 20
"""Bytes that XRT's plugin maps and locks at one go when it opens the device (AIE2_DEVM_SIZE of the driver)."""


def system(host: Host) -> Finding:
    """Operating system and kernel. amdxdna is in Linux since 6.14; its own repository supports 6.10 and later."""
    if host.platform == "win32":
        return wrong(
            "the NPU is used through Linux; on Windows this project's runtime was never run. Others run mlir-aie 1.4.2 "
            "there, with XRT 2.21.75 and driver 32.0.20101.3760 on a Phoenix; AMD's own Whisper demo fails with "
            "0xc01e0009 where xrt-smi validate passes",
            "use Linux 6.18 or later",
        )
    if not host.platform.startswith("linux"):
        return wrong(f"the NPU is used through Linux; this is {host.platform}", "use Linux 6.18 or later")
    pretty = host.search("etc/os-release", r'^PRETTY_NAME="?(.*?)"?$')
    found = f"{pretty[1] if pretty else 'Linux'}, kernel {host.release or 'unknown'}"
    if host.linux is None:
        return unknown(found)
    if host.linux >= (6, 14) or host.exists("sys/module/amdxdna"):
        return ok(found)
    if host.linux >= (6, 10):
        return warning(
            f"{found}, which has no amdxdna driver of its own (6.14 has)",
            f"{NEWER_LINUX}, or install the driver of {DRIVER_SOURCE}",
        )
    return wrong(f"{found}, which is too old for the NPU's driver", NEWER_LINUX)


def processor(host: Host) -> Finding:
    """The processor's model."""
    found = host.processor.get("model name")
    if not found:
        return unknown("its model cannot be read from /proc/cpuinfo")
    return ok(f"{found} (Phoenix or Hawk Point)") if host.is_phoenix else note(found)


def virtualisation(host: Host) -> Finding:
    """Signs of a virtual machine or container, where a device has to be passed on to be seen."""
    signs = []
    if host.is_virtual:
        product = "WSL" if host.is_wsl else host.text("sys/class/dmi/id/product_name")
        signs.append("a virtual machine" + (f" ({product})" if product else ""))
    if host.in_container:
        signs.append("a container")
    return note(", ".join(signs)) if signs else ok("no sign of a virtual machine or container")


def locked_memory(host: Host) -> Finding:
    """The limit of locked memory. Opening the device maps and locks 64 MiB; XRT's documentation asks for no limit."""
    if host.memlock is None:
        return unknown("this system has no such limit")
    soft, hard = host.memlock
    if soft is None:
        return ok("no limit")
    found = f"limit {soft >> 10} KiB"
    capabilities = host.search("proc/self/status", r"^CapEff:\s*([0-9a-fA-F]+)$")
    if capabilities and int(capabilities[1], 16) >> 14 & 1:  # CAP_IPC_LOCK, as root has
        return ok(f"{found}, from which this user is exempt")
    remedy = (
        "write `* - memlock unlimited` into /etc/security/limits.d/99-amdxdna.conf and log in again "
        "(Fedora: also LimitMEMLOCK=infinity for user@.service)"
    )
    if hard is None or hard > 2 * HEAP:
        remedy = f"run `ulimit -l {'unlimited' if hard is None else hard >> 10}` in this shell; to keep it, {remedy}"
    if host.in_container:
        remedy = "start the container with --cap-add IPC_LOCK --ulimit memlock=-1"
    if soft < HEAP:
        return wrong(f"{found} of locked memory, where the NPU needs {HEAP >> 10}", remedy)
    if soft < 2 * HEAP:
        return warning(f"{found}, hardly more than the {HEAP >> 10} KiB of an open NPU", remedy)
    return ok(found)


def built_kernel() -> Finding:
    """Whether the default program is built and may be used, and which others are."""
    programs = [Program(of) for s in SCORE_TYPES for of in (*(Plan(s, t) for t in TILE_SIZES), s)]
    usable, default = [], Program(Plan()).name
    for program in programs:
        try:
            store.usable(program)
            usable.append(program.name)
        except BuildError as error:
            if program.name == default:
                cause, _, remedy = str(error).rpartition(": ")
                return (missing if isinstance(error, NoBuildError) else wrong)(cause, remedy)
    return ok(f"built from these sources in {store.folder()}: {', '.join(usable)}")


def host_compiler(host: Host) -> Finding:
    """A C++ compiler, which lets the tests run the kernel's source on the CPU. Optional."""
    for compiler in ("g++", "clang++"):
        path = shutil.which(compiler, path=host.environment.get("PATH", ""))
        if path:
            return ok(path)
    return note("no g++ or clang++; only the test of the kernel's source on the CPU needs one")


def mlir_aie(host: Host) -> Finding:
    """mlir-aie, whose Python package is called aie. Only building a kernel needs it."""
    return _package(host, "aie", "dialects")


def peano(host: Host) -> Finding:
    """Peano (llvm-aie), the compiler for AIE cores. Only building a kernel needs it."""
    chosen = host.environment.get("PEANO_INSTALL_DIR")
    if not chosen:
        return _package(host, "llvm-aie", "bin/clang++")  # where its wheel puts it
    if os.path.exists(os.path.join(chosen, "bin", "clang++")):
        return ok(f"{chosen} (PEANO_INSTALL_DIR)")
    return warning(f"PEANO_INSTALL_DIR is {chosen}, where bin/clang++ is absent", "correct or unset it")


def _package(host: Host, name: str, needed: str) -> Finding:
    for folder in host.import_path:
        place = os.path.join(folder or os.getcwd(), name)
        if os.path.exists(os.path.join(place, needed)):
            return ok(place)
    return note("not installed; only building a kernel needs it")
