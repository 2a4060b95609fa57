"""Opening a data set: a named one, or a manifest."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from datasets import MANIFESTS, librispeech, manifest
from datasets.librispeech import CATALOGUE, NamedSet, named_set
from datasets.storing import absent, data_folder, fetch, located
from datasets.utterance import DatasetError, Utterance


@dataclass(frozen=True)
class Dataset:
    """Utterances in the order of their ids, and what may be said of them in a report.

    Attributes:
        name: of the named set, or the manifest's file name.
        description: the name and how much of it there is. A part is never called by the whole's name alone.
        expected: how many utterances the whole has; None for a manifest, which is taken as it is given.
        complete: whether the utterances are the whole of what `name` says; None for a manifest.
    """

    name: str
    utterances: tuple[Utterance, ...]
    description: str
    expected: int | None = None
    complete: bool | None = None

    @property
    def content_sha256(self) -> str:
        """SHA-256 over ids and reference texts in the order of the ids; says which data a record is about.

        One JSON array [id, text] a line, in UTF-8, with nothing escaped that need not be.
        """
        digest = hashlib.sha256()
        for u in self.utterances:
            digest.update((json.dumps([u.id, u.text], ensure_ascii=False) + "\n").encode())
        return digest.hexdigest()


def open_dataset(
    name_or_manifest: str | os.PathLike[str],
    data_dir: Path | None = None,
    *,
    download: bool = False,
    allow_missing: bool = False,
) -> Dataset:
    """Open a named set or a manifest. Opens no recording.

    Args:
        name_or_manifest: such as librispeech-test-clean, or a path that ends in .jsonl, .csv or .tsv. A string that is
            a set's name means the set, even where a file has that name.
        data_dir: where the named set is, as `located` takes it. For a manifest: what its paths are relative to, instead
            of its own folder.
        download: fetch a named set of which the user's cache has nothing. What is there, even a part, is taken as it
            is, and nothing is ever fetched into `data_dir`, which may be a slip of the pen.
        allow_missing: pass over transcript lines without audio and recordings without text.

    Raises:
        UnknownDatasetError: nothing has that name.
        DatasetError: it is not on this machine; or its files don't fit together, or are another set's.
    """
    if not isinstance(name_or_manifest, str) or name_or_manifest not in CATALOGUE:
        return _open_manifest(name_or_manifest, data_dir, allow_missing)
    entry = CATALOGUE[name_or_manifest]
    folder = located(entry, data_dir)
    if folder is None and download and data_dir is None:
        folder = fetch(entry)
    if folder is None:
        raise absent(entry, data_dir)
    return _open_set(entry, folder, allow_missing)


def _open_set(entry: NamedSet, folder: Path, allow_missing: bool) -> Dataset:
    contents = librispeech.read(folder)
    if stranger := entry.stranger(contents):
        raise DatasetError(
            f"{folder}: {stranger}: give the folder of {entry.folder}, or name the set that it is"
        )
    if contents.problem and not allow_missing:
        raise DatasetError(contents.problem)
    count, lacking = len(contents.utterances), len(contents.without_audio)
    if not count:
        raise DatasetError(f"{folder}: no utterance has both audio and text: copy the set again")
    complete = (count, contents.speakers, lacking) == (entry.utterances, entry.speakers, 0)
    if complete:
        extent = f"all {count:,} utterances"
    elif count < entry.utterances:
        extent = f"{count:,} of {entry.utterances:,} utterances: a part, not {entry.folder}"
    else:
        extent = f"{count:,} utterances, not the {entry.utterances:,} of {entry.folder}: not {entry.folder}"
    description = _described(entry.name, extent, audio=lacking, text=len(contents.without_text))
    return Dataset(entry.name, contents.utterances, description, entry.utterances, complete)


def _open_manifest(given: str | os.PathLike[str], data_dir: Path | None, allow_missing: bool) -> Dataset:
    path, sets = Path(os.path.expanduser(given)), ", ".join(CATALOGUE)
    if path.is_dir():
        raise DatasetError(
            f"{path}: is a folder: give a manifest ({', '.join(MANIFESTS)}), or a set's name "
            f"({sets}) with --data-dir {path}"
        )
    if not path.exists():
        if path.suffix.lower() not in MANIFESTS and len(path.parts) < 2:
            named_set(str(given))
        raise DatasetError(f"{path}: no such file: check the path, or name a set: {sets}")
    base = path.parent if data_dir is None else data_folder(data_dir)
    utterances, missing = manifest.read(path, base)
    count = len(utterances)
    if missing and not (allow_missing and utterances):
        raise DatasetError(
            f"{missing[0]}; {len(missing):,} of {count + len(missing):,} recordings are: paths are relative to {base}"
        )
    extent = f"{count:,} utterances, as given"
    return Dataset(path.name, utterances, _described(path.name, extent, audio=len(missing)))


def _described(name: str, extent: str, **without: int) -> str:
    left_out = ", ".join(f"{files:,} without {what}" for what, files in without.items() if files)
    return f"{name}: {extent}" + (f" ({left_out} left out)" if left_out else "")
