"""Checks of XRT and its plugin for the NPU.

Layouts are those of XRT's own packages (/opt/xilinx/xrt: src/CMake/xrtVariables.cmake and setup.sh of
github.com/Xilinx/XRT) and of distributions' packages (/usr).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from kernels.npu.diagnosis.finding import Answer, missing, ok, warning
from kernels.npu.diagnosis.host import Host, files
from kernels.npu.diagnosis.system import DRIVER_SOURCE

OWN_PREFIX = "opt/xilinx/xrt"
LIBRARY_FOLDERS = (
    "usr/lib/*-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/lib/*-linux-gnu",
    "usr/local/lib*",
)


class _Xrt(NamedTuple):
    """An installation of XRT. `libraries` is the folder of its shared libraries."""

    where: Path
    libraries: Path
    version: str | None


def xrt(host: Host) -> Answer:
    """XRT itself: its own package, or the distribution's."""
    installed = _find_xrt(host)
    if installed is None:
        return missing(
            "XRT is not installed",
            f"install XRT and its amdxdna plugin: {DRIVER_SOURCE} says how; Ubuntu 26.04 and later have both as "
            "libxrt-npu2, with python3-xrt",
        )
    return ok(f"version {installed.version or 'unknown'} in {host.shown(installed.where)}")


def xrt_plugin(host: Host) -> Answer:
    """XRT's plugin for amdxdna (libxrt_driver_xdna), without which XRT finds no NPU."""
    installed = _find_xrt(host)
    if installed is None:
        return missing("XRT's amdxdna plugin is not installed", "it comes with XRT, see above")
    plugins = files(installed.libraries, "libxrt_driver_xdna.so.*")
    if not plugins:
        return missing(
            f"XRT has no amdxdna plugin (libxrt_driver_xdna.so in {host.shown(installed.libraries)})",
            f"install the plugin of XRT's version: {DRIVER_SOURCE} builds xrt_plugin-amdxdna; "
            "Ubuntu 26.04 and later have libxrt-npu2",
        )
    version = _library_version(plugins)
    if version and installed.version and _differ(version, installed.version):
        return warning(
            f"version {version}, where XRT is {installed.version}",
            "install XRT and the plugin from one source and of one version",
        )
    return ok(f"version {version or 'unknown'}")


def _find_xrt(host: Host) -> _Xrt | None:
    """XRT where XILINX_XRT says, in its own prefix, or among the system's libraries."""
    chosen = host.environment.get("XILINX_XRT")
    prefixes = (*([Path(chosen)] if chosen else []), host.path(OWN_PREFIX))
    system = (host.path(folder) for pattern in LIBRARY_FOLDERS for folder in host.matches(pattern))
    places = [(where, where / name) for where in prefixes for name in ("lib", "lib64")]
    for where, libraries in (*places, *((folder, folder) for folder in system)):
        found = files(libraries, "libxrt_coreutil.so.*")
        if found:
            return _Xrt(where, libraries, _json_version(where / "version.json") or _library_version(found))
    return None


def _differ(one: str, other: str) -> bool:
    """Whether major or minor versions differ, as far as both are known."""
    return any(a != b for a, b in zip(one.split(".")[:2], other.split(".")[:2], strict=False))


def _json_version(path: Path) -> str | None:
    try:
        version = json.loads(path.read_bytes())["BUILD_VERSION"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return version if isinstance(version, str) and version else None


def _library_version(libraries: list[Path]) -> str | None:
    """The longest of the versions in the names of a library and its links: .so.2.21.75 over .so.2."""
    return max((library.name.partition(".so.")[2] for library in libraries), key=len, default=None) or None
