"""A machine laid out as a folder, for the diagnosis to look at."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kernels.npu.diagnosis import Finding, Host

ADDRESS = "0000:c4:00.1"
NPU = f"sys/bus/pci/devices/{ADDRESS}"
XRT = "opt/xilinx/xrt"
PYXRT = f"{XRT}/python/pyxrt.py"
NOBODY = 65534
RENDER = 992
TAG = f"cpython-{sys.version_info[0]}{sys.version_info[1]}-x86_64-linux-gnu"
REAL_PYXRT = """
class device: ...
xclbin = hw_context = kernel = bo = run = ert_cmd_state = device
def enumerate_devices(): return 1
"""
CPUINFO = "model name\t: AMD Ryzen 7 7840U\ncpu family\t: 25\nmodel\t\t: 116\nflags\t\t: fpu svm\n\nprocessor\t: 1\n"


@dataclass(frozen=True)
class Tree:
    """A folder that stands for a machine."""

    root: Path

    def write(self, path: str, text: str = "") -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def remove(self, path: str) -> None:
        where = self.root / path
        shutil.rmtree(where) if where.is_dir() and not where.is_symlink() else where.unlink()

    def change(self, *changes: str) -> None:
        """`-path` removes, `path=text` writes, `path->target` links."""
        for change in changes:
            if change.startswith("-"):
                self.remove(change[1:])
                continue
            path, sign, rest = re.split(r"(->|=)", change, maxsplit=1)
            if sign == "=":
                self.write(path, rest)
            else:
                (self.root / path).parent.mkdir(parents=True, exist_ok=True)
                (self.root / path).symlink_to(rest)

    def host(self) -> Host:
        python = self.root / XRT / "python"
        return Host(
            root=self.root,
            platform="linux",
            environment={"PATH": ""},
            python=sys.version_info[:2],
            interpreter=sys.executable,
            import_path=(str(python),),
            memlock=(None, None),
            user=1000,
            groups=frozenset({1000, RENDER}),
        )


def lay_out_phoenix(tree: Tree) -> None:
    """Make it a machine with an NPU and all that it needs."""
    tree.change(
        'etc/os-release=NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 25.04"\n',
        f"etc/passwd=root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nno:x:{NOBODY}:1::/:\n",
        f"etc/group=root:x:0:\nrender:x:{RENDER}:\n",
        "proc/sys/kernel/osrelease=6.18.2-generic\n",
        f"proc/cpuinfo={CPUINFO}",
        "proc/cmdline=quiet splash\n",
        "proc/self/status=Name:\tpython\nCapEff:\t0000000000000000\n",
        "sys/bus/pci/devices/0000:00:00.0/vendor=0x1022\n",
        "sys/bus/pci/devices/0000:00:00.0/device=0x14e8\n",
        f"{NPU}/vendor=0x1022\n",
        f"{NPU}/device=0x1502\n",
        f"{NPU}/revision=0x00\n",
        f"{NPU}/fw_version=1.5.5.391\n",
        f"{NPU}/vbnv=RyzenAI-npu1\n",
        f"{NPU}/accel/accel0/dev=261:0\n",
        f"{NPU}/driver->../../../../bus/pci/drivers/amdxdna",
        f"{NPU}/iommu_group->../../../../kernel/iommu_groups/21",
        "sys/kernel/iommu_groups/21/type=DMA-FQ\n",
        "sys/module/amdxdna/version=0.1\n",
        "dev/accel/accel0=",
        "lib/firmware/amdnpu/1502_00/npu.sbin.zst=",
        f'{XRT}/version.json={{"BUILD_VERSION": "2.21.0"}}',
        *(
            f"{XRT}/lib/libxrt_{name}="
            for name in ("coreutil.so.2", "coreutil.so.2.21.0", "driver_xdna.so.2.21.0")
        ),
        f"{PYXRT}={REAL_PYXRT}",
    )


def built() -> Finding:
    return Finding("ok", "built from this source")


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may open everything; so as root, be somebody else for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
