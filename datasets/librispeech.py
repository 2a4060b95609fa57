"""LibriSpeech in its own layout: SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTTERANCE.flac with one transcript per chapter.

Panayotov et al., "LibriSpeech: an ASR corpus based on public domain audio books", ICASSP 2015.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets.utterance import DatasetError, Utterance


def utterances(folder: Path) -> Iterator[Utterance]:
    """The utterances under a set's folder (such as `LibriSpeech/test-clean`), in the order of their ids.

    Args:
        folder: holds one folder per speaker.

    Raises:
        DatasetError: the folder is missing or holds no transcripts; a transcript line has no audio, or no text.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; give the one that holds a folder for each speaker")
    transcripts = sorted(folder.glob("*/*/*.trans.txt"))
    if not transcripts:
        raise DatasetError(
            f"{folder}: no SPEAKER/CHAPTER/*.trans.txt in it; this is not LibriSpeech's layout"
        )
    for transcript in transcripts:
        for number, line in enumerate(transcript.read_text(encoding="utf-8").splitlines(), start=1):
            name, _, text = line.strip().partition(" ")
            if not name:
                continue
            if not text:
                raise DatasetError(f"{transcript}, line {number}: utterance {name} has no text")
            audio = transcript.parent / f"{name}.flac"
            if not audio.is_file():
                raise DatasetError(f"{audio}: missing, though {transcript.name} has its text")
            yield Utterance(name, audio, text, speaker=name.split("-")[0])
