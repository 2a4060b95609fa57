"""Encoder windows to time: real weights, the project's own sample, and how much of a window is attention."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from app.evaluation.bench.measuring import Series
from kernels.contract import DEFAULT_TILE_SIZE
from kernels.device import Device
from kernels.opening import Opened
from kernels.workers import Workers
from models.attention import Attention, open_attention
from models.encoder import Encoder

FRAMES = 3000
WARM_UP = 1
"""Windows before the first that counts; they take long, and the layers before them have warmed most."""


class TimedAttention:
    """Attention that adds up how long it took."""

    def __init__(self, attention: Attention) -> None:
        """Put the clock around `attention`."""
        self.name, self.device, self.reason = attention.name, attention.device, attention.reason
        self.nanoseconds = 0
        self._attention = attention

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, layer: int) -> Tensor:
        """See `models.attention.Attention`."""
        start = time.perf_counter_ns()
        result = self._attention(q, k, v, layer=layer)
        self.nanoseconds += time.perf_counter_ns() - start
        return result


class Windows:
    """A model's encoder, and a window of speech to put through it."""

    def __init__(self, model: Any) -> None:
        """Prepare windows for a `whisper.model.Whisper`."""
        from app.audio.reading import load_audio
        from datasets.sample import sample
        from models.features import LogMelFeatures

        self._model = model
        self._mel = LogMelFeatures([load_audio(sample().audio)], model.dims.n_mels).window(0, FRAMES)[None]

    @contextmanager
    def encoder(
        self, backend: str, device: Device | None, reason: str, size: int | None, threads: int | None
    ) -> Iterator[Encoder]:
        """An encoder with that backend, and PyTorch with so many threads until it is done with.

        Args:
            backend: `int32`, `int8` or `cpu`.
            device: where the integer kernels run.
            reason: why it is that device.
            size: keys per tile.
            threads: as many as there are processors unless given.
        """
        opened = None if device is None else Opened(device, reason)
        tile_size = size or DEFAULT_TILE_SIZE
        attention = open_attention(backend, threads=threads, tile_size=tile_size, opened=opened)
        before = torch.get_num_threads()
        torch.set_num_threads(Workers(threads).threads)
        try:
            yield Encoder(self._model, TimedAttention(attention))
        finally:
            torch.set_num_threads(before)

    def time(self, encode: Encoder, batch: int, repeat: int) -> dict[str, Series]:
        """Time `repeat` calls of `batch` windows: the whole, and the attention in it."""
        mel = self._mel.expand(batch, -1, -1)
        clock = encode.attention
        assert isinstance(clock, TimedAttention)
        window, attention = list[int](), list[int]()
        for round_ in range(-WARM_UP, repeat):
            clock.nanoseconds = 0
            start = time.perf_counter_ns()
            encode(mel)
            end = time.perf_counter_ns()
            if round_ >= 0:
                window.append(end - start)
                attention.append(clock.nanoseconds)
        return {"window": Series(tuple(window)), "attention": Series(tuple(attention))}

    def repeat(self, encode: Encoder, batch: int, repeat: int) -> None:
        """Encode `repeat` times `batch` windows, for their energy."""
        work: Callable[[Tensor], Tensor] = encode
        for _ in range(repeat):
            work(self._mel.expand(batch, -1, -1))
