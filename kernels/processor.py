"""The processor that this process runs on, as Linux shows it."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path


def cpuinfo(root: Path = Path("/")) -> dict[str, str]:
    """What /proc/cpuinfo says of its first processor, by name; nothing where it cannot be read."""
    try:
        with open(root / "proc/cpuinfo", encoding="utf-8", errors="replace") as info:
            pairs = [line.partition(":") for line in takewhile(str.strip, info)]
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in pairs}
