"""Encoder windows to time: real weights, the project's own sample, and how much of a window is attention."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from app.audio.reading import load_audio
from app.evaluation.benchmark_results import Setting
from datasets.sample import sample
from kernels.contract import DEFAULT_TILE_SIZE
from kernels.opening import Opened
from models.attention import Attention, Reals, open_attention
from models.encoder import Encoder
from models.features import LogMelFeatures


class TimedAttention:
    """Attention that adds up how long it took."""

    def __init__(self, attention: Attention) -> None:
        """Put the clock around `attention`."""
        self.name, self.device, self.reason = attention.name, attention.device, attention.reason
        self.nanoseconds = 0
        self._attention = attention

    def __call__(self, q: Reals, k: Reals, v: Reals, *, layer: int) -> Reals:
        """See `models.attention.Attention`."""
        start = time.perf_counter_ns()
        result = self._attention(q, k, v, layer=layer)
        self.nanoseconds += time.perf_counter_ns() - start
        return result


class Windows:
    """A model's encoder, and a window of speech to put through it."""

    def __init__(self, model: Any) -> None:
        """Prepare windows for a `whisper.model.Whisper`."""
        self._model = model
        frames = 2 * model.dims.n_audio_ctx
        self._mel = LogMelFeatures([load_audio(sample().audio)], model.dims.n_mels).window(0, frames)[None]

    @contextmanager
    def encoder(self, setting: Setting, opened: Opened | None) -> Iterator[Callable[[], int]]:
        """Encodes a batch of windows, and returns the nanoseconds of attention in it.

        PyTorch has the setting's threads until it is done with.
        """
        tile_size = setting.tile_size or DEFAULT_TILE_SIZE
        attention = TimedAttention(
            open_attention(setting.backend, threads=setting.threads, tile_size=tile_size, opened=opened)
        )
        encode, mel = Encoder(self._model, attention), self._mel.expand(setting.batch, -1, -1)

        def run() -> int:
            attention.nanoseconds = 0
            encode(mel)
            return attention.nanoseconds

        before = torch.get_num_threads()
        torch.set_num_threads(setting.threads)
        try:
            yield run
        finally:
            torch.set_num_threads(before)
