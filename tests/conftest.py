from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app import Transcriber, load_model
from datasets.sample import sample
from datasets.utterance import Utterance

SPEECH = Path(__file__).resolve().parents[2] / "shared" / "speech"


@pytest.fixture(scope="session")
def tiny_en() -> Transcriber:
    """tiny.en with the INT32 backend on the emulator."""
    return load_model("tiny.en", "int32", "emulator")


@pytest.fixture(scope="session")
def spoken() -> Utterance:
    """The project's own sample."""
    return sample()


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
