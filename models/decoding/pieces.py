"""What is read of a recording: its clips, the speech in them, and pieces that are cut where it is quietest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from models.decoding.coverage import Ledger
from models.decoding.options import DecodeOptions
from models.decoding.segments import Segment, Window
from models.features import FRAMES_PER_SECOND, N_FRAMES, LogMelFeatures, quiet_pieces
from models.voice import common

# A pause up to this one is read with the speech on both sides: windows are then where they are without voice activity.
_SHORT_PAUSE = 5 * FRAMES_PER_SECOND


@dataclass
class Piece:
    """A part of a recording, read from frame `seek` to before `end`.

    The last word ended at `spoken_until` seconds, the last segment at `told_until`.
    """

    features: LogMelFeatures
    seek: int
    end: int
    spoken_until: float
    told_until: float
    ledger: Ledger | None = None
    segments: list[Segment] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether it has been read to its end."""
        return self.seek >= self.end

    def window(self) -> Window:
        """What is read of it next."""
        return Window(self.seek, min(N_FRAMES, self.end - self.seek))


def _clips(features: LogMelFeatures, options: DecodeOptions) -> list[tuple[int, int]]:
    """The first frame of each clip and the frame after its last, within the recording."""
    content = features.content_frames
    points = [round(t * FRAMES_PER_SECOND) for t in options.clips] or [0]
    if len(points) % 2 == 1:
        points.append(content)
    return [(first, min(last, content)) for first, last in zip(points[::2], points[1::2], strict=True)]


def ledger_of(features: LogMelFeatures, options: DecodeOptions) -> Ledger | None:
    """The account of the speech in the clips; None without voice activity."""
    return None if features.voice is None else Ledger(features.voice, _clips(features, options))


def spoken(features: LogMelFeatures, options: DecodeOptions) -> list[tuple[int, int]]:
    """The clips, or what is speech in them, short pauses with it."""
    clips = _clips(features, options)
    if features.voice is None:
        return clips
    frames = [
        (int(a * FRAMES_PER_SECOND), math.ceil(b * FRAMES_PER_SECOND)) for a, b in features.voice.spans()
    ]
    found: list[tuple[int, int]] = []
    for clip in clips:
        joined: list[tuple[int, int]] = []
        for first, last in common([clip], frames):
            if joined and first - joined[-1][1] <= _SHORT_PAUSE:
                joined[-1] = joined[-1][0], last
            else:
                joined.append((first, last))
        found += joined
    return found


def pieces_of(features: LogMelFeatures, options: DecodeOptions, ledger: Ledger | None) -> list[Piece]:
    """The clips, divided where they are quietest."""
    return [
        Piece(features, first, last, first / FRAMES_PER_SECOND, first / FRAMES_PER_SECOND, ledger)
        for clip in spoken(features, options)
        for first, last in quiet_pieces(features.loudness, *clip)
    ]
