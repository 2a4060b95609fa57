"""Unpacking an archive from elsewhere: regular files and folders, inside the folder that they are meant for."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from datasets.downloading import bar

_CHUNK = 1 << 20


class ArchiveError(Exception):
    """An archive that can't or must not be unpacked. `str()` says why; it names neither the archive nor a remedy."""


def unpack(archive: Path, folder: Path, *, label: str, progress: bool = True) -> None:
    """Unpack a .tar.gz into a folder that holds nothing else.

    Every member is judged before it is written: an archive with a link, a device or a path that leads out is
    refused. tarfile's data filter (PEP 706) stands behind that, where this Python has it.

    Raises:
        ArchiveError: it is damaged, or not to be unpacked; what was written until then stays in `folder`.
        OSError: `folder` can't be written.
    """
    try:
        with (
            archive.open("rb") as file,
            tarfile.open(fileobj=file, mode="r:gz") as tar,
            bar(label, archive.stat().st_size, 0, progress) as shown,
        ):
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            for member in tar:
                _judge(member)
                tar.extract(member, folder)
                shown.update(file.tell() - shown.n)
            # A tar ends before its gzip does: only the gzip's end has its checksum.
            while tar.fileobj and tar.fileobj.read(_CHUNK):
                pass
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ArchiveError(f"is damaged ({error})") from None


def _judge(member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        raise ArchiveError(f"must not be unpacked: {member.name!r} in it leads out of its folder")
    if member.issym() or member.islnk():
        raise ArchiveError(f"must not be unpacked: {member.name!r} in it is a link")
    if not (member.isfile() or member.isdir()):
        raise ArchiveError(f"must not be unpacked: {member.name!r} in it is a device or a pipe")
