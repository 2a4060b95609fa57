from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import openai
import pytest
from material.servers import Served, serving, wave_file

from app import Transcriber, Transcript
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


@pytest.fixture(scope="session")
def whole(tiny_en: Transcriber, clip: bytes) -> Transcript:
    """What `transcribe` gives for the sample."""
    return tiny_en.transcribe(io.BytesIO(clip))


@pytest.fixture(scope="session")
def long_whole(tiny_en: Transcriber, long_clip: bytes) -> Transcript:
    return tiny_en.transcribe(io.BytesIO(long_clip))
