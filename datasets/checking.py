"""Looking at every file of a named set: does all that it should have lie there, and is each recording sound?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from datasets.catalogue import NamedSet
from datasets.librispeech import read
from datasets.utterance import Utterance

SAMPLE_RATE = 16000


@dataclass(frozen=True)
class Damage:
    """A recording that is not what LibriSpeech's are, and why."""

    audio: Path
    reason: str


@dataclass(frozen=True)
class Verification:
    """What was found in a named set's folder.

    Attributes:
        entry: what it should be.
        folder: where it is.
        utterances: how many have both audio and text.
        speakers: who read them.
        seconds: how long the sound recordings are together.
        without_audio: files that transcripts speak of and that are not there.
        without_text: recordings that no transcript speaks of.
        damaged: recordings that can't be decoded in full or are not 16 kHz mono FLAC.
    """

    entry: NamedSet
    folder: Path
    utterances: int
    speakers: frozenset[str]
    seconds: float
    without_audio: tuple[Path, ...]
    without_text: tuple[Path, ...]
    damaged: tuple[Damage, ...]

    @property
    def state(self) -> Literal["whole", "a part", "damaged"]:
        """`damaged` where files don't fit together or are of another set, `a part` where some are not there at all."""
        if self.without_audio or self.without_text or self.damaged or self.speakers - self.entry.speakers:
            return "damaged"
        if self.utterances > self.entry.utterances:
            return "damaged"
        whole = (self.entry.utterances, self.entry.speakers)
        return "whole" if (self.utterances, self.speakers) == whole else "a part"

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, a line each, naming the first file of its kind."""
        lines = []
        if self.without_audio:
            lines.append(
                f"{len(self.without_audio):,} utterances have no audio, the first {self.without_audio[0]}"
            )
        if self.without_text:
            lines.append(
                f"{len(self.without_text):,} recordings have no text, the first {self.without_text[0]}"
            )
        if self.damaged:
            first = self.damaged[0]
            lines.append(
                f"{len(self.damaged):,} recordings are damaged, the first {first.audio}: {first.reason}"
            )
        strangers = sorted(self.speakers - self.entry.speakers)
        if strangers:
            lines.append(
                f"speaker {strangers[0]} is not one of {self.entry.folder}'s: another set, or a mixture"
            )
        elif self.utterances > self.entry.utterances:
            lines.append(
                f"{self.utterances:,} utterances, where {self.entry.folder} has {self.entry.utterances:,}"
            )
        elif not lines and self.state == "a part":
            counts = f"{self.utterances:,} of {self.entry.utterances:,} utterances"
            readers = f"{len(self.speakers)} of {len(self.entry.speakers)} speakers"
            lines.append(f"{counts}, {readers}: a part, not {self.entry.folder}")
        return tuple(lines)


def verify(entry: NamedSet, folder: Path, *, progress: bool = True) -> Verification:
    """Compare a set's folder with the catalogue, and decode each recording in it.

    Recordings are decoded, one at a time: 4 ms each of 7 s, on one core.

    Raises DatasetError where the folder can't be read as a set's.
    """
    contents = read(folder)
    damaged: list[Damage] = []
    seconds = 0.0
    for utterance in _shown(contents.utterances, entry.name, progress):
        length = _length(utterance.audio)
        if isinstance(length, str):
            damaged.append(Damage(utterance.audio, length))
        else:
            seconds += length
    return Verification(
        entry=entry,
        folder=folder,
        utterances=len(contents.utterances),
        speakers=contents.speakers,
        seconds=seconds,
        without_audio=contents.without_audio,
        without_text=contents.without_text,
        damaged=tuple(damaged),
    )


def _shown(utterances: tuple[Utterance, ...], label: str, progress: bool) -> Iterator[Utterance]:
    yield from tqdm(
        utterances, desc=label, unit="recording", disable=None if progress else True, file=sys.stderr
    )


def _length(audio: Path) -> float | str:
    """Seconds of a sound recording, or what is wrong with it."""
    import av

    try:
        with av.open(str(audio)) as container:
            if container.format.name != "flac" or not container.streams.audio:
                return f"is {container.format.name}, not FLAC"
            stream = container.streams.audio[0]
            rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
            if (rate, channels) != (SAMPLE_RATE, 1):
                return f"has {channels} channels at {rate} Hz, where LibriSpeech has one at {SAMPLE_RATE}"
            # Unless it is told to, FFmpeg does not look at FLAC's checksums.
            stream.codec_context.options = {"err_detect": "crccheck+explode"}
            samples = sum(frame.samples for frame in container.decode(stream))
            if not stream.duration or not samples:
                return "has no sound in it"
            if samples != stream.duration:
                return f"gives {samples:,} of {stream.duration:,} samples"
            return samples / SAMPLE_RATE
    except (av.FFmpegError, OSError) as error:
        return f"can't be decoded ({error.strerror or error})"
