"""Opening a data set: a named one, or a manifest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import librispeech, manifest
from datasets.librispeech import CATALOGUE, NamedSet, named_set
from datasets.storing import absent, data_folder, fetch, located
from datasets.utterance import DatasetError, Utterance


@dataclass(frozen=True)
class Dataset:
    """Utterances, and what may be said of them in a report.

    Attributes:
        name: of the named set, or the manifest's file name.
        utterances: in the order of their ids.
        expected: how many the whole has; None for a manifest, which is taken as it is given.
        expected_speakers: how many the whole has; None for a manifest.
        without_audio: transcript lines that were passed over, as their audio is missing.
        without_text: recordings that were passed over, as no transcript speaks of them.
    """

    name: str
    utterances: tuple[Utterance, ...]
    expected: int | None = None
    expected_speakers: int | None = None
    without_audio: int = 0
    without_text: int = 0

    @property
    def speakers(self) -> int:
        """How many speakers the utterances have, so far as they name them."""
        return len({u.speaker for u in self.utterances if u.speaker is not None})

    @property
    def complete(self) -> bool | None:
        """Whether the utterances are the whole of what `name` says; None where nothing says what the whole is."""
        if self.expected is None:
            return None
        enough = self.expected_speakers in (None, self.speakers)
        return len(self.utterances) == self.expected and enough and not self.without_audio

    @property
    def description(self) -> str:
        """The name and how much of it there is, in one line. A part is never called by the whole's name alone."""
        count, whole = f"{len(self.utterances):,}", self.name.removeprefix("librispeech-")
        left_out = ((self.without_audio, "audio"), (self.without_text, "text"))
        passed = [f"{files:,} without {what}" for files, what in left_out if files]
        if self.expected is None:
            extent = f"{count} utterances, as given"
        elif self.complete:
            extent = f"all {count} utterances"
        elif len(self.utterances) < self.expected:
            extent = f"{count} of {self.expected:,} utterances: a part, not {whole}"
        else:
            extent = f"{count} utterances, not the {self.expected:,} of {whole}: not {whole}"
        return f"{self.name}: {extent}" + (f" ({', '.join(passed)} left out)" if passed else "")

    @property
    def content_sha256(self) -> str:
        """SHA-256 over ids and reference texts in the order of the ids; says which data a record is about.

        One JSON array [id, text] a line, in UTF-8, with nothing escaped that need not be.
        """
        digest = hashlib.sha256()
        for u in self.utterances:
            digest.update((json.dumps([u.id, u.text], ensure_ascii=False) + "\n").encode())
        return digest.hexdigest()

    def only(self, utterances: tuple[Utterance, ...]) -> Dataset:
        """This data set with some of its utterances alone: a part, unless it is all of them."""
        chosen = tuple(sorted(utterances, key=lambda utterance: utterance.id))
        expected = self.expected
        if expected is None and chosen != self.utterances:
            expected = len(self.utterances)
        return replace(self, utterances=chosen, expected=expected)


def open_dataset(
    name_or_manifest: str | os.PathLike[str],
    data_dir: Path | None = None,
    *,
    download: bool = False,
    allow_missing: bool = False,
    catalogue: Mapping[str, NamedSet] = CATALOGUE,
) -> Dataset:
    """Open a named set or a manifest. Opens no recording.

    Args:
        name_or_manifest: such as librispeech-test-clean, or a path that ends in .jsonl, .csv or .tsv. A string that is
            a set's name means the set, even where a file has that name.
        data_dir: where the named set is (its own folder, the LibriSpeech folder or the one above it); the user's
            cache unless given. For a manifest: what its paths are relative to, instead of its own folder.
        download: fetch a named set of which the user's cache has nothing. What is there, even a part, is taken as it
            is, and nothing is ever fetched into `data_dir`, which may be a slip of the pen.
        allow_missing: pass over transcript lines without audio and recordings without text, and count them.
        catalogue: the named sets.

    Raises:
        UnknownDatasetError: nothing has that name.
        DatasetError: it is not on this machine; or its files don't fit together, or are another set's.
    """
    if not isinstance(name_or_manifest, str) or name_or_manifest not in catalogue:
        return _open_manifest(name_or_manifest, data_dir, allow_missing, catalogue)
    entry = catalogue[name_or_manifest]
    folder = located(entry, data_dir)
    if folder is None and download and data_dir is None:
        folder = fetch(entry)
    if folder is None:
        raise absent(entry, data_dir)
    contents = librispeech.read(folder)
    if stranger := entry.stranger(contents):
        raise DatasetError(
            f"{folder}: {stranger}: give the folder of {entry.folder}, or name the set that it is"
        )
    if contents.problem and not allow_missing:
        raise DatasetError(contents.problem)
    if not contents.utterances:
        raise DatasetError(f"{folder}: no utterance has both audio and text: copy the set again")
    return Dataset(
        name=entry.name,
        utterances=contents.utterances,
        expected=entry.utterances,
        expected_speakers=len(entry.speakers),
        without_audio=len(contents.without_audio),
        without_text=len(contents.without_text),
    )


def _open_manifest(
    given: str | os.PathLike[str],
    data_dir: Path | None,
    allow_missing: bool,
    catalogue: Mapping[str, NamedSet],
) -> Dataset:
    path = Path(given).expanduser()
    if path.is_dir():
        raise DatasetError(
            f"{path}: is a folder: give a manifest ({', '.join(manifest.SUFFIXES)}), or a set's name "
            f"({', '.join(catalogue)}) with --data-dir {path}"
        )
    if not path.exists():
        if path.suffix.lower() not in manifest.SUFFIXES and len(path.parts) < 2:
            named_set(str(given), catalogue)
        raise DatasetError(f"{path}: no such file: check the path, or name a set: {', '.join(catalogue)}")
    base = None if data_dir is None else data_folder(data_dir)
    utterances, missing = manifest.read(path, base)
    if missing and not (allow_missing and utterances):
        total = len(utterances) + len(missing)
        raise DatasetError(
            f"{missing[0]}; {len(missing):,} of {total:,} recordings are: paths are relative to {base or path.parent}"
        )
    return Dataset(path.name, utterances, without_audio=len(missing))
