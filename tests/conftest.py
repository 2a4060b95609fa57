from __future__ import annotations

import os

# Before any library starts its threads: those that wait for work in a loop make a busy machine spend four times the
# processor's time (tests of the API: 49 s of it and more, where 13 s do).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Tests in several processes are the threads that a machine has: each process, and those that it begins, has
# processors of its own, or they wait for each other's threads.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _number, _count = int(os.environ["PYTEST_XDIST_WORKER"][2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    _processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, _processors[_number::_count] or _processors)

import logging
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from material.audio_files import write
from material.small_models import once_a_window, recogniser_of
from places import SPEECH

from app import Transcriber, load_model
from app.audio.reading import load_audio
from app.configuration import Configuration
from datasets.sample import sample
from datasets.utterance import Utterance
from kernels.arrays import Reals
from models.decoding.recogniser import Recogniser
from models.features import LogMelFeatures
from models.weights.building import Model
from models.weights.loading import LoadedWeights, load


def pytest_configure() -> None:
    """Let Ctrl-C work in every process of the tests: one that is started with SIGINT ignored passes that on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_lines_of_progress() -> Iterator[None]:
    """However busy the machine, as tests compare what is said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.console._BETWEEN", 3600)
        yield


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """What a command does to the packages' loggers ends with its test."""
    below = [logging.getLogger(name) for name in ("kernels", "models")]
    before = [(log, log.handlers, log.propagate, log.level) for log in below]
    yield
    for log, log.handlers, log.propagate, level in before:
        log.setLevel(level)


@pytest.fixture(scope="session")
def tiny_en() -> Transcriber:
    """tiny.en with the INT32 backend on the emulator."""
    return load_model("tiny.en", "int32", "emulator")


@pytest.fixture(scope="session")
def transcribers() -> dict[Configuration, Transcriber]:
    """Those that `one_load` keeps."""
    return {}


@pytest.fixture(scope="session")
def live_tiny(tiny_en: Transcriber) -> Transcriber:
    """tiny.en with the INT32 backend, whose windows are no longer than they need."""
    configuration = replace(tiny_en.configuration, audio_context="auto")
    return Transcriber(tiny_en.weights, configuration, tiny_en.attention)


@pytest.fixture
def one_load(
    tiny_en: Transcriber, transcribers: dict[Configuration, Transcriber], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of tiny.en are read once for all tests in this process, and made ready for INT32 once a way."""
    whole = Transcriber.load

    def loaded(name: str, **how: Any) -> LoadedWeights:
        return tiny_en.weights if name == "tiny.en" else load(name, **how)

    def made(configuration: Configuration, **how: Any) -> Transcriber:
        if (configuration.model, configuration.backend) != ("tiny.en", "int32"):
            return whole(configuration, **how)
        if configuration not in transcribers:
            transcribers[configuration] = whole(configuration, **how)
            transcribers[configuration].recogniser = once_a_window(transcribers[configuration].recogniser)
        return transcribers[configuration]

    monkeypatch.setattr("app.api.load", loaded)
    monkeypatch.setattr(Transcriber, "load", made)


@pytest.fixture(scope="session")
def tiny(tiny_en: Transcriber) -> Model:
    """tiny.en's weights, whose graphs are not kept: tests change what goes into them."""
    return replace(tiny_en.weights.model, sha256=None)


@pytest.fixture(scope="session")
def recogniser(tiny: Model) -> Recogniser:
    """tiny.en with whisper's own encoder and a decoder in float32, as openai-whisper computes."""
    return once_a_window(recogniser_of(tiny))


@pytest.fixture(scope="session")
def usual(tiny_en: Transcriber) -> Recogniser:
    """tiny.en in the compute types that it is used in, for what does not depend on them."""
    return once_a_window(tiny_en.recogniser)


@pytest.fixture(scope="session")
def states(tiny: Model, sentences: Reals) -> Any:
    """Encoder states of tiny.en for two windows: speech, and white noise."""
    noise = np.random.default_rng(0).standard_normal(len(sentences)).astype(np.float32) * 0.1
    frames = len(sentences) // 160
    mels = [LogMelFeatures([samples]).window(0, frames, pad_to=3000) for samples in (sentences, noise)]
    with torch.no_grad():
        return tiny.whisper.encoder(torch.from_numpy(np.stack(mels))).numpy()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other take many times as long on a busy machine."""
    threads = torch.get_num_threads()
    numba.get_num_threads()  # starts numba's threads, which resets torch's number; whisper.timing does too
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def spoken() -> Utterance:
    """The project's own sample."""
    return sample()


@pytest.fixture(scope="session")
def sentences(spoken: Utterance) -> Reals:
    """The sample's own sound: three sentences in 14 s."""
    return load_audio(spoken.audio)


@pytest.fixture(scope="session")
def sentence(spoken: Utterance, sentences: Reals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first of them, 2.9 s, in a file of the sample's name: decoded in a quarter of the time."""
    path = tmp_path_factory.mktemp("sentence") / spoken.audio.name
    first = (sentences[: round(2.9 * 16000), None] * 32767).astype(np.int16)
    write(path, first, 16000, "flac")
    return path


@pytest.fixture(scope="session")
def speech() -> Path:
    """A folder of LibriSpeech utterances and other real speech."""
    if not SPEECH.is_dir():
        pytest.skip(f"real speech is not at hand: {SPEECH} is absent")
    return SPEECH


@pytest.fixture(scope="session")
def scripts() -> Path:
    """Where this environment's console scripts are."""
    return Path(sys.executable).parent


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tilescribe's cache folder, empty like openai-whisper's; nothing goes through a proxy."""
    monkeypatch.setenv("TILESCRIBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"
