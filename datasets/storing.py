"""Where named sets lie on this machine, and getting them there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from datasets.archives import ArchiveError, NotDownloadedError, download, md5_of, note, size_of, unpack
from datasets.librispeech import NamedSet, read
from datasets.utterance import DatasetError

# FLAC hardly shrinks: the four sets unpacked take 1.06 times their archives.
_UNPACKED = 1.1
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def data_folder(data_dir: Path | None = None) -> Path:
    """Where sets are kept: `data_dir`, or `datasets` in Tilescribe's user cache folder.

    TILESCRIBE_CACHE, where it is set, names another cache folder, as for weights.
    """
    if data_dir is not None:
        return Path(os.path.expanduser(data_dir))
    cache = os.environ.get("TILESCRIBE_CACHE")
    return (
        Path(os.path.expanduser(cache)) if cache else platformdirs.user_cache_path("tilescribe")
    ) / "datasets"


def located(entry: NamedSet, data_dir: Path | None = None) -> Path | None:
    """The folder of a named set on this machine, whole or not; None where there is none.

    `data_dir` is its own folder, the LibriSpeech folder, or the folder above that; the user's cache unless given.
    """
    base = data_folder(data_dir)
    for candidate in (base / "LibriSpeech" / entry.folder, base / entry.folder):
        if candidate.is_dir():
            return candidate
    # Its own folder, under any name: its speakers tell.
    own = base.name == entry.folder or entry.speakers & {path.parts[-3] for path in _transcripts(base)}
    return base if own and base.is_dir() else None


def absent(entry: NamedSet, data_dir: Path | None) -> DatasetError:
    """The error for a named set that is not on this machine."""
    base, _ = _places(entry, data_dir)
    option = f" --data-dir {data_dir}" if data_dir is not None else ""
    command = f"`tilescribe datasets fetch {entry.name}{option}`"
    gets = f"{command} gets it ({entry.archive_bytes / 1e6:.0f} MB)"
    if (base / entry.archive).is_file():
        return DatasetError(f"{entry.name} is not unpacked yet ({base / entry.archive}): {command} does that")
    if data_dir is None:
        return DatasetError(
            f"{entry.name} is not on this machine ({base}): {gets}, or give a copy at hand with --data-dir"
        )
    given = data_folder(data_dir)
    missing = "" if given.is_dir() else ", which does not exist"
    return DatasetError(
        f"{entry.name} is not in {given}{missing}: give the folder {entry.folder}, LibriSpeech or the one above it; "
        f"{gets}"
    )


def fetch(entry: NamedSet, data_dir: Path | None = None) -> Path:
    """Put a named set on this machine, unless it is there whole, and return its folder.

    The folder appears whole and checked or not at all, also where several processes fetch it at once or one is
    interrupted; a download goes on where it broke off. An archive that someone has put into the folder of the sets
    is used instead of a download. A copy in the cache that is not whole is replaced, one in `data_dir` never.
    Notes go to standard error.

    Raises:
        DatasetError: no mirror has it, there is no room, or something else is in its place.
    """
    base, target = _places(entry, data_dir)
    try:
        if there := _present(entry, data_dir):
            return there
        with _sole_fetch(entry.name, base) as scratch:
            if there := _present(entry, data_dir):  # another process fetched it meanwhile
                return there
            archive = _archive(entry, base)
            _require_room(entry, base, entry.archive_bytes * _UNPACKED, "unpack")
            note(f"{entry.name}: unpacking {archive.name.removesuffix('.part')}")
            _unpack(entry, archive, scratch, target)
            if archive.suffix == ".part":
                archive.unlink()
    except OSError as error:
        place, cause = error.filename or base, error.strerror or error
        if error.errno in _NO_ROOM:
            raise _no_room(entry, base, f"{place}: {cause}") from None
        raise DatasetError(
            f"{entry.name} can't be written to {place}: {cause}: make the folder writable, "
            "or name another with --data-dir or TILESCRIBE_CACHE"
        ) from None
    return target


def _places(entry: NamedSet, data_dir: Path | None) -> tuple[Path, Path]:
    """Where to work and keep the archive, and the folder that the set is to have."""
    base = data_folder(data_dir)
    if base.name == entry.folder:
        return base.parent, base
    return base, (base if base.name == "LibriSpeech" else base / "LibriSpeech") / entry.folder


def _transcripts(folder: Path) -> Iterator[Path]:
    return folder.glob("*/*/*.trans.txt")


def _is_whole(entry: NamedSet, folder: Path) -> bool:
    try:
        return entry.is_whole(read(folder))
    except DatasetError:
        return False


def _present(entry: NamedSet, data_dir: Path | None) -> Path | None:
    """The set's folder if it is whole; what a user's own folder has in its place is an error, as it is kept."""
    folder = located(entry, data_dir)
    if folder is not None and _is_whole(entry, folder):
        return folder
    if data_dir is None:
        return None
    if folder is None and any(_transcripts(data_folder(data_dir))):
        raise DatasetError(
            f"{data_folder(data_dir)} holds another set than {entry.folder}: give the folder above it"
        )
    if folder is not None and any(folder.iterdir()):
        raise DatasetError(
            f"{folder} holds something else than the whole of {entry.folder} "
            f"(`tilescribe datasets verify {entry.name} --data-dir {data_dir}` says what), and is not written over: "
            "move it away, or name another --data-dir"
        )
    return None


@contextlib.contextmanager
def _sole_fetch(name: str, base: Path) -> Iterator[Path]:
    """A scratch folder beside the target, for as long as no other process has one there."""
    base.mkdir(parents=True, exist_ok=True)
    with (base / ".tilescribe.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"{name}: another process is fetching into {base}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in base.glob(".tilescribe-unpack-*"):  # of a process that was killed, or it had the lock
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".tilescribe-unpack-", dir=base) as scratch:
            yield Path(scratch)


def _archive(entry: NamedSet, base: Path) -> Path:
    """The set's archive, checked: one that was put there by hand, or a downloaded one (then it ends in .part)."""
    given, part = base / entry.archive, base / f"{entry.archive}.part"
    if given.is_file():
        found = md5_of(given)
        if found != entry.archive_md5:
            raise DatasetError(
                f"{given} has MD5 {found}, not {entry.archive_md5}: it is damaged or of another release: "
                f"remove it, and `tilescribe datasets fetch {entry.name}` downloads it"
            )
        return given
    have = size_of(part)
    _require_room(entry, base, entry.archive_bytes * (1 + _UNPACKED) - have, "download and unpack")
    kept = f", of which {have / 1e6:.1f} MB are here" if have else ""
    note(f"{entry.name}: getting {entry.archive}, {entry.archive_bytes / 1e6:.1f} MB{kept}")
    try:
        download(entry.urls, part, entry.archive_bytes, entry.archive_md5, entry.name)
    except NotDownloadedError as error:
        raise DatasetError(
            f"{entry.name} can't be fetched: {error}{_kept(part)}: check the network and try again, or get "
            f"{entry.urls[0]} another way (MD5 {entry.archive_md5}), put it at {given} and try again, "
            "or give a copy at hand with --data-dir"
        ) from None
    return part


def _kept(part: Path) -> str:
    have = size_of(part)
    return f" ({have / 1e6:.1f} MB have arrived and are kept)" if have else ""


def _unpack(entry: NamedSet, archive: Path, scratch: Path, target: Path) -> None:
    """Unpack into `scratch`, look whether all is there, and only then move it into place."""
    unpacked = scratch / "LibriSpeech"
    try:
        unpack(archive, scratch, entry.name)
        if not _is_whole(entry, unpacked / entry.folder):
            raise ArchiveError(f"does not hold the {entry.utterances:,} utterances of {entry.folder}")
    except ArchiveError as error:
        if archive.suffix == ".part":
            archive.unlink()
        raise DatasetError(
            f"{archive} {error}: remove it if it is there, and try again, or give a copy at hand with --data-dir"
        ) from None
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in unpacked.iterdir():  # the licence and LibriSpeech's own notes
        if file.is_file() and not (target.parent / file.name).exists():
            os.rename(file, target.parent / file.name)
    if target.exists():
        os.rename(target, scratch / "replaced")
    os.rename(unpacked / entry.folder, target)


def _require_room(entry: NamedSet, base: Path, nbytes: float, purpose: str) -> None:
    free = shutil.disk_usage(base).free
    if free < nbytes:
        needed = f"{nbytes / 1e6:.0f} MB are needed to {purpose} it, {free / 1e6:.0f} MB are free"
        raise _no_room(entry, base, needed)


def _no_room(entry: NamedSet, base: Path, cause: str) -> DatasetError:
    return DatasetError(
        f"there is no room for {entry.name} in {base}: {cause}{_kept(base / f'{entry.archive}.part')}: "
        "make room, or name a folder on another disk with --data-dir or TILESCRIBE_CACHE"
    )
