"""Checks of XRT's Python bindings, which are built for one Python version and are not on the package index."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from kernels.npu.diagnosis.finding import Answer, missing, ok, unknown, wrong
from kernels.npu.diagnosis.host import Host, files
from kernels.npu.diagnosis.system import DRIVER_SOURCE
from kernels.npu.diagnosis.xrt import OWN_PREFIX

SYSTEM_PYTHON = (
    f"{OWN_PREFIX}/python",
    "usr/lib/python3/dist-packages",
    "usr/lib*/python3.*/site-packages",
    "usr/local/lib*/python3.*/*-packages",
)
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


def pyxrt(host: Host) -> Answer:
    """XRT's Python bindings: built for this Python, on its path, importable, and really XRT's."""
    modules = [module for folder in host.import_path for module in files(Path(folder or "."), "pyxrt*")]
    reachable = [module for module in modules if _fits(module, host.python)]
    if reachable:
        return _probe(host, reachable[0])
    elsewhere = [
        module
        for pattern in SYSTEM_PYTHON
        for folder in host.matches(pattern)
        for module in files(host.path(folder), "pyxrt*")
    ]
    running = ".".join(map(str, host.python))
    fitting = [module for module in elsewhere if _fits(module, host.python)]
    if fitting:
        module = fitting[0]
        shown = host.shown(module)
        remedy = f"link it into this environment: ln -s {shown} {_site_packages(host)}/"
        if module.is_relative_to(host.path(OWN_PREFIX)):
            remedy = f"run `source /{OWN_PREFIX}/setup.sh` in this shell"
        return missing(f"pyxrt is in {shown}, which Python does not search", remedy)
    others = sorted({version for module in (*modules, *elsewhere) if (version := _built_for(module))})
    if others:
        built = ", ".join(f"{major}.{minor}" for major, minor in others)
        usable = [version for version in others if version >= (3, 11)]
        remedy = f"build XRT inside an activated environment of Python {running}; it takes that Python"
        if usable:
            major, minor = usable[-1]
            remedy = f"make Tilescribe's environment with Python {major}.{minor}, or {remedy}"
        return wrong(f"pyxrt is built for Python {built}, and this is {running}", remedy)
    tracer = _x_ray_tracer(host)
    if tracer is not None:
        return missing(
            f"there is no pyxrt; the package xrt in {host.shown(tracer)} is an X-ray tracer, not XRT",
            "python3-xrt is that tracer on Debian up to 13 and Ubuntu up to 24.04: "
            f"take XRT from {DRIVER_SOURCE} instead",
        )
    return missing(
        "XRT's Python bindings (pyxrt) are not installed",
        "they come with XRT; the Python package index does not have them",
    )


def _probe(host: Host, module: Path) -> Answer:
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
            "install XRT, its plugin and its Python bindings from one source and of one version",
        )
    answer = json.loads(reply.partition("\n")[0])
    if "error" in answer:
        error_text = " ".join(str(answer["error"]).split())
        remedy = "install XRT and its Python bindings from one source and of one version"
        if "libxrt" in error_text and "cannot open shared object file" in error_text:
            remedy = f"run `source /{OWN_PREFIX}/setup.sh` in this shell, so that XRT's libraries are found"
        return wrong(f"{shown} cannot be imported ({error_text})", remedy)
    if answer["lacking"]:
        return wrong(
            f"{answer['file'] or shown} is not XRT's pyxrt, or too old: it has no {', '.join(answer['lacking'])}",
            "remove it, or put XRT's before it on PYTHONPATH",
        )
    if answer["devices"] == 0:
        return wrong(
            "pyxrt works, but XRT finds no device",
            "`xrt-smi examine` says more; driver, XRT and its plugin have to be of fitting versions",
        )
    devices = {None: "", 1: "; XRT finds 1 device"}.get(
        answer["devices"], f"; XRT finds {answer['devices']} devices"
    )
    return ok(shown + devices)


def _built_for(module: Path) -> tuple[int, int] | None:
    """The Python version that an extension module is built for, where its name says so."""
    tag = re.fullmatch(r"pyxrt\.cpython-(\d)(\d+)\w*-.+\.so", module.name)
    return (int(tag[1]), int(tag[2])) if tag else None


def _fits(module: Path, python: tuple[int, int]) -> bool:
    """Whether this Python would take a file or folder for the module pyxrt."""
    if module.name in ("pyxrt.so", "pyxrt.abi3.so", "pyxrt.py"):
        return True
    return _built_for(module) == python or (module.name == "pyxrt" and os.path.exists(module / "__init__.py"))


def _x_ray_tracer(host: Host) -> Path | None:
    """The package xrt of the X-ray tracer of that name, known by its ray-tracing backend."""
    system = [host.path(folder) for pattern in SYSTEM_PYTHON for folder in host.matches(pattern)]
    for folder in (*map(Path, host.import_path), *system):
        if os.path.isdir(folder / "xrt" / "backends" / "raycing"):
            return folder / "xrt"
    return None


def _site_packages(host: Host) -> str:
    return next((folder for folder in host.import_path if folder.endswith("site-packages")), "site-packages")
