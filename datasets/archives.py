"""Getting an archive of known size and MD5 from several mirrors, and unpacking it.

Downloading is our own code, as the libraries for it (pooch, torchaudio's) begin again from the first byte where a try
broke off, and know one mirror.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import re
import socket
import ssl
import sys
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

_CHUNK = 1 << 20
_STALL_SECONDS = 60.0
# Each try that counts against this has brought the file forward.
_TRIES = 50


class NotDownloadedError(Exception):
    """No mirror had the file. `str()` is why, for each mirror; it names no remedy."""


class ArchiveError(Exception):
    """An archive that can't or must not be unpacked. `str()` says why; it names neither the archive nor a remedy."""


class _MirrorError(Exception):
    """This mirror is of no use: the next one is asked."""


class _DroppedError(Exception):
    """The connection ended before the file did: the same mirror is asked for the rest."""


def note(text: str) -> None:
    """Tell the user on standard error how it goes."""
    print(text, file=sys.stderr, flush=True)


def md5_of(path: Path) -> str:
    """MD5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def size_of(path: Path) -> int:
    """Bytes in a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def download(urls: Sequence[str], part: Path, nbytes: int, md5: str, label: str) -> None:
    """Make `part` a file of that size and MD5, from the first of `urls` that has it.

    What is in `part` is gone on with (RFC 9110, range requests), whichever mirror it came from; a server that can't
    do that sends the whole. `part` is kept when the network fails, and removed when its MD5 is wrong.

    Raises:
        NotDownloadedError: no mirror has it.
        OSError: `part` can't be written.
    """
    causes: dict[str, list[str]] = {}
    for url in urls:
        try:
            _get(url, part, nbytes, md5, label)
            return
        except _MirrorError as error:
            host = urlsplit(url).netloc or url
            causes.setdefault(str(error), []).append(host)
            note(f"{label}: {host}: {error}")
    raise NotDownloadedError("; ".join(f"{', '.join(hosts)}: {cause}" for cause, hosts in causes.items()))


def unpack(archive: Path, folder: Path, label: str) -> None:
    """Unpack a .tar.gz into a folder that holds nothing else: regular files and folders, and nothing outside.

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
            _bar(label, archive.stat().st_size) as bar,
        ):
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            for member in tar:
                _judge(member)
                tar.extract(member, folder)
                bar.update(file.tell() - bar.n)
            # A tar ends before its gzip does: only the gzip's end has its checksum.
            while tar.fileobj and tar.fileobj.read(_CHUNK):
                pass
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ArchiveError(f"is damaged ({error})") from None


def _judge(member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        wrong = "leads out of its folder"
    elif member.issym() or member.islnk():
        wrong = "is a link"
    elif not (member.isfile() or member.isdir()):
        wrong = "is a device or a pipe"
    else:
        return
    raise ArchiveError(f"must not be unpacked: {member.name!r} in it {wrong}")


def _bar(label: str, total: int, start: int = 0) -> Any:
    """A bar of bytes on standard error, if that is a terminal."""
    return tqdm(desc=label, total=total, initial=start, unit="B", unit_scale=True, disable=None)


def _get(url: str, part: Path, nbytes: int, md5: str, label: str) -> None:
    """Fill `part` from one mirror and check it, asking again for the rest as long as each try brings some."""
    inherited = size_of(part) > 0
    for _ in range(_TRIES):
        have = size_of(part)
        if have == nbytes:
            found = md5_of(part)
            if found == md5:
                return
            if not inherited:
                part.unlink()
                raise _MirrorError(f"sent a file with MD5 {found}, not {md5}")
            # The beginning, which an earlier run or another mirror left, may be what is wrong.
            note(f"{label}: what an earlier try left does not fit; starting again")
        if have >= nbytes:
            part.unlink()
            have, inherited = 0, False
        try:
            _receive(url, part, have, nbytes, label)
        except _DroppedError as error:
            if size_of(part) <= have:
                raise _MirrorError(str(error)) from None
            note(f"{label}: {error}; going on from {size_of(part) / 1e6:.1f} MB")
    raise _MirrorError(f"broke off {_TRIES} times")


def _receive(url: str, part: Path, have: int, nbytes: int, label: str) -> None:
    """One request: append what comes to the `have` bytes in `part`, or start `part` anew if all of it comes."""
    headers = {"User-Agent": "tilescribe"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.urlopen(request, timeout=_STALL_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            part.unlink()  # the whole is asked for next
            return
        raise _MirrorError(f"answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _MirrorError(_cause(error)) from None
    with response:
        at, total = _extent(response, have)
        if total not in (None, nbytes):
            raise _MirrorError(f"has a file of {total:,} bytes, where the archive has {nbytes:,}")
        with part.open("ab" if at else "wb") as output, _bar(label, nbytes, at) as bar:
            while chunk := _read(response):
                at += len(chunk)
                if at > nbytes:
                    raise _MirrorError(f"sent more than the archive's {nbytes:,} bytes")
                output.write(chunk)
                bar.update(len(chunk))
    if at < nbytes:
        raise _DroppedError("the connection ended early")


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """From which byte a response goes on, and how long the file is, if the server says so."""
    if response.status == http.client.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != have:
            raise _MirrorError("sent another part of the file than it was asked for")
        return have, None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        # read1 gives what has arrived, so that nothing of it is lost when the connection breaks.
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _DroppedError(_cause(error)) from None


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, socket.gaierror):
        return "name not resolved"
    if isinstance(reason, TimeoutError):
        return f"sent nothing for {_STALL_SECONDS:.0f} s"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate can't be verified ({reason.verify_message})"
    return getattr(reason, "strerror", None) or f"{type(reason).__name__}: {reason}"
