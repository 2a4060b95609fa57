"""The data sets that have a name: LibriSpeech's two test sets and two development sets.

Sizes and MD5 are those of the archives at openslr.org, resource 12. Speakers and hours come from LibriSpeech's own
SPEAKERS.TXT, to which the counts of utterances belong. (The paper's table has the hours of dev-other and
test-other the other way round.)
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from datasets.librispeech import Contents
from datasets.utterance import UnknownDatasetError

LICENCE = "CC BY 4.0"
SOURCE = "LibriSpeech (Panayotov et al., ICASSP 2015), openslr.org resource 12"
MIRRORS = (
    "https://www.openslr.org/resources/12",
    "https://openslr.trmal.net/resources/12",
    "https://us.openslr.org/resources/12",
    "https://openslr.elda.org/resources/12",
    "https://openslr.magicdatatech.com/resources/12",
)


@dataclass(frozen=True)
class NamedSet:
    """A set of LibriSpeech, whole.

    Attributes:
        folder: its folder in an unpacked LibriSpeech, such as test-clean.
        archive_bytes: size of the archive, FOLDER.tar.gz.
        archive_md5: of the archive, in hexadecimal.
        utterances: how many it has.
        hours: of speech.
        speakers: LibriVox's numbers of those who read.
        mirrors: where the archive lies, each without its name; tried in turn.
    """

    folder: str
    archive_bytes: int
    archive_md5: str
    utterances: int
    hours: float
    speakers: frozenset[str]
    mirrors: tuple[str, ...] = MIRRORS
    licence: str = LICENCE
    source: str = SOURCE

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


def _speakers(numbers: str) -> frozenset[str]:
    return frozenset(numbers.split())


_SETS = (
    NamedSet(
        folder="test-clean",
        archive_bytes=346_663_984,
        archive_md5="32fa31d27d2e1cad72775fee3f4849a9",
        utterances=2620,
        hours=5.40,
        speakers=_speakers(
            "61 121 237 260 672 908 1089 1188 1221 1284 1320 1580 1995 2094 2300 2830 2961 3570 3575 3729 4077 4446 "
            "4507 4970 4992 5105 5142 5639 5683 6829 6930 7021 7127 7176 7729 8224 8230 8455 8463 8555"
        ),
    ),
    NamedSet(
        folder="test-other",
        archive_bytes=328_757_843,
        archive_md5="fb5a50374b501bb3bac4815ee91d3135",
        utterances=2939,
        hours=5.34,
        speakers=_speakers(
            "367 533 1688 1998 2033 2414 2609 3005 3080 3331 3528 3538 3764 3997 4198 4294 4350 4852 5442 5484 5764 "
            "6070 6128 6432 6938 7018 7105 7902 7975 8131 8188 8280 8461"
        ),
    ),
    NamedSet(
        folder="dev-clean",
        archive_bytes=337_926_286,
        archive_md5="42e2234ba48799c1f50f24a7926300a1",
        utterances=2703,
        hours=5.39,
        speakers=_speakers(
            "84 174 251 422 652 777 1272 1462 1673 1919 1988 1993 2035 2078 2086 2277 2412 2428 2803 2902 3000 3081 "
            "3170 3536 3576 3752 3853 5338 5536 5694 5895 6241 6295 6313 6319 6345 7850 7976 8297 8842"
        ),
    ),
    NamedSet(
        folder="dev-other",
        archive_bytes=314_305_928,
        archive_md5="c8d0bcc9cca99d4f8b62fcc847357931",
        utterances=2864,
        hours=5.12,
        speakers=_speakers(
            "116 700 1255 1585 1630 1650 1651 1686 1701 2506 3660 3663 3915 4153 4323 4515 4570 4572 4831 5543 5849 "
            "6123 6267 6455 6467 6599 6841 7601 7641 7697 8173 8254 8288"
        ),
    ),
)

CATALOGUE: dict[str, NamedSet] = {entry.name: entry for entry in _SETS}
"""Every named set, by its name."""


def named_set(name: str, catalogue: Mapping[str, NamedSet] = CATALOGUE) -> NamedSet:
    """The set of that name.

    Raises:
        UnknownDatasetError: there is none.
    """
    if name in catalogue:
        return catalogue[name]
    near = difflib.get_close_matches(name.lower(), catalogue, n=1)
    hint = f" did you mean {near[0]}?" if near else ""
    raise UnknownDatasetError(
        f"unknown data set {name!r}:{hint} Known: {', '.join(catalogue)}; or a manifest (.jsonl, .csv, .tsv)"
    )
