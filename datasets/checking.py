"""Looking at every file of a named set: does all that it should have lie there, and is each recording sound?"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from datasets.catalogue import NamedSet
from datasets.librispeech import Contents, read

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
        contents: the utterances, and the files that don't fit together.
        seconds: how long the sound recordings are together.
        damaged: recordings that can't be decoded in full or are not 16 kHz mono FLAC.
    """

    entry: NamedSet
    contents: Contents
    seconds: float
    damaged: tuple[Damage, ...]

    @property
    def state(self) -> Literal["whole", "a part", "damaged"]:
        """`damaged` where files don't fit together or are of another set, `a part` where some are not there at all."""
        if self._misfits:
            return "damaged"
        return "whole" if self.entry.is_whole(self.contents) else "a part"

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, a line each, naming the first file of its kind."""
        if self.state != "a part":
            return self._misfits
        counts = f"{len(self.contents.utterances):,} of {self.entry.utterances:,} utterances"
        readers = f"{len(self.contents.speakers)} of {len(self.entry.speakers)} speakers"
        return (f"{counts}, {readers}: a part, not {self.entry.folder}",)

    @property
    def _misfits(self) -> tuple[str, ...]:
        entry, contents = self.entry, self.contents
        lines = [
            f"{len(found):,} {what}, the first {found[0]}"
            for found, what in (
                (contents.without_audio, "utterances have no audio"),
                (contents.without_text, "recordings have no text"),
                ([f"{d.audio}: {d.reason}" for d in self.damaged], "recordings are damaged"),
            )
            if found
        ]
        strangers = sorted(contents.speakers - entry.speakers)
        if strangers:
            lines.append(f"speaker {strangers[0]} is not one of {entry.folder}'s: another set, or a mixture")
        elif len(contents.utterances) > entry.utterances:
            lines.append(
                f"{len(contents.utterances):,} utterances, where {entry.folder} has {entry.utterances:,}"
            )
        return tuple(lines)


def verify(entry: NamedSet, folder: Path, *, progress: bool = True) -> Verification:
    """Compare a set's folder with the catalogue, and decode each recording in it.

    Recordings are decoded one at a time: 4 ms each of 7 s, on one core.

    Raises:
        DatasetError: the folder can't be read as a set's.
    """
    contents = read(folder)
    damaged: list[Damage] = []
    seconds = 0.0
    for utterance in tqdm(
        contents.utterances,
        desc=entry.name,
        unit="recording",
        disable=None if progress else True,
        file=sys.stderr,
    ):
        length = _length(utterance.audio)
        if isinstance(length, str):
            damaged.append(Damage(utterance.audio, length))
        else:
            seconds += length
    return Verification(entry, contents, seconds, tuple(damaged))


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
