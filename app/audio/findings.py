"""What is odd about a recording, where that decides what comes of it: each said once, after all has been read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.audio.resampling import SAMPLE_RATE

if TYPE_CHECKING:  # imported where it is used: a command's --help must not wait for it
    import numpy as np
    from numpy.typing import NDArray

_QUIET = 0.005  # a peak under -46 dB of full scale
_LOUD = 32.0  # a peak over +30 dB, which no recording has: samples on another scale
_SQUARE = 0.98  # of full scale: samples over it have been cut off, where more than _CLIPPED of all are
_CLIPPED = 0.01
_TOLD = 3  # damaged places that are named


@dataclass
class Findings:
    """What one reading found.

    Attributes:
        notes: lines to be said.
        undecoded: seconds that could not be decoded.
        samples: how many were read, at 16 kHz.
        peak: the largest of them, without its sign.
    """

    notes: list[str] = field(default_factory=list)
    undecoded: float = 0.0
    samples: int = 0
    peak: float = 0.0
    _clipped: int = 0

    def measured(self, blocks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """The blocks, measured as they pass."""
        import numpy as np

        for block in blocks:
            peak = max(float(block.max()), -float(block.min()))
            self.samples += len(block)
            self.peak = max(self.peak, peak)
            if peak > _SQUARE:
                self._clipped += int(np.count_nonzero(np.abs(block) > _SQUARE))
            yield block

    def complete(
        self,
        cancelled: float,
        lost: Sequence[tuple[float, float]] = (),
        seams: Sequence[float] = (),
        understated: str = "",
        other_tracks: str = "",
    ) -> None:
        """Say what all of it comes to.

        Args:
            cancelled: seconds in which a mix of the channels loses the sound.
            lost: places and lengths, in seconds, of what could not be decoded.
            seams: places where it is not known how much is missing.
            understated: what is to be said of a header that declares less than there is.
            other_tracks: the audio tracks that are not read.
        """
        self.undecoded = sum(seconds for _, seconds in lost)
        if understated:
            self.notes.append(understated)
        if len(lost) == 1:
            self.notes.append(f"{lost[0][1]:.1f} s could not be decoded at {_clock(lost[0][0])}")
        elif lost:
            places = _some([f"{seconds:.1f} s at {_clock(at)}" for at, seconds in lost])
            self.notes.append(f"{self.undecoded:.1f} s could not be decoded: {places}")
        if seams:
            places = _some([_clock(at) for at in seams])
            self.notes.append(f"damaged at {places}: how much is missing there can't be told")
        if cancelled > 0.05 * self.samples / SAMPLE_RATE:
            self.notes.append(
                f"mixing its channels would lose {cancelled:.0f} s: the strongest one is taken there"
            )
        if self.peak < _QUIET:
            level = (
                f"very quiet, its peak is {20 * math.log10(self.peak):.0f} dB" if self.peak else "all silence"
            )
            others = f"; audio_track chooses among its others: {other_tracks}" if other_tracks else ""
            self.notes.append(level + others)
        elif self.peak > _LOUD:
            self.notes.append(f"samples up to {self.peak:.0f} where full scale is 1.0: its level is lowered")
        elif self._clipped > _CLIPPED * self.samples and self.peak <= 4.0:
            self.notes.append(f"clipped: {self._clipped / self.samples:.0%} of its samples are at full scale")


def _some(places: list[str]) -> str:
    more = [f"{len(places) - _TOLD} more places"] if len(places) > _TOLD else []
    return ", ".join(places[:_TOLD] + more)


def _clock(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{minutes}:{int(seconds) % 60:02d}"
