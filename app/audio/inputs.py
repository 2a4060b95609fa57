"""What a user names on the command line, as a list of recordings and of the files to write for them."""

from __future__ import annotations

import glob
import os
import stat
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import MANIFESTS

STANDARD_INPUT = "-"
MICROPHONE = "microphone"

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


class Recordings:
    """What a user named, gone through anew each time: of a million recordings eight bytes each are kept.

    Folders (with all in them), patterns and manifests are expanded; each recording is there once, in the order of the
    names. What is added while they are gone through may come or not.

    Attributes:
        problems: a line about each name without any, and about each folder that can't be read.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Name paths, folders, glob patterns, manifests (see `datasets.manifest`) and `-`."""
        import numpy as np  # a command's --help must not wait for it

        self._names = names
        self.problems: list[str] = []
        paths, bare = array("q"), array("q")
        for path, stem in self._found(self.problems):
            paths.append(_key(path))
            bare.append(hash(stem.with_suffix("")))
        self.problems = list(dict.fromkeys(self.problems))
        self._twice = repeated(paths)
        first = np.unique(np.array(paths), return_index=True)[1]
        self._alike = repeated(np.array(bare)[first])
        self._count = len(first)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Recording]:
        seen: set[int] = set()
        for path, stem in self._found([]):
            key = _key(path)
            if key in seen:
                continue
            if key in self._twice:
                seen.add(key)
            # `a.wav` is written to `a`; where `a.mp3` is there too, to `a.wav`.
            bare = stem.with_suffix("")
            yield Recording(path, _fitting(stem if hash(bare) in self._alike else bare))

    def _found(self, problems: list[str]) -> Iterator[tuple[str, Path]]:
        for name in self._names:
            if not name:
                problems.append("an empty name is no file")
                continue
            before, some = len(problems), False
            for one in _expand(name, problems):
                some = True
                yield one
            if not some and len(problems) == before:
                problems.append(
                    f"{name}: no recordings in it" if os.path.isdir(name) else f"{name}: no match"
                )


def repeated(keys: Any) -> frozenset[int]:
    """The numbers that are there more than once."""
    import numpy as np

    values, counts = np.unique(np.array(keys, np.int64), return_counts=True)
    return frozenset(values[counts > 1].tolist())


def _key(path: str) -> int:
    return hash(path if path == STANDARD_INPUT else os.path.abspath(path))


def _expand(name: str, problems: list[str]) -> Iterator[tuple[str, Path]]:
    if name == STANDARD_INPUT:
        yield name, Path("stdin")
    elif os.path.isdir(name):
        for path in _walk(name, problems):
            yield path, Path(path).relative_to(name)
    elif name.lower().endswith(MANIFESTS) and os.path.isfile(name):
        yield from _listed(Path(name), problems)
    elif glob.has_magic(name) and not os.path.lexists(name):
        folders = glob.glob(os.path.dirname(name), recursive=True) if os.path.dirname(name) else ["."]
        for folder in sorted(filter(os.path.isdir, folders)):  # glob passes over what it can't read
            try:
                os.scandir(folder).close()
            except OSError as error:
                problems.append(f"{error.filename}: {error.strerror}")
        for match in sorted(match for match in glob.glob(name, recursive=True) if not os.path.isdir(match)):
            yield match, Path(os.path.basename(match))
    else:
        yield name, Path(os.path.basename(name))


def _listed(manifest: Path, problems: list[str]) -> Iterator[tuple[str, Path]]:
    """A manifest's recordings; their files go where the manifest has them, as far as that is below it."""
    from datasets.manifest import recordings
    from datasets.utterance import DatasetError

    try:
        for audio in recordings(manifest):
            given = Path(os.path.normpath(audio))
            below = not given.is_absolute() and given.parts[0] not in ("..", "~")
            yield str(manifest.parent / os.path.expanduser(audio)), given if below else Path(given.name)
    except DatasetError as error:
        problems.append(str(error))


def _walk(folder: str, problems: list[str]) -> Iterator[str]:
    """The recordings in a folder, in the order of their names; of one folder at a time the names are in memory."""
    try:
        with os.scandir(folder) as entries:
            # No name has a NUL: it marks a folder, whose content comes where its name does.
            names = sorted(f"{entry.name}\0" if entry.is_dir() else entry.name for entry in entries)
    except OSError as error:
        problems.append(f"{error.filename}: {error.strerror}")
        return
    for name in names:
        path = os.path.join(folder, name.rstrip("\0"))
        if name.endswith("\0"):
            if not os.path.islink(path):
                yield from _walk(path, problems)
        elif os.path.splitext(name)[1].lower() in SUFFIXES and not _is_special(path):
            yield path


def _is_special(path: str) -> bool:
    """A pipe, a socket, a device, which no recording is; what can't be looked at is told of when it is read."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _fitting(stem: Path) -> Path:
    """Cut to what the system takes for a name, with the longest suffix and all its characters whole."""
    name = os.fsencode(stem.name)
    if len(name) <= _LONGEST_NAME:
        return stem
    return stem.with_name(name[:_LONGEST_NAME].decode("utf-8", "ignore"))
