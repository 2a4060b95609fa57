from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import openai
import pytest
from material.servers import Served, serving, wave_file

from app import Transcriber
from app.audio.reading import load_audio
from datasets.utterance import Utterance


@pytest.fixture(scope="session")
def served(tiny_en: Transcriber) -> Iterator[Served]:
    """tiny.en, served with the usual limits."""
    with serving(tiny_en) as server:
        yield server


@pytest.fixture(scope="session")
def client(served: Served) -> openai.OpenAI:
    return served.client()


@pytest.fixture(scope="session")
def clip(spoken: Utterance) -> bytes:
    """The sample as a file, 14 s."""
    return spoken.audio.read_bytes()


@pytest.fixture(scope="session")
def long_clip(spoken: Utterance) -> bytes:
    """The sample's two sentences and the sample with pauses between them, 40 s: three windows."""
    samples, pause = load_audio(spoken.audio), np.zeros(6 * 16000, np.float32)
    between = round(8.7 * 16000)
    return wave_file(np.concatenate([samples[:between], pause, samples[between:], pause, samples]))
