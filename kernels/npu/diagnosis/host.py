"""What checks look at, the machine as its files show it; and what they say of it."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from kernels.processor import cpuinfo

_LARGEST_READ = 1 << 18  # bytes

State = Literal["ok", "note", "warning", "missing", "wrong", "unknown"]
STATES: tuple[State, ...] = get_args(State)


class Finding(NamedTuple):
    """What a check says.

    Attributes:
        state: `ok`; `note` (worth knowing, changes nothing); `warning` (may be in the NPU's way); `missing` and
            `wrong` (the NPU cannot be used); `unknown` (could not be read).
        found: what is there, in words that can stand alone.
        remedy: what to do, where something is amiss.
    """

    state: State
    found: str
    remedy: str | None = None

    def __str__(self) -> str:
        return f"{self.found}: {self.remedy}" if self.remedy else self.found

    @property
    def obstructs(self) -> bool:
        """Whether it keeps the NPU from being used."""
        return self.state in ("missing", "wrong")

    @property
    def moot(self) -> Finding:
        """The same without an NPU to use it: nothing to worry about, nothing to remedy."""
        return self if self.state == "ok" else note(self.found)


ok, note, warning, missing, wrong, unknown = (partial(Finding, state) for state in STATES)


@dataclass(frozen=True)
class Host:
    """The files of a machine, and what of the running process matters to the NPU.

    Paths are relative to `root`; whatever cannot be read counts as absent or unknown, and raises nothing.

    Attributes:
        root: where `/` is.
        interpreter: its path, and in `python` its version, (major, minor).
        import_path: where it looks for modules, as `sys.path`; not relative to `root`.
        memlock: soft and hard limit of locked memory in bytes, None for no limit; None where there is no such limit.
        user: effective user id, None where the system has none.
        groups: ids of the groups that the process is in.
    """

    root: Path
    platform: str
    environment: Mapping[str, str]
    python: tuple[int, int]
    interpreter: str
    import_path: tuple[str, ...]
    memlock: tuple[int | None, int | None] | None
    user: int | None
    groups: frozenset[int]

    @classmethod
    def here(cls, root: Path = Path("/")) -> Host:
        """This machine and this process."""
        unix = hasattr(os, "geteuid")
        return cls(
            root=root,
            platform=sys.platform,
            environment=os.environ,
            python=sys.version_info[:2],
            interpreter=sys.executable,
            import_path=tuple(sys.path),
            memlock=_memlock(),
            user=os.geteuid() if unix else None,
            groups=frozenset((*os.getgroups(), os.getegid())) if unix else frozenset(),
        )

    def exists(self, path: str | Path) -> bool:
        """Whether something is there, as far as this user can see."""
        # Path.exists raises where a folder above cannot be entered
        return os.path.exists(self.root / path)

    def text(self, path: str | Path) -> str | None:
        """What a small text file says, stripped; None where it cannot be read."""
        try:
            with open(self.root / path, "rb") as file:
                return file.read(_LARGEST_READ).decode("utf-8", "replace").replace("\0", " ").strip()
        except OSError:
            return None

    def search(self, path: str | Path, pattern: str) -> re.Match[str] | None:
        """Where a small text file has a pattern, whose ^ and $ are the ends of a line."""
        return re.search(pattern, self.text(path) or "", re.MULTILINE)

    def number(self, path: str | Path) -> int | None:
        """The number in a file, with its prefix (0x1022); None where there is none."""
        try:
            return int(self.text(path) or "", 0)
        except ValueError:
            return None

    def link(self, path: str | Path) -> str | None:
        """The last part of what a symbolic link points to; None where it is none."""
        try:
            return os.path.basename(os.readlink(self.root / path))
        except OSError:
            return None

    def matches(self, *patterns: str) -> list[Path]:
        """What fits each shell pattern in turn, sorted."""
        return files(self.root, *patterns)

    def shown(self, path: Path) -> str:
        """A path as a user of the machine writes it."""
        return f"/{path.relative_to(self.root)}" if path.is_relative_to(self.root) else str(path)

    @cached_property
    def processor(self) -> dict[str, str]:
        """See `kernels.processor.cpuinfo`."""
        return cpuinfo(self.root)

    @cached_property
    def release(self) -> str | None:
        """The kernel's, such as 6.18.2-generic."""
        return self.text("proc/sys/kernel/osrelease")

    @property
    def linux(self) -> tuple[int, int] | None:
        """The first two numbers of the kernel's release; None where they cannot be read."""
        numbers = re.match(r"(\d+)\.(\d+)", self.release or "")
        return (int(numbers[1]), int(numbers[2])) if numbers else None

    @property
    def is_phoenix(self) -> bool:
        """Whether the processor is of the family that can have an XDNA1 NPU; some Phoenix and Hawk Point have none."""
        family, model = self.processor.get("cpu family"), self.processor.get("model", "")
        return family == "25" and model.isdecimal() and 0x70 <= int(model) <= 0x7F

    @property
    def is_wsl(self) -> bool:
        """Whether this is Linux under Windows."""
        return "microsoft" in (self.release or "").lower()

    @property
    def is_virtual(self) -> bool:
        """Whether the processor or the kernel says that this is a virtual machine."""
        return self.is_wsl or "hypervisor" in self.processor.get("flags", "").split()

    @property
    def in_container(self) -> bool:
        """Whether container engines have left their marks."""
        marks = (".dockerenv", "run/.containerenv", "run/systemd/container")
        engines = r"docker|kubepods|lxc|libpod"
        return any(map(self.exists, marks)) or bool(self.search("proc/1/cgroup", engines))


def files(folder: Path, *patterns: str) -> list[Path]:
    """What fits each shell pattern in turn in a folder, sorted; folders that cannot be read hold nothing."""
    return [folder / name for pattern in patterns for name in sorted(glob.glob(pattern, root_dir=folder))]


def _memlock() -> tuple[int | None, int | None] | None:
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    limits = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    soft, hard = (None if limit == resource.RLIM_INFINITY else limit for limit in limits)
    return soft, hard
