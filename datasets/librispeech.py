"""LibriSpeech: its sets by name, what a set's folder holds, and whether each recording in it is sound.

Panayotov et al., "LibriSpeech: an ASR corpus based on public domain audio books", ICASSP 2015; openslr.org resource
12; CC BY 4.0. Its own layout is SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTTERANCE.flac with one transcript per chapter.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from datasets.utterance import DatasetError, UnknownDatasetError, Utterance, unreadable

SAMPLE_RATE = 16000
MIRRORS = (
    "https://www.openslr.org/resources/12",
    "https://openslr.trmal.net/resources/12",
    "https://us.openslr.org/resources/12",
    "https://openslr.elda.org/resources/12",
    "https://openslr.magicdatatech.com/resources/12",
)


@dataclass(frozen=True)
class Contents:
    """What a set's folder holds: utterances in the order of their ids, and what has no audio or no transcript line."""

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
        silent, wordless = len(self.without_audio), len(self.without_text)
        if not silent and not wordless:
            return None
        first = (self.without_audio or self.without_text)[0]
        transcript = f"{first.stem.rpartition('-')[0]}.trans.txt"
        total = len(self.utterances) + (silent or wordless)
        if silent:
            also = f", {wordless:,} recordings no text" if wordless else ""
            wrong = f"missing, though {transcript} has its text; {silent:,} of {total:,} utterances have no audio{also}"
        else:
            wrong = f"has no line in {transcript}; {wordless:,} of {total:,} recordings have no text"
        return f"{first}: {wrong}: copy the set again, with every file of its chapters"


@dataclass(frozen=True)
class NamedSet:
    """A set of LibriSpeech, whole.

    Attributes:
        folder: its folder in an unpacked LibriSpeech, such as test-clean; FOLDER.tar.gz is the archive.
        utterances: how many it has.
        hours: of speech.
        speakers: LibriVox's numbers of those who read; no two sets have one in common.
        mirrors: where the archive lies, each without its name; tried in turn.
    """

    folder: str
    archive_bytes: int
    archive_md5: str
    utterances: int
    hours: float
    speakers: frozenset[str]
    mirrors: tuple[str, ...] = MIRRORS

    @property
    def name(self) -> str:
        """As commands take it, such as librispeech-test-clean."""
        return f"librispeech-{self.folder}"

    @property
    def archive(self) -> str:
        """The archive's file name."""
        return f"{self.folder}.tar.gz"

    @property
    def urls(self) -> tuple[str, ...]:
        """The archive at each mirror."""
        return tuple(f"{mirror}/{self.archive}" for mirror in self.mirrors)

    def is_whole(self, contents: Contents) -> bool:
        """Whether a folder's contents are the set: every utterance with audio and text, and nothing else."""
        found = (len(contents.utterances), contents.speakers)
        return contents.problem is None and found == (self.utterances, self.speakers)

    def stranger(self, contents: Contents) -> str | None:
        """What shows that a folder holds something of another set; None where nothing does."""
        others = sorted(contents.speakers - self.speakers)
        whose = f"is not one of {self.folder}'s: another set, or a mixture"
        return f"speaker {others[0]} {whose}" if others else None


# Bytes and MD5 of the archives, and utterances; hours and speakers from LibriSpeech's own SPEAKERS.TXT, to which the
# counts of utterances belong. (The paper's table has the hours of dev-other and test-other the other way round.)
_SETS = {
    "test-clean": (346_663_984, "32fa31d27d2e1cad72775fee3f4849a9", 2620, 5.40),
    "test-other": (328_757_843, "fb5a50374b501bb3bac4815ee91d3135", 2939, 5.34),
    "dev-clean": (337_926_286, "42e2234ba48799c1f50f24a7926300a1", 2703, 5.39),
    "dev-other": (314_305_928, "c8d0bcc9cca99d4f8b62fcc847357931", 2864, 5.12),
}
_SPEAKERS = {
    "test-clean": "61 121 237 260 672 908 1089 1188 1221 1284 1320 1580 1995 2094 2300 2830 2961 3570 3575 3729 4077 "
    "4446 4507 4970 4992 5105 5142 5639 5683 6829 6930 7021 7127 7176 7729 8224 8230 8455 8463 8555",
    "test-other": "367 533 1688 1998 2033 2414 2609 3005 3080 3331 3528 3538 3764 3997 4198 4294 4350 4852 5442 5484 "
    "5764 6070 6128 6432 6938 7018 7105 7902 7975 8131 8188 8280 8461",
    "dev-clean": "84 174 251 422 652 777 1272 1462 1673 1919 1988 1993 2035 2078 2086 2277 2412 2428 2803 2902 3000 "
    "3081 3170 3536 3576 3752 3853 5338 5536 5694 5895 6241 6295 6313 6319 6345 7850 7976 8297 8842",
    "dev-other": "116 700 1255 1585 1630 1650 1651 1686 1701 2506 3660 3663 3915 4153 4323 4515 4570 4572 4831 5543 "
    "5849 6123 6267 6455 6467 6599 6841 7601 7641 7697 8173 8254 8288",
}
CATALOGUE = {
    f"librispeech-{folder}": NamedSet(folder, *figures, frozenset(_SPEAKERS[folder].split()))
    for folder, figures in _SETS.items()
}
"""LibriSpeech's two test sets and two development sets, by their names."""


def named_set(name: str) -> NamedSet:
    """The set of that name.

    Raises:
        UnknownDatasetError: there is none.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    near = difflib.get_close_matches(name.lower(), CATALOGUE, n=1)
    hint = f" did you mean {near[0]}?" if near else ""
    raise UnknownDatasetError(
        f"unknown data set {name!r}:{hint} Known: {', '.join(CATALOGUE)}; or a manifest (.jsonl, .csv, .tsv)"
    )


def utterances(folder: Path) -> tuple[Utterance, ...]:
    """The utterances under a set's folder, in the order of their ids; each has its audio, and each recording its text.

    Raises:
        DatasetError: as `read`; a transcript line has no audio, or a recording no transcript line.
    """
    contents = read(folder)
    if contents.problem:
        raise DatasetError(contents.problem)
    return contents.utterances


def read(folder: Path) -> Contents:
    """Read the transcripts under a set's folder, and look which recordings are there. Opens no recording.

    Raises:
        DatasetError: the folder is missing, can't be read or holds no transcripts; a transcript line has no text,
            or repeats an id.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; give the one that holds a folder for each speaker")
    spoken: list[Utterance] = []
    transcripts: list[Path] = []
    recordings: set[Path] = set()
    try:
        for chapter in (chapter for speaker in _folders(folder) for chapter in _folders(speaker)):
            files = [chapter / name for name in _names(chapter)]
            recordings.update(file for file in files if file.suffix == ".flac" and file.is_file())
            transcripts += [file for file in files if file.name.endswith(".trans.txt")]
        seen: set[str] = set()
        for transcript in transcripts:
            spoken += _lines(transcript, seen)
    except OSError as error:
        raise unreadable(folder, error) from None
    if not transcripts and not recordings:
        raise DatasetError(
            f"{folder}: no SPEAKER/CHAPTER/*.trans.txt in it; this is not LibriSpeech's layout"
        )
    spoken.sort(key=lambda utterance: utterance.id)
    without_text = recordings - {utterance.audio for utterance in spoken}
    return Contents(
        tuple(utterance for utterance in spoken if utterance.audio in recordings),
        tuple(utterance.audio for utterance in spoken if utterance.audio not in recordings),
        tuple(sorted(without_text)),
    )


def _folders(folder: Path) -> Iterator[Path]:
    return (path for name in _names(folder) if (path := folder / name).is_dir())


def _names(folder: Path) -> list[str]:
    """What is in a folder, without hidden files (macOS leaves `._*` beside each file on foreign disks).

    pathlib's glob would pass over folders that can't be read.
    """
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def _lines(transcript: Path, seen: set[str]) -> Iterator[Utterance]:
    """What a transcript says; `seen` are the ids that there were before, to which it adds its own."""
    try:
        lines = transcript.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise unreadable(transcript, error) from None
    for number, line in enumerate(lines, start=1):
        name, _, text = line.strip().partition(" ")
        if not name:
            continue
        problem = "has no text" if not text.strip() else "a second time" if name in seen else ""
        if problem:
            raise DatasetError(f"{transcript}, line {number}: utterance {name} {problem}: copy the set again")
        seen.add(name)
        yield Utterance(name, transcript.parent / f"{name}.flac", text.strip(), speaker=name.split("-")[0])


@dataclass(frozen=True)
class Verification:
    """What was found in a named set's folder.

    Attributes:
        seconds: how long the sound recordings are together.
        damaged: what is wrong with each recording that can't be decoded in full or is not 16 kHz mono FLAC.
        state: `damaged` where files don't fit together or are of another set, `a part` where some are not there at all.
        problems: a line each, naming the first file of its kind.
    """

    contents: Contents
    seconds: float
    damaged: dict[Path, str]
    state: Literal["whole", "a part", "damaged"]
    problems: list[str]


def verify(entry: NamedSet, folder: Path) -> Verification:
    """Compare a set's folder with the catalogue, and decode each recording in it: 4 ms each of 7 s, on one core.

    Raises:
        DatasetError: the folder can't be read as a set's.
    """
    contents = read(folder)
    seconds, damaged = 0.0, {}
    for utterance in tqdm(contents.utterances, desc=entry.name, unit="recording", disable=None):
        length = _length(utterance.audio)
        if isinstance(length, str):
            damaged[utterance.audio] = length
        else:
            seconds += length
    misfits = (
        (contents.without_audio, "utterances have no audio"),
        (contents.without_text, "recordings have no text"),
        ([f"{audio}: {reason}" for audio, reason in damaged.items()], "recordings are damaged"),
    )
    problems = [f"{len(found):,} {what}, the first {found[0]}" for found, what in misfits if found]
    count = len(contents.utterances)
    if stranger := entry.stranger(contents):
        problems.append(stranger)
    elif count > entry.utterances:
        problems.append(f"{count:,} utterances, where {entry.folder} has {entry.utterances:,}")
    if problems:
        return Verification(contents, seconds, damaged, "damaged", problems)
    if entry.is_whole(contents):
        return Verification(contents, seconds, damaged, "whole", [])
    counts = f"{count:,} of {entry.utterances:,} utterances"
    readers = f"{len(contents.speakers)} of {len(entry.speakers)} speakers"
    part = f"{counts}, {readers}: a part, not {entry.folder}"
    return Verification(contents, seconds, damaged, "a part", [part])


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
