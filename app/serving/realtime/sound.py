"""Sound as clients of sessions send it: raw samples that become those of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.packet import Packet

from kernels.arrays import Reals
from models.features import SAMPLE_RATE

__all__ = ["FORMATS", "Decoded", "Format"]


@dataclass(frozen=True)
class Format:
    """One of mono samples.

    Attributes:
        codec: FFmpeg's name for it.
        size: bytes of a sample.
        rate: in Hz, unless another is given.
        rates: that can be given.
    """

    codec: str
    size: int
    rate: int
    rates: range


FORMATS = {
    "audio/pcm": Format("pcm_s16le", 2, 24000, range(8000, 48001)),
    "audio/pcmu": Format("pcm_mulaw", 1, 8000, range(8000, 8001)),
    "audio/pcma": Format("pcm_alaw", 1, 8000, range(8000, 8001)),
}
"""By OpenAI's names; theirs is 24000 Hz for the first."""


class Decoded:
    """Turns bytes of a format, as they come, into samples at 16 kHz."""

    def __init__(self, name: str, rate: int) -> None:
        """Begin a stream of the format with this name."""
        self.name, self.rate = name, rate
        self._codec = cast(AudioCodecContext, AudioCodecContext.create(FORMATS[name].codec, "r"))
        self._codec.sample_rate, self._codec.layout = rate, "mono"
        self._begin()

    def _begin(self) -> None:
        self._resampler = AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)

    def take(self, data: bytes) -> Reals:
        """The samples of whole samples, but for some ms that come with what follows."""
        frames = self._codec.decode(Packet(data)) if data else []
        for frame in frames:
            frame.pts = None
        return _joined([out for frame in frames for out in self._resampler.resample(frame)])

    def end(self) -> Reals:
        """The samples that are left; what comes then is a new stream."""
        left = _joined(self._resampler.resample(None))
        self._begin()
        return left


def _joined(frames: list[AudioFrame]) -> Reals:
    return np.concatenate([np.zeros(0, np.float32), *(frame.to_ndarray()[0] for frame in frames)])
