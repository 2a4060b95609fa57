"""Getting a file of known size and MD5 over HTTP: from several mirrors in turn, going on where a try broke off.

Our own code, as the libraries for it (pooch, torchaudio's) begin again from the first byte, and know one mirror.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

_CHUNK = 1 << 20
_STALL_SECONDS = 60.0
# Each try that counts against this has brought the file forward.
_TRIES = 50


class NotDownloadedError(Exception):
    """No mirror had the file. `str()` is why, for each mirror; it names no remedy."""


class _MirrorError(Exception):
    """This mirror is of no use: the next one is asked."""


class _DroppedError(Exception):
    """The connection ended before the file did: the same mirror is asked for the rest."""


def note(progress: bool, text: str) -> None:
    """Tell the user on standard error how it goes, if `progress`."""
    if progress:
        print(text, file=sys.stderr, flush=True)


def bar(label: str, total: int, start: int, progress: bool) -> Any:
    """A bar of bytes on standard error, if that is a terminal."""
    return tqdm(
        desc=label,
        total=total,
        initial=start,
        unit="B",
        unit_scale=True,
        disable=None if progress else True,
        file=sys.stderr,
    )


def md5_of(path: Path) -> str:
    """MD5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def download(
    urls: Sequence[str], part: Path, nbytes: int, md5: str, *, label: str, progress: bool = True
) -> None:
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
            _get(url, part, nbytes, md5, label, progress)
            return
        except _MirrorError as error:
            host = urlsplit(url).netloc or url
            causes.setdefault(str(error), []).append(host)
            note(progress, f"{label}: {host}: {error}")
    raise NotDownloadedError("; ".join(f"{', '.join(hosts)}: {cause}" for cause, hosts in causes.items()))


def size_of(path: Path) -> int:
    """Bytes in a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def _get(url: str, part: Path, nbytes: int, md5: str, label: str, progress: bool) -> None:
    """Fill `part` from one mirror and check it."""
    while True:
        inherited = size_of(part) > 0
        _fill(url, part, nbytes, label, progress)
        found = md5_of(part)
        if found == md5:
            return
        part.unlink()
        if not inherited:
            raise _MirrorError(f"sent a file with MD5 {found}, not {md5}")
        # The beginning, which an earlier run or another mirror left, may be what is wrong.
        note(progress, f"{label}: what an earlier try left does not fit; starting again")


def _fill(url: str, part: Path, nbytes: int, label: str, progress: bool) -> None:
    """Bring `part` to `nbytes` from one mirror, asking again for the rest as long as each try brings some."""
    for _ in range(_TRIES):
        have = size_of(part)
        if have == nbytes:
            return
        if have > nbytes:
            part.unlink()
            have = 0
        try:
            _receive(url, part, have, nbytes, label, progress)
        except _DroppedError as error:
            if size_of(part) <= have:
                raise _MirrorError(str(error)) from None
            note(progress, f"{label}: {error}; going on from {size_of(part) / 1e6:.1f} MB")
    raise _MirrorError(f"broke off {_TRIES} times")


def _receive(url: str, part: Path, have: int, nbytes: int, label: str, progress: bool) -> None:
    """One request: append what comes to the `have` bytes in `part`, or start `part` anew if all of it comes."""
    headers = {"User-Agent": "tilescribe"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_STALL_SECONDS
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            part.unlink()  # the whole is asked for next
            return
        raise _MirrorError(f"answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _MirrorError(_cause(error)) from None
    with response:
        start, total = _extent(response, have)
        if total not in (None, nbytes):
            raise _MirrorError(f"has a file of {total:,} bytes, where the archive has {nbytes:,}")
        with part.open("ab" if start else "wb") as output, bar(label, nbytes, start, progress) as shown:
            at = start
            while chunk := _read(response):
                at += len(chunk)
                if at > nbytes:
                    raise _MirrorError(f"sent more than the archive's {nbytes:,} bytes")
                output.write(chunk)
                shown.update(len(chunk))
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
