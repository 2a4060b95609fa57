"""Decoded frames of any format become 16 kHz mono float32 blocks of one length."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, groupby
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:  # both are imported where they are used: a command's --help must not wait for them
    import numpy as np
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler
    from numpy.typing import NDArray

SAMPLE_RATE = 16000
"""Samples a second of every block."""


def joined(frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
    """Frames of about a second, each of one format.

    PyAV's resampler can lose a KeyboardInterrupt at the end of each call. With a codec's own frames of 20 ms
    one in ten was lost, with these one in a hundred.
    """
    from av.audio.fifo import AudioFifo

    for _, alike in groupby(frames, key=_form):
        fifo = AudioFifo()
        for frame in alike:
            frame.pts = None
            fifo.write(frame)
            if fifo.samples >= frame.sample_rate:
                yield cast("AudioFrame", fifo.read())
        if fifo.samples:
            yield cast("AudioFrame", fifo.read())


def _form(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def resampled(frames: Iterator[AudioFrame]) -> Iterator[NDArray[np.float32]]:
    """Frames of any format as 16 kHz mono pieces; a change of format on the way starts a new resampler."""
    from av.audio.resampler import AudioResampler
    from av.error import FFmpegError

    for _, alike in groupby(frames, key=_form):
        frame = next(alike)
        resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        try:
            yield from _samples(resampler, frame)
        except FFmpegError:  # no rule mixes these channels (9 of them, ambisonics): all count the same
            resampler = AudioResampler(format="flt", layout=frame.layout, rate=SAMPLE_RATE)
            yield from _samples(resampler, frame)
        for rest in chain(alike, [None]):  # None gives what is left in the resampler
            yield from _samples(resampler, rest)


def _samples(resampler: AudioResampler, frame: AudioFrame | None) -> Iterator[NDArray[np.float32]]:
    import numpy as np

    for out in resampler.resample(frame):
        if out is None:  # a flush where there was nothing to resample
            continue
        values = out.to_ndarray()
        if values.dtype == np.int16:
            yield values[0].astype(np.float32) / 32768.0
        else:
            yield values.reshape(-1, out.layout.nb_channels).mean(axis=1, dtype=np.float32)


def block_size(seconds: float) -> int:
    """The samples in a block of `seconds`, rounded; ValueError where there is none."""
    size = round(seconds * SAMPLE_RATE) if math.isfinite(seconds) else 0
    if size < 1:
        raise ValueError(f"a block of {seconds} s holds no samples")
    return size


def regrouped(pieces: Iterator[NDArray[np.float32]], size: int) -> Iterator[NDArray[np.float32]]:
    """Pieces of any length as blocks of `size` samples; no more than one block is held."""
    import numpy as np

    block, filled = np.empty(size, np.float32), 0
    for piece in pieces:
        rest = piece
        while len(rest):
            taken, rest = rest[: size - filled], rest[size - filled :]
            block[filled : filled + len(taken)] = taken
            filled += len(taken)
            if filled == size:
                yield block
                block, filled = np.empty(size, np.float32), 0
    if filled:
        yield block[:filled]
