"""What is transcribed: single utterances, a long recording, ten seconds, an hour; LibriSpeech's or the sample's."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.audio.reading import load_audio
from datasets.librispeech import read
from datasets.sample import sample
from datasets.utterance import Utterance

__all__ = ["Material", "gather", "hour"]

_RATE = 16000
_LONGEST = 29.9  # seconds that fit one window
Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Material:
    """Recordings, as 16 kHz WAV files where they are not the data set's own.

    Attributes:
        utterances: of up to 30 s each, with the seconds of each.
        seconds: of `utterances`.
        long: a recording of minutes.
        ten_seconds: the start of `long`.
        description: what the audio is.
    """

    utterances: tuple[Utterance, ...]
    seconds: tuple[float, ...]
    long: Path
    ten_seconds: Path
    description: str

    def some(self, count: int) -> list[tuple[Utterance, float]]:
        """`count` utterances, evenly spaced over the whole set."""
        pairs = list(zip(self.utterances, self.seconds, strict=True))
        return [pairs[i * len(pairs) // count] for i in range(min(count, len(pairs)))]


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
    if data_dir is None:
        utterances, what = _cuttings(folder), "cuttings of the sample"
    else:
        utterances, what = read(data_dir).utterances, data_dir.name
    timed = [(u, len(load_audio(u.audio)) / _RATE) for u in utterances]
    timed = [(u, seconds) for u, seconds in timed if seconds < _LONGEST]
    if chapter is None:
        spoken = load_audio(sample().audio)
        samples = np.tile(spoken, int(minutes * 60 * _RATE / len(spoken)) + 1)
        long_what = "the sample over and over"
    else:
        samples = np.concatenate([load_audio(path) for path in sorted(chapter.glob("*.flac"))])
        long_what = f"chapter {chapter.name} joined"
    samples = samples[: int(minutes * 60 * _RATE)]
    return Material(
        utterances=tuple(u for u, _ in timed),
        seconds=tuple(seconds for _, seconds in timed),
        long=_write(folder / "long.wav", samples),
        ten_seconds=_write(folder / "ten-seconds.wav", samples[: 10 * _RATE]),
        description=f"{what} ({len(timed)} utterances); {long_what} ({len(samples) / _RATE / 60:.1f} minutes)",
    )


def hour(material: Material) -> Path:
    """An hour of audio, beside `material.long` and made of it."""
    path = material.long.with_name("hour.wav")
    if not path.exists():
        samples = load_audio(material.long)
        _write(path, np.tile(samples, 3600 * _RATE // len(samples) + 1)[: 3600 * _RATE])
    return path


def _cuttings(folder: Path) -> tuple[Utterance, ...]:
    """Twenty overlapping stretches of the sample, of 4 to 12 s."""
    spoken = load_audio(sample().audio)
    made = []
    for i in range(20):
        length, first = int((4 + i % 5 * 2) * _RATE), int(i % 4 * 0.7 * _RATE)
        path = _write(folder / f"cutting-{i:02}.wav", spoken[first : first + length])
        made.append(Utterance(f"cutting-{i:02}", path, "not transcribed", speaker="flite rms"))
    return tuple(made)


def _write(path: Path, samples: Samples) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, _RATE, 0, "NONE", ""))
        file.writeframes((samples * 32767).clip(-32768, 32767).astype("<i2").tobytes())
    return path
