"""What is transcribed: single utterances, a long recording, ten seconds, an hour; LibriSpeech's or the sample's."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from app.audio.reading import SAMPLE_RATE, load_audio, open_audio
from datasets.librispeech import read
from datasets.sample import sample
from datasets.utterance import Utterance
from kernels.arrays import Reals
from models.features import LogMelFeatures, quiet_pieces

_LONGEST = 29.9  # seconds that fit one window


@dataclass(frozen=True)
class Material:
    """Recordings, as 16 kHz WAV files where they are not the data set's own.

    Attributes:
        timed: utterances of up to 30 s, with the seconds of each.
        long: a recording of minutes, which begins with `ten_seconds`; `long_seconds` in all.
    """

    timed: tuple[tuple[Utterance, float], ...]
    long: Path
    ten_seconds: Path
    description: str
    long_seconds: float

    def some(self, count: int) -> list[tuple[Utterance, float]]:
        """`count` utterances, evenly spaced over the whole set."""
        whole = len(self.timed)
        return [self.timed[i * whole // count] for i in range(min(count, whole))]

    @cached_property
    def hour(self) -> Path:
        """An hour of audio, beside `long` and made of it."""
        samples = load_audio(self.long)
        whole = 3600 * SAMPLE_RATE
        return _write(self.long.with_name("hour.wav"), np.tile(samples, whole // len(samples) + 1)[:whole])

    @cached_property
    def pieces(self) -> list[tuple[float, float]]:
        """Where Tilescribe cuts `long` for batches: start and end of each piece in seconds."""
        with open_audio(self.long) as source, LogMelFeatures(source.blocks(), 80) as features:
            cuts = quiet_pieces(features.levels, 0, features.content_frames)
        return [(first / 100, last / 100) for first, last in cuts]


def gather(data_dir: Path | None, chapter: Path | None, minutes: float, folder: Path) -> Material:
    """Collect or make the recordings.

    Args:
        data_dir: LibriSpeech's layout (such as LibriSpeech/test-clean); cuttings of the sample unless given.
        chapter: a folder of FLAC files to join; the sample over and over unless given.
        minutes: of the long recording, at most.
        folder: where files are made.

    Raises:
        datasets.utterance.DatasetError: `data_dir` is not in LibriSpeech's layout.
    """
    spoken = load_audio(sample().audio)
    if data_dir is None:
        utterances, what = _cuttings(spoken, folder), "cuttings of the sample"
    else:
        utterances, what = read(data_dir).utterances, data_dir.name
    timed = tuple((u, len(load_audio(u.audio)) / SAMPLE_RATE) for u in utterances)
    timed = tuple((u, seconds) for u, seconds in timed if seconds < _LONGEST)
    limit = int(minutes * 60 * SAMPLE_RATE)
    if chapter is None:
        samples, long_what = np.tile(spoken, limit // len(spoken) + 1), "the sample over and over"
    else:
        samples = np.concatenate([load_audio(path) for path in sorted(chapter.glob("*.flac"))])
        long_what = f"chapter {chapter.name} joined"
    samples = samples[:limit]
    length = len(samples) / SAMPLE_RATE / 60
    return Material(
        timed=timed,
        long=_write(folder / "long.wav", samples),
        ten_seconds=_write(folder / "ten-seconds.wav", samples[: 10 * SAMPLE_RATE]),
        long_seconds=60 * length,
        description=f"{what} ({len(timed)} utterances); {long_what} ({length:.1f} minutes)",
    )


def _cuttings(spoken: Reals, folder: Path) -> tuple[Utterance, ...]:
    """Twenty overlapping stretches of the sample, of 4 to 12 s."""
    made = []
    for i in range(20):
        length, first = (4 + i % 5 * 2) * SAMPLE_RATE, int(i % 4 * 0.7 * SAMPLE_RATE)
        path = _write(folder / f"cutting-{i:02}.wav", spoken[first : first + length])
        made.append(Utterance(path.stem, path, "not transcribed", speaker="flite rms"))
    return tuple(made)


def _write(path: Path, samples: Reals) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((samples * 32767).clip(-32768, 32767).astype("<i2").tobytes())
    return path
