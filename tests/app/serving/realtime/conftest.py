from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from material.servers import Served, serving

from app import Transcriber
from app.audio.reading import load_audio
from datasets.utterance import Utterance


@pytest.fixture(scope="session")
def live(live_tiny: Transcriber) -> Iterator[Served]:
    """tiny.en, served with the usual limits and short windows."""
    with serving(live_tiny) as server:
        yield server


@pytest.fixture(scope="session")
def pcm(spoken: Utterance) -> bytes:
    """The sample's first sentence as clients send it, 16 bits at 24 kHz, and a second of silence: 3.3 s."""
    samples = (load_audio(spoken.audio)[: round(2.3 * 16000)] * 32767).astype("<i2")
    frame = AudioFrame.from_ndarray(samples[None], "s16", "mono")
    frame.sample_rate = 16000
    resampler = AudioResampler("s16", "mono", 24000)
    frames = [out.to_ndarray()[0] for given in (frame, None) for out in resampler.resample(given)]
    return np.concatenate([*frames, np.zeros(24000)]).astype("<i2").tobytes()
