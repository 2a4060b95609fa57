"""What a user names on the command line, as a list of recordings and of the files to write for them."""

from __future__ import annotations

import glob
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

STANDARD_INPUT = "-"

_AUDIO = (
    ".aac .aif .aifc .aiff .amr .au .caf .flac .m4a .m4b .mka .mp3 .oga .ogg .opus .w64 .wav .wave .weba .wma"
)
_VIDEO = ".avi .m4v .mkv .mov .mp4 .mpeg .mpg .ts .webm"
SUFFIXES = frozenset(f"{_AUDIO} {_VIDEO}".split())
"""What is taken for a recording in a folder; a file that is named itself may be called anything."""


@dataclass(frozen=True)
class Recording:
    """One input.

    Attributes:
        name: what the user called it; `-` is standard input.
        stem: where its files go, under the output folder, without a suffix.
    """

    name: str
    stem: Path


def recordings(names: list[str]) -> tuple[list[Recording], list[str]]:
    """Expand folders (with all in them) and patterns.

    Args:
        names: paths, folders, glob patterns and `-`.

    Returns:
        The recordings, each once, in the order in which they were named; and a line about each name without any.

    Raises:
        ValueError: two recordings would be written to the same files.
    """
    found: dict[str, Path] = {}
    problems = []
    for name in names:
        if not name:
            problems.append("an empty name is no file")
            continue
        paths = _expand(name)
        if not paths:
            problems.append(f"{name}: no recordings in it" if os.path.isdir(name) else f"{name}: no match")
        for path, stem in paths:
            found.setdefault(path, stem)
    return _told_apart(found), problems


def _expand(name: str) -> list[tuple[str, Path]]:
    if name == STANDARD_INPUT:
        return [(name, Path("stdin"))]
    if os.path.isdir(name):
        files = sorted(p for p in Path(name).rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        return [(str(p), p.relative_to(name)) for p in files]
    if glob.has_magic(name) and not os.path.lexists(name):
        matches = sorted(match for match in glob.glob(name, recursive=True) if not os.path.isdir(match))
        return [(match, Path(os.path.basename(match))) for match in matches]
    return [(name, Path(os.path.basename(name)))]


def _told_apart(found: dict[str, Path]) -> list[Recording]:
    """`a.wav` is written to `a`; where `a.mp3` is there too, to `a.wav`."""
    bare = Counter(path.with_suffix("") for path in found.values())
    full = Counter(found.values())
    result = []
    for name, path in found.items():
        if full[path] > 1:
            others = [other for other, stem in found.items() if stem == path]
            raise ValueError(
                f"{' and '.join(others)} would be written to the same file: give them separately"
            )
        result.append(Recording(name, path if bare[path.with_suffix("")] > 1 else path.with_suffix("")))
    return result
