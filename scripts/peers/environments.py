"""Where peers live: each in an environment of its own under the user's cache, so that nothing of theirs gets into ours.

An environment sees our packages (PyTorch, to export a model; NumPy, PyAV) behind its own, whose versions are pinned in
a file of `requirements`, without what ours has.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import platformdirs

INSTALL_SECONDS = 1800
"""whisper.cpp is compiled, on a small machine for minutes."""


class PeerError(Exception):
    """A peer that cannot be had; the text is one line."""


@dataclass(frozen=True)
class Environment:
    """One peer's.

    Attributes:
        requirements: what pip installs; the file is called after the peer.
        compiled: whether it is built for this processor from its source, with libraries of its own.
    """

    requirements: Path
    compiled: bool = False

    @property
    def name(self) -> str:
        """The peer's."""
        return self.requirements.stem

    @cached_property
    def folder(self) -> Path:
        """Another one for other requirements or another Python."""
        key = f"{sys.version.split()[0]} {sys.prefix} {self.requirements.read_text(encoding='utf-8')}"
        cache = os.environ.get("TILESCRIBE_CACHE") or platformdirs.user_cache_path("tilescribe")
        return Path(cache) / "peers" / f"{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"

    @property
    def packages(self) -> Path:
        """Its own, where compiled libraries lie as well."""
        base = str(self.folder)
        return Path(sysconfig.get_path("platlib", vars={"base": base, "platbase": base}))

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def variables(self) -> dict[str, str]:
        """With which its processes find the libraries; threads that wait for each other leave the processor."""
        return {"LD_LIBRARY_PATH": str(self.packages), "OMP_WAIT_POLICY": "passive"} if self.compiled else {}

    def install(self) -> None:
        """Make it, unless it is there.

        Raises:
            PeerError: pip cannot; the text has pip's last line.
        """
        ready = self.folder / ".ready"
        if ready.exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        run(self.name, [sys.executable, "-m", "venv", str(self.folder)])
        # Behind its own packages, which come first.
        (self.packages / "zz-tilescribe.pth").write_text(f"{sysconfig.get_path('platlib')}\n")
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run(self.name, [*pip, "--no-deps", "--requirement", str(self.requirements)])
        ready.touch()

    def program(self, name: str) -> str:
        """A program that one of its packages brings."""
        return str(self.folder / "bin" / name)


def apart() -> dict[str, str]:
    """The variables of a process that is to find its own packages alone: one of ours has the name of one of theirs."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(name: str, command: list[str]) -> None:
    """Run a command without a word. Raises `PeerError` with the last line of its errors."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_SECONDS, env=apart(), cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerError(f"{name}: {error}") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [
            f"exit code {done.returncode}"
        ]
        wrong = [line for line in lines if "error" in line.lower()] or lines
        raise PeerError(f"{name}: {wrong[-1].strip()}")


REQUIREMENTS = Path(__file__).parent / "requirements"
FASTER_WHISPER = Environment(REQUIREMENTS / "faster-whisper.txt")
OPENVINO = Environment(REQUIREMENTS / "openvino.txt")
WHISPER_CPP = Environment(REQUIREMENTS / "whisper.cpp.txt", compiled=True)
