"""Checks of XRT, its plugin for the NPU, and its Python bindings.

Layouts are those of XRT's own packages (/opt/xilinx/xrt: src/CMake/xrtVariables.cmake and setup.sh of
github.com/Xilinx/XRT) and of distributions' packages (/usr). The bindings are built for one version of Python, and
are not on the package index.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from kernels.npu.diagnosis.host import Finding, Host, files, missing, ok, unknown, warning, wrong
from kernels.npu.diagnosis.system import DRIVER_SOURCE

OWN_PREFIX = "opt/xilinx/xrt"
LIBRARY_FOLDERS = (
    "usr/lib/*-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/lib/*-linux-gnu",
    "usr/local/lib*",
)
SYSTEM_PYTHON = (
    f"{OWN_PREFIX}/python",
    "usr/lib/python3/dist-packages",
    "usr/lib*/python3.*/site-packages",
    "usr/local/lib*/python3.*/*-packages",
)
DEBIAN = (
    "Debian 13: apt install -t trixie-backports python3-xrt libxrt-npu2 libxrt-utils-npu; Ubuntu 26.04 and later: "
    "the same packages"
)
ONE_SOURCE = "from one source and of one version"
NEEDED_NAMES = ("device", "xclbin", "hw_context", "kernel", "bo", "run", "ert_cmd_state")
"""What the NPU runtime takes from pyxrt."""
PROBE_SECONDS = 60
_MARK = "tilescribe-pyxrt:"

# In a process of its own: importing pyxrt loads XRT and its plugins, which may print, or end the process.
_PROBE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
try:
    import pyxrt
except BaseException as error:
    answer = {"error": f"{type(error).__name__}: {error}"}
else:
    answer = {"lacking": [name for name in json.loads(sys.argv[2]) if not hasattr(pyxrt, name)],
              "file": getattr(pyxrt, "__file__", None)}
    try:
        answer["devices"] = int(pyxrt.enumerate_devices())
    except BaseException:
        answer["devices"] = None
print(sys.argv[3] + json.dumps(answer), flush=True)
"""


class _Xrt(NamedTuple):
    where: Path
    libraries: Path
    version: str | None


def xrt(host: Host) -> Finding:
    """XRT itself: its own package, or the distribution's."""
    installed = _find_xrt(host)
    if installed is None:
        return missing(
            "XRT is not installed",
            f"install XRT with its amdxdna plugin and Python bindings ({DEBIAN}; elsewhere {DRIVER_SOURCE} says how)",
        )
    return ok(f"version {installed.version or 'unknown'} in {host.shown(installed.where)}")


def xrt_plugin(host: Host) -> Finding:
    """XRT's plugin for amdxdna (libxrt_driver_xdna), without which XRT finds no NPU."""
    installed = _find_xrt(host)
    if installed is None:
        return missing("XRT's amdxdna plugin is not installed", "it comes with XRT, see above")
    plugins = files(installed.libraries, "libxrt_driver_xdna.so.*")
    if not plugins:
        return missing(
            f"XRT has no amdxdna plugin (libxrt_driver_xdna.so in {host.shown(installed.libraries)})",
            f"install the plugin of XRT's version: {DRIVER_SOURCE} builds xrt_plugin-amdxdna; it is libxrt-npu2 in "
            "Debian 13's backports and in Ubuntu 26.04 and later",
        )
    version = _library_version(plugins)
    # Major and minor versions have to be the same, as far as both are known.
    parts = zip((version or "").split(".")[:2], (installed.version or "").split(".")[:2], strict=False)
    if version and installed.version and any(a != b for a, b in parts):
        return warning(
            f"version {version}, where XRT is {installed.version}", f"install XRT and the plugin {ONE_SOURCE}"
        )
    return ok(f"version {version or 'unknown'}")


def _find_xrt(host: Host) -> _Xrt | None:
    """XRT where XILINX_XRT says, in its own prefix, or among the system's libraries."""
    chosen = host.environment.get("XILINX_XRT")
    prefixes = (*([Path(chosen)] if chosen else []), host.root / OWN_PREFIX)
    places = [(where, where / name) for where in prefixes for name in ("lib", "lib64")]
    places += [(folder, folder) for folder in host.matches(*LIBRARY_FOLDERS)]
    for where, libraries in places:
        found = files(libraries, "libxrt_coreutil.so.*")
        if found:
            return _Xrt(where, libraries, _json_version(where / "version.json") or _library_version(found))
    return None


def _json_version(path: Path) -> str | None:
    try:
        version = json.loads(path.read_bytes())["BUILD_VERSION"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return version if isinstance(version, str) and version else None


def _library_version(libraries: list[Path]) -> str | None:
    """The longest of the versions in the names of a library and its links: .so.2.21.75 over .so.2."""
    return max((library.name.partition(".so.")[2] for library in libraries), key=len, default=None) or None


def pyxrt(host: Host) -> Finding:
    """XRT's Python bindings: built for this Python, on its path, importable, and really XRT's."""
    modules = [module for folder in host.import_path for module in files(Path(folder or "."), "pyxrt*")]
    for module in modules:
        if _fits(module, host.python):
            return _probe(host, module)
    system = host.matches(*SYSTEM_PYTHON)
    elsewhere = [module for folder in system for module in files(folder, "pyxrt*")]
    for module in elsewhere:
        if not _fits(module, host.python):
            continue
        shown = host.shown(module)
        packages = (folder for folder in host.import_path if folder.endswith("site-packages"))
        remedy = (
            "make the environment with --system-site-packages (`make clean setup` does), or link it into this one: "
            f"ln -s {shown} {next(packages, 'site-packages')}/"
        )
        if module.is_relative_to(host.root / OWN_PREFIX):
            remedy = f"run `source /{OWN_PREFIX}/setup.sh` in this shell"
        return missing(f"pyxrt is in {shown}, which Python does not search", remedy)
    others = sorted({version for module in (*modules, *elsewhere) if (version := _built_for(module))})
    if others:
        running, *built = (f"{major}.{minor}" for major, minor in (host.python, *others))
        remedy = f"build XRT inside an activated environment of Python {running}; it takes that Python"
        if others[-1] >= (3, 11):
            remedy = (
                f"make Tilescribe's environment with Python {built[-1]} and --system-site-packages (`make clean setup` "
                f"does where it is the system's), or {remedy}"
            )
        return wrong(f"pyxrt is built for Python {', '.join(built)}, and this is {running}", remedy)
    for folder in (*map(Path, host.import_path), *system):
        if os.path.isdir(folder / "xrt" / "backends" / "raycing"):  # its ray tracing
            return missing(
                f"there is no pyxrt; the package xrt in {host.shown(folder / 'xrt')} is an X-ray tracer, not XRT",
                "python3-xrt is that tracer on Debian up to 13 without backports and Ubuntu up to 24.04: take XRT's "
                f"({DEBIAN}; elsewhere {DRIVER_SOURCE} says how)",
            )
    return missing(
        "XRT's Python bindings (pyxrt) are not installed",
        f"they come with XRT ({DEBIAN}); the Python package index does not have them",
    )


def _probe(host: Host, module: Path) -> Finding:
    """Import pyxrt in a process of its own, and ask it for what the runtime uses."""
    shown = host.shown(module)
    arguments = (json.dumps(host.import_path), json.dumps(NEEDED_NAMES), _MARK)
    command = [host.interpreter, "-c", _PROBE, *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, env=dict(host.environment), timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return wrong(f"importing {shown} takes over {PROBE_SECONDS} s", "restart; the driver may hang")
    except OSError as error:
        return unknown(f"{shown} could not be tried ({error})")
    # XRT may print as well, and may fail on its way out, after the answer.
    _, mark, reply = done.stdout.decode("utf-8", "replace").rpartition(_MARK)
    if not mark:
        return wrong(
            f"importing {shown} ends Python (exit status {done.returncode})",
            f"install XRT, its plugin and its Python bindings {ONE_SOURCE}",
        )
    answer = json.loads(reply.partition("\n")[0])
    if "error" in answer:
        text = " ".join(str(answer["error"]).split())
        remedy = f"install XRT and its Python bindings {ONE_SOURCE}"
        if "libxrt" in text and "cannot open shared object file" in text:
            remedy = f"run `source /{OWN_PREFIX}/setup.sh` in this shell, so that XRT's libraries are found"
        return wrong(f"{shown} cannot be imported ({text})", remedy)
    if answer["lacking"]:
        return wrong(
            f"{answer['file'] or shown} is not XRT's pyxrt, or too old: it has no {', '.join(answer['lacking'])}",
            "remove it, or put XRT's before it on PYTHONPATH",
        )
    devices = answer["devices"]
    if devices == 0:
        return wrong(
            "pyxrt works, but XRT finds no device",
            "`xrt-smi examine` says more; driver, XRT and its plugin have to be of fitting versions",
        )
    return ok(shown if devices is None else f"{shown}; XRT finds {devices} device{'s' * (devices != 1)}")


def _built_for(module: Path) -> tuple[int, int] | None:
    """The Python version that an extension module is built for, where its name says so."""
    tag = re.fullmatch(r"pyxrt\.cpython-(\d)(\d+)\w*-.+\.so", module.name)
    return (int(tag[1]), int(tag[2])) if tag else None


def _fits(module: Path, python: tuple[int, int]) -> bool:
    """Whether this Python would take a file or folder for the module pyxrt."""
    if module.name in ("pyxrt.so", "pyxrt.abi3.so", "pyxrt.py"):
        return True
    return _built_for(module) == python or (module.name == "pyxrt" and os.path.exists(module / "__init__.py"))
