"""Error rates of one backend: overall, by speaker, by length; confusions, speed."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import msgspec
import numpy as np
import numpy.typing as npt

from app.evaluation.alignment import Alignment, align
from app.evaluation.records import BackendRecords, RunDescription, UtteranceRecord

LENGTH_EDGES = (0.0, 5.0, 10.0, 15.0, 20.0, 30.0)
"""Seconds of audio at which the length classes begin. Fixed, so that runs on different sets can be compared; 30 s is
Whisper's window, beyond which the long-form algorithm takes over."""

CONFUSIONS = 20
"""How many of the most frequent confusions are kept of each kind."""

WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my"})
"""Languages written without spaces between words: each letter counts as a word, so that WER is CER, as in Radford et
al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section 4.4."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Error counts over some utterances, and their rates.

    Attributes:
        words: in the normalised references.
        insertions: an utterance whose normalised reference has no word counts here alone.
        wer: (substitutions + deletions + insertions) / words, a fraction; None without words.
        characters: in the normalised references, spaces among them.
        cer: character_errors / characters; None without characters.
    """

    utterances: int
    words: int
    hits: int
    substitutions: int
    deletions: int
    insertions: int
    wer: float | None
    characters: int
    character_errors: int
    cer: float | None


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Time of a run over the utterances that have both a time and a length.

    Attributes:
        seconds: from samples to text.
        encode_seconds: of it in the encoder; None unless every one of them has it, as for the decoder.
        real_time_factor: seconds / audio_seconds.
    """

    utterances: int
    audio_seconds: float
    seconds: float
    encode_seconds: float | None
    decode_seconds: float | None
    real_time_factor: float


class Confusions(msgspec.Struct, frozen=True, kw_only=True):
    """The most frequent errors, most frequent first, then by alphabet.

    Attributes:
        substituted: reference word, hypothesis word, count.
        deleted: reference word, count.
        inserted: hypothesis word, count.
    """

    substituted: tuple[tuple[str, str, int], ...]
    deleted: tuple[tuple[str, int], ...]
    inserted: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ScoredBackend:
    """A backend's records with their alignments, in the order of the utterances' ids.

    Attributes:
        records: of utterances that did not fail, as are the alignments.
        failed: records of those that did.
    """

    run: RunDescription
    records: Mapping[str, UtteranceRecord]
    alignments: Mapping[str, Alignment]
    failed: Mapping[str, UtteranceRecord]

    def errors(self, ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """Word errors of each utterance, int64, shape (ids,)."""
        return np.array([self.alignments[i].errors for i in ids], np.int64)

    def words(self, ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """Reference words of each utterance, int64, shape (ids,)."""
        return np.array([self.alignments[i].words for i in ids], np.int64)

    def text(self, key: str) -> str:
        """An utterance's raw transcript, without spaces around it."""
        return (self.records[key].hypothesis or "").strip()

    def speakers(self, ids: Iterable[str]) -> list[str] | None:
        """The speaker of each utterance; None where one has none."""
        speakers = [self.records[key].speaker for key in ids]
        known = [speaker for speaker in speakers if speaker is not None]
        return known if len(known) == len(speakers) else None

    @property
    def unheard(self) -> list[str]:
        """Utterances whose recording is silent though their reference has words."""
        return [key for key, one in self.alignments.items() if self.records[key].silent and one.words]


def normaliser(language: str | None) -> tuple[str, Callable[[str], str]]:
    """The normaliser for a language's code: its name in openai-whisper, and a function of a text.

    English has its own (numbers, contractions, spelling, fillers); every other language and None take the basic one.
    The function gives words separated by single spaces; nothing where no word is left (`um` and `hmm` are no words in
    English). It remembers each text, since most backends give the same one.
    """
    # Importing openai-whisper takes a second.
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

    letters = language in WITHOUT_SPACES
    name = "BasicTextNormalizer(split_letters=True)" if letters else "BasicTextNormalizer"
    apply = BasicTextNormalizer(split_letters=letters)
    if language == "en":
        name, apply = "EnglishTextNormalizer", EnglishTextNormalizer()
    return name, cache(lambda text: " ".join(apply(text).split()))


def score(
    backends: Mapping[str, BackendRecords], normalise: Callable[[str], str]
) -> dict[str, ScoredBackend]:
    """Align every utterance that did not fail. Equal texts are aligned once, however many backends gave them."""
    known: dict[tuple[str, str], Alignment] = {}
    scored = {}
    for name, backend in backends.items():
        records = sorted(backend.utterances, key=lambda record: record.id)
        done = {record.id: record for record in records if record.hypothesis is not None}
        texts = {
            key: (normalise(record.reference), normalise(record.hypothesis or ""))
            for key, record in done.items()
        }
        fresh = [pair for pair in dict.fromkeys(texts.values()) if pair not in known]
        known.update(zip(fresh, align([a for a, _ in fresh], [b for _, b in fresh]), strict=True))
        alignments = {key: known[pair] for key, pair in texts.items()}
        failed = {record.id: record for record in records if record.hypothesis is None}
        scored[name] = ScoredBackend(backend.run, done, alignments, failed)
    return scored


def rates(alignments: Iterable[Alignment]) -> Rates:
    """Sum up utterances: corpus rates, not means of the utterances' rates."""
    chosen = list(alignments)
    names = ("words", "hits", "substitutions", "deletions", "insertions", "characters", "character_errors")
    counts: dict[str, int] = {name: sum(getattr(one, name) for one in chosen) for name in names}
    errors, words, characters = sum(one.errors for one in chosen), counts["words"], counts["characters"]
    return Rates(
        utterances=len(chosen),
        wer=errors / words if words else None,
        cer=counts["character_errors"] / characters if characters else None,
        **counts,
    )


def by_speaker(backend: ScoredBackend) -> dict[str, Rates]:
    """Rates of each speaker, by name; utterances without a speaker are left out."""
    return dict(sorted(_grouped(backend, lambda record: record.speaker).items()))


def by_length(backend: ScoredBackend) -> dict[str, Rates]:
    """Rates of each length class that has utterances, such as `5-10 s`, shortest first."""
    names = length_classes()

    def name_of(record: UtteranceRecord) -> str | None:
        seconds = record.audio_seconds
        return None if seconds is None else names[bisect_right(LENGTH_EDGES, seconds) - 1]

    groups = _grouped(backend, name_of)
    return {name: groups[name] for name in names if name in groups}


def _grouped(backend: ScoredBackend, group_of: Callable[[UtteranceRecord], str | None]) -> dict[str, Rates]:
    groups: dict[str, list[Alignment]] = {}
    for key, record in backend.records.items():
        group = group_of(record)
        if group is not None:
            groups.setdefault(group, []).append(backend.alignments[key])
    return {group: rates(alignments) for group, alignments in groups.items()}


def length_classes() -> list[str]:
    """Names of the length classes; each begins at its first number and ends before its second."""
    ends = [f"-{high:g} s" for high in LENGTH_EDGES[1:]] + [" s and more"]
    return [f"{low:g}{end}" for low, end in zip(LENGTH_EDGES, ends, strict=True)]


def confusions(alignments: Iterable[Alignment]) -> Confusions:
    """The most frequent errors."""
    counts = Counter(operation for one in alignments for operation in one.operations)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Confusions(
        substituted=tuple((lost, got, n) for (kind, lost, got), n in ranked if kind == "S")[:CONFUSIONS],
        deleted=tuple((lost, n) for (kind, lost, _), n in ranked if kind == "D")[:CONFUSIONS],
        inserted=tuple((got, n) for (kind, _, got), n in ranked if kind == "I")[:CONFUSIONS],
    )


def speed(records: Iterable[UtteranceRecord]) -> Speed | None:
    """Time per audio; None where no utterance has both."""
    timed = [r for r in records if r.seconds is not None and r.audio_seconds]
    audio, seconds = total([r.audio_seconds for r in timed]), total([r.seconds for r in timed])
    if not audio or seconds is None:
        return None
    return Speed(
        utterances=len(timed),
        audio_seconds=audio,
        seconds=seconds,
        encode_seconds=total([r.encode_seconds for r in timed]),
        decode_seconds=total([r.decode_seconds for r in timed]),
        real_time_factor=seconds / audio,
    )


def total(values: Sequence[float | None]) -> float | None:
    """Their sum; None where one is not known."""
    known = [v for v in values if v is not None]
    return math.fsum(known) if len(known) == len(values) else None
