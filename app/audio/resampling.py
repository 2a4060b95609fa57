"""Decoded frames of any format become 16 kHz mono float32 blocks of one length; nothing is rounded on the way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias, cast

if TYPE_CHECKING:  # both are imported where they are used: a command's --help must not wait for them
    import numpy as np
    from av.audio.frame import AudioFrame
    from numpy.typing import NDArray

    Samples: TypeAlias = NDArray[np.float32]

SAMPLE_RATE = 16000
"""Samples a second of every block."""

_CANCELLED = 0.1  # of the power that channels would have together if they had nothing in common
_LEFT_OUT = (
    1e-4  # of the strongest channel's power: FFmpeg mixes no LFE, which need not be one where it is declared
)


class NotNumbersError(ValueError):
    """NaN or infinity among the samples, at `seconds` of the recording."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"samples that are not numbers (NaN or infinity) at {seconds:.2f} s")


@dataclass(frozen=True)
class Sound:
    """About a second: `channels` is float32 (channels, n), `layout` FFmpeg's name for their places."""

    channels: Samples
    rate: int
    layout: str


def joined(frames: Iterator[AudioFrame | float]) -> Iterator[Sound | float]:
    """Frames as sounds of about a second, each of one format; what is no frame passes.

    A call for each of a codec's own frames of 20 ms would take more time than the decoding.
    """
    from av.audio.fifo import AudioFifo

    for form, alike in groupby(frames, key=_form):
        if form is None:
            yield from cast("Iterator[float]", alike)
            continue
        fifo = AudioFifo()
        for frame in cast("Iterator[AudioFrame]", alike):
            frame.pts = None
            fifo.write(frame)
            if fifo.samples >= frame.sample_rate:
                yield _sound(cast("AudioFrame", fifo.read()))
        if fifo.samples:
            yield _sound(cast("AudioFrame", fifo.read()))


def _form(frame: AudioFrame | float) -> tuple[str, str, int] | None:
    return None if isinstance(frame, float) else (frame.format.name, frame.layout.name, frame.sample_rate)


def _sound(frame: AudioFrame) -> Sound:
    values = frame.to_ndarray()
    channels = values if frame.format.is_planar else values.reshape(frame.samples, -1).T
    return Sound(full_scale(channels), frame.sample_rate, frame.layout.name)


def full_scale(values: NDArray[Any]) -> Samples:
    """Samples of any type as float32, integers divided by their full scale, each channel in one piece."""
    import numpy as np

    samples = np.ascontiguousarray(values, np.float32)
    if values.dtype.kind != "f":  # so it is a copy
        largest = np.float32(2.0 ** (8 * values.itemsize - 1))
        if values.dtype.kind == "u":  # its middle is silence
            samples -= largest
        samples *= 1 / largest
    return samples


class Mixer:
    """Channels to one, as FFmpeg mixes them, or the strongest channel where the sound would be lost.

    Attributes:
        position: seconds of the recording that have gone through.
        cancelled: seconds of it in which the channels cancel each other, or the sound is in one that is not mixed.
    """

    def __init__(self) -> None:
        self.position = 0.0
        self.cancelled = 0.0

    def mono(self, sounds: Iterator[Sound | float]) -> Iterator[tuple[Samples, int] | float]:
        """Give (samples (n,), rate) for each sound; a number, the second up to which there is silence, passes.

        Raises:
            NotNumbersError: there are NaN or infinity among them.
        """
        for sound in sounds:
            if isinstance(sound, float):
                self.position = sound
                yield sound
                continue
            yield self._mixed(sound), sound.rate
            self.position += sound.channels.shape[1] / sound.rate

    def _mixed(self, sound: Sound) -> Samples:
        import numpy as np

        channels = sound.channels
        with np.errstate(invalid="ignore", over="ignore"):
            # Much sooner done than the product of two matrices.
            products = np.array([[one @ other for other in channels] for one in channels])
        powers = products.diagonal()
        if not np.isfinite(powers).all():
            finite = np.isfinite(channels).all(axis=0)
            if not finite.all():
                raise NotNumbersError(self.position + int(finite.argmin()) / sound.rate)
        if len(channels) == 1:
            return cast("Samples", channels[0])
        weights = _mix(sound.layout, len(channels))
        heard = powers * weights**2
        mixed = weights @ products @ weights
        if mixed < _CANCELLED * heard.sum() or mixed < _LEFT_OUT * powers.max():
            self.cancelled += channels.shape[1] / sound.rate
            return np.ascontiguousarray(channels[powers.argmax()])
        return cast("Samples", weights @ channels)


@cache
def _mix(layout: str, channels: int) -> Samples:
    """How much of each channel FFmpeg puts into one; equal parts where it has no rule (9 of them, ambisonics)."""
    import numpy as np
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler
    from av.error import FFmpegError

    # One sample for each channel, in which that one alone is at full scale. To integers, since the parts of a mix
    # to float are not kept within it.
    frame = AudioFrame.from_ndarray(np.eye(channels, dtype=np.float32).reshape(1, -1), "flt", layout)
    frame.sample_rate = SAMPLE_RATE
    resampler = AudioResampler(format="s32", layout="mono", rate=SAMPLE_RATE)
    try:
        mixed = [out.to_ndarray()[0] for given in (frame, None) for out in resampler.resample(given) if out]
    except FFmpegError:
        return np.full(channels, 1 / channels, np.float32)
    return cast("Samples", np.concatenate(mixed).astype(np.float32) / np.float32(2**31))


def resampled(sounds: Iterator[tuple[Samples, int] | float]) -> Iterator[Samples]:
    """Mono sounds of any rate as 16 kHz pieces; a change of rate and a silence start a new resampler."""
    import numpy as np

    given = 0
    for rate, alike in groupby(sounds, key=lambda sound: None if isinstance(sound, float) else sound[1]):
        if rate is None:
            for until in cast("Iterator[float]", alike):
                missing = round(until * SAMPLE_RATE) - given
                for start in range(0, missing, SAMPLE_RATE):
                    yield np.zeros(min(SAMPLE_RATE, missing - start), np.float32)
                given += max(0, missing)
            continue
        for piece in _at_16_khz(cast("Iterator[tuple[Samples, int]]", alike), rate):
            given += len(piece)
            yield piece


def _at_16_khz(sounds: Iterator[tuple[Samples, int]], rate: int) -> Iterator[Samples]:
    if rate == SAMPLE_RATE:
        yield from (samples for samples, _ in sounds)
        return
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler

    resampler = AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    for samples, _ in sounds:
        frame = AudioFrame.from_ndarray(samples[None], "flt", "mono")
        frame.sample_rate = rate
        yield from (out.to_ndarray()[0] for out in resampler.resample(frame) if out is not None)
    yield from (out.to_ndarray()[0] for out in resampler.resample(None) if out is not None)


def block_size(seconds: float) -> int:
    """The samples in a block of `seconds`, rounded; ValueError where there is none."""
    size = round(seconds * SAMPLE_RATE) if math.isfinite(seconds) else 0
    if size < 1:
        raise ValueError(f"a block of {seconds} s holds no samples")
    return size


def regrouped(pieces: Iterator[Samples], size: int) -> Iterator[Samples]:
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
