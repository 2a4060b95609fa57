"""What a user names on the command line, as a list of recordings and of the files to write for them."""

from __future__ import annotations

import glob
import os
import stat
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

_LONGEST_NAME = 255 - len(".json")
"""In bytes, on every Linux file system."""


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
        The recordings, each once, in the order in which they were named; and a line about each name without any, and
        about each folder that can't be read.
    """
    found: dict[str, tuple[str, Path]] = {}
    problems: list[str] = []
    for name in names:
        if not name:
            problems.append("an empty name is no file")
            continue
        before = len(problems)
        paths = _expand(name, problems)
        if not paths and len(problems) == before:
            problems.append(f"{name}: no recordings in it" if os.path.isdir(name) else f"{name}: no match")
        for path, stem in paths:
            found.setdefault(path if path == STANDARD_INPUT else os.path.abspath(path), (path, stem))
    return _told_apart(list(found.values())), list(dict.fromkeys(problems))


def _expand(name: str, problems: list[str]) -> list[tuple[str, Path]]:
    def unreadable(error: OSError) -> None:
        problems.append(f"{error.filename}: {error.strerror}")

    if name == STANDARD_INPUT:
        return [(name, Path("stdin"))]
    if os.path.isdir(name):
        files = sorted(
            Path(folder, file)
            for folder, _, files in os.walk(name, onerror=unreadable)
            for file in files
            if os.path.splitext(file)[1].lower() in SUFFIXES and not _is_special(os.path.join(folder, file))
        )
        return [(str(p), p.relative_to(name)) for p in files]
    if glob.has_magic(name) and not os.path.lexists(name):
        matches = sorted(match for match in glob.glob(name, recursive=True) if not os.path.isdir(match))
        folders = glob.glob(os.path.dirname(name), recursive=True) if os.path.dirname(name) else ["."]
        for folder in sorted(filter(os.path.isdir, folders)):  # glob passes over what it can't read
            try:
                os.scandir(folder).close()
            except OSError as error:
                unreadable(error)
        return [(match, Path(os.path.basename(match))) for match in matches]
    return [(name, Path(os.path.basename(name)))]


def _is_special(path: str) -> bool:
    """A pipe, a socket, a device, which no recording is; what can't be looked at is told of when it is read."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _told_apart(found: list[tuple[str, Path]]) -> list[Recording]:
    """`a.wav` is written to `a`; where `a.mp3` is there too, to `a.wav`."""
    bare = Counter(path.with_suffix("") for _, path in found)
    return [
        Recording(name, _fitting(path if bare[path.with_suffix("")] > 1 else path.with_suffix("")))
        for name, path in found
    ]


def _fitting(stem: Path) -> Path:
    """Cut to what the system takes for a name, with the longest suffix and all its characters whole."""
    name = os.fsencode(stem.name)
    if len(name) <= _LONGEST_NAME:
        return stem
    return stem.with_name(name[:_LONGEST_NAME].decode("utf-8", "ignore"))
