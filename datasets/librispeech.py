"""LibriSpeech in its own layout: SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTTERANCE.flac with one transcript per chapter.

Panayotov et al., "LibriSpeech: an ASR corpus based on public domain audio books", ICASSP 2015.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets.utterance import DatasetError, Utterance, unreadable


@dataclass(frozen=True)
class Contents:
    """What a set's folder holds.

    Attributes:
        utterances: those with both audio and text, in the order of their ids.
        without_audio: the files that transcripts speak of and that are not there.
        without_text: the recordings that no transcript speaks of.
    """

    utterances: tuple[Utterance, ...]
    without_audio: tuple[Path, ...]
    without_text: tuple[Path, ...]

    @property
    def speakers(self) -> frozenset[str]:
        """Of the utterances."""
        return frozenset(u.speaker for u in self.utterances if u.speaker)

    @property
    def problem(self) -> str | None:
        """What does not fit together, in one line that names the first; None where all does."""
        remedy = "copy the set again, with every file of its chapters"
        silent, wordless = len(self.without_audio), len(self.without_text)
        if silent:
            first, also = self.without_audio[0], f", {wordless:,} recordings no text" if wordless else ""
            return (
                f"{first}: missing, though {_transcript(first).name} has its text; {silent:,} of "
                f"{len(self.utterances) + silent:,} utterances have no audio{also}: {remedy}"
            )
        if wordless:
            first = self.without_text[0]
            return (
                f"{first}: has no line in {_transcript(first).name}; {wordless:,} of "
                f"{len(self.utterances) + wordless:,} recordings have no text: {remedy}"
            )
        return None


def utterances(folder: Path) -> Iterator[Utterance]:
    """The utterances under a set's folder (such as `LibriSpeech/test-clean`), in the order of their ids.

    Args:
        folder: holds one folder per speaker.

    Raises:
        DatasetError: as `read`; a transcript line has no audio, or a recording no transcript line.
    """
    contents = read(folder)
    if contents.problem:
        raise DatasetError(contents.problem)
    yield from contents.utterances


def read(folder: Path) -> Contents:
    """Read the transcripts under a set's folder and look which recordings are there. Opens no recording.

    Raises:
        DatasetError: the folder is missing, can't be read or holds no transcripts; a transcript line has no text,
            or repeats an id.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; give the one that holds a folder for each speaker")
    found: list[Utterance] = []
    without_audio: list[Path] = []
    without_text: list[Path] = []
    transcripts = 0
    try:
        for chapter in _chapters(folder):
            names = _names(chapter)
            recordings = {name for name in names if name.endswith(".flac") and (chapter / name).is_file()}
            for transcript in (chapter / name for name in names if name.endswith(".trans.txt")):
                transcripts += 1
                for utterance in _lines(transcript):
                    if utterance.audio.name in recordings:
                        recordings.remove(utterance.audio.name)
                        found.append(utterance)
                    else:
                        without_audio.append(utterance.audio)
            without_text += [chapter / name for name in sorted(recordings)]
    except OSError as error:
        raise unreadable(folder, error) from None
    if not transcripts and not without_text:
        raise DatasetError(
            f"{folder}: no SPEAKER/CHAPTER/*.trans.txt in it; this is not LibriSpeech's layout"
        )
    found.sort(key=lambda utterance: utterance.id)
    return Contents(tuple(found), tuple(without_audio), tuple(without_text))


def _transcript(audio: Path) -> Path:
    return audio.with_name(f"{audio.stem.rpartition('-')[0]}.trans.txt")


def _chapters(folder: Path) -> Iterator[Path]:
    """SPEAKER/CHAPTER folders, in order. (pathlib's glob would pass over folders that can't be read.)"""
    for speaker in (folder / name for name in _names(folder)):
        if speaker.is_dir():
            yield from (chapter for name in _names(speaker) if (chapter := speaker / name).is_dir())


def _names(folder: Path) -> list[str]:
    """What is in a folder, without hidden files (macOS leaves `._*` beside each file on foreign disks)."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def _lines(transcript: Path) -> Iterator[Utterance]:
    try:
        lines = transcript.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise unreadable(transcript, error) from None
    seen = set()
    for number, line in enumerate(lines, start=1):
        name, _, text = line.strip().partition(" ")
        if not name:
            continue
        problem = "has no text" if not text.strip() else "a second time" if name in seen else ""
        if problem:
            raise DatasetError(f"{transcript}, line {number}: utterance {name} {problem}: copy the set again")
        seen.add(name)
        yield Utterance(name, transcript.parent / f"{name}.flac", text.strip(), speaker=name.split("-")[0])
