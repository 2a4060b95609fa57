"""Error rates of a backend: overall, by speaker, by length; confusions, speed."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import msgspec
import numpy as np
import numpy.typing as npt

from app.evaluation.alignment import Alignment, align
from app.evaluation.records import BackendRecords, RunDescription, SpeechCoverage, UtteranceRecord

LENGTH_EDGES = (5.0, 10.0, 15.0, 20.0, 30.0)
"""Seconds of audio between the length classes. Fixed, so that runs on different sets can be compared; 30 s is
Whisper's window, beyond which the long-form algorithm takes over."""
LENGTHS = ("0-5 s", "5-10 s", "10-15 s", "15-20 s", "20-30 s", "30 s and more")

CONFUSIONS = 20
"""How many of the most frequent confusions are kept of each kind."""


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
        cpu_seconds: of all threads together; None unless every one of them has it.
        real_time_factor: seconds / audio_seconds.
        cpu_per_minute: seconds of CPU per minute of audio.
    """

    utterances: int
    audio_seconds: float
    seconds: float
    encode_seconds: float | None
    decode_seconds: float | None
    cpu_seconds: float | None
    real_time_factor: float
    cpu_per_minute: float | None


class Lateness(msgspec.Struct, frozen=True, kw_only=True):
    """How long after they were said words were final, in a stream.

    Attributes:
        retracted: words that were shown before, and then changed; no final word ever is.
    """

    words: int
    p50_seconds: float
    p95_seconds: float
    retracted: int


class Confusions(msgspec.Struct, frozen=True, kw_only=True):
    """The most frequent errors, most frequent first, then by alphabet: the words of each, and its count."""

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
        return np.array([len(self.alignments[i].reference) for i in ids], np.int64)

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
        return [key for key, one in self.alignments.items() if self.records[key].silent and one.reference]

    def by_speaker(self) -> dict[str, Rates]:
        """Rates of each speaker, by name; utterances without a speaker are left out."""
        return dict(sorted(self._grouped(lambda record: record.speaker).items()))

    def by_length(self) -> dict[str, Rates]:
        """Rates of each length class that has utterances, shortest first."""

        def name_of(record: UtteranceRecord) -> str | None:
            seconds = record.audio_seconds
            return None if seconds is None else LENGTHS[bisect_right(LENGTH_EDGES, seconds)]

        groups = self._grouped(name_of)
        return {name: groups[name] for name in LENGTHS if name in groups}

    def _grouped(self, group_of: Callable[[UtteranceRecord], str | None]) -> dict[str, Rates]:
        groups: dict[str, list[Alignment]] = {}
        for key, record in self.records.items():
            group = group_of(record)
            if group is not None:
                groups.setdefault(group, []).append(self.alignments[key])
        return {group: rates(alignments) for group, alignments in groups.items()}


def score(
    backends: Mapping[str, BackendRecords], normalise: Callable[[str], str]
) -> dict[str, ScoredBackend]:
    """Align every utterance that did not fail. Equal texts are aligned once, however many backends gave them."""
    align_once = cache(align)
    scored = {}
    for name, backend in backends.items():
        records = sorted(backend.utterances, key=lambda record: record.id)
        done = {record.id: record for record in records if record.hypothesis is not None}
        alignments = {
            key: align_once(normalise(record.reference), normalise(record.hypothesis or ""))
            for key, record in done.items()
        }
        failed = {record.id: record for record in records if record.hypothesis is None}
        scored[name] = ScoredBackend(backend.run, done, alignments, failed)
    return scored


def streams(scored: Mapping[str, ScoredBackend], normalise: Callable[[str], str]) -> dict[str, ScoredBackend]:
    """What came out of streaming, as a backend beside each one that was streamed, by the names of `streamed`."""
    found = {}
    for name, one in scored.items():
        records = {
            key: msgspec.structs.replace(record, hypothesis=record.streamed.hypothesis)
            for key, record in one.records.items()
            if record.streamed is not None
        }
        if records:
            alignments = {
                key: align(normalise(record.reference), normalise(record.hypothesis or ""))
                for key, record in records.items()
            }
            found[streamed(name)] = ScoredBackend(one.run, records, alignments, {})
    return found


def streamed(backend: str) -> str:
    """The name of a backend whose audio came as a stream."""
    return f"{backend} streamed"


def rates(alignments: Iterable[Alignment]) -> Rates:
    """Sum up utterances: corpus rates, not means of the utterances' rates."""
    chosen = list(alignments)
    counts = Counter(kind for one in chosen for kind, _, _ in one.operations)
    errors, words = counts["S"] + counts["D"] + counts["I"], counts["="] + counts["S"] + counts["D"]
    characters, wrong = sum(one.characters for one in chosen), sum(one.character_errors for one in chosen)
    return Rates(
        utterances=len(chosen),
        words=words,
        hits=counts["="],
        substitutions=counts["S"],
        deletions=counts["D"],
        insertions=counts["I"],
        wer=errors / words if words else None,
        characters=characters,
        character_errors=wrong,
        cer=wrong / characters if characters else None,
    )


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
    audio, seconds = total(r.audio_seconds for r in timed), total(r.seconds for r in timed)
    if not audio or seconds is None:
        return None
    cpu = total(r.cpu_seconds for r in timed)
    return Speed(
        utterances=len(timed),
        audio_seconds=audio,
        seconds=seconds,
        encode_seconds=total(r.encode_seconds for r in timed),
        decode_seconds=total(r.decode_seconds for r in timed),
        cpu_seconds=cpu,
        real_time_factor=seconds / audio,
        cpu_per_minute=None if cpu is None else 60 * cpu / audio,
    )


def coverage(records: Iterable[UtteranceRecord]) -> SpeechCoverage | None:
    """Of all utterances together; None unless each one's is known."""
    known = [record.coverage for record in records]
    if not known or None in known:
        return None
    each = [one for one in known if one is not None]
    findings: Counter[str] = Counter()
    for one in each:
        findings.update(one.findings)
    return SpeechCoverage(
        speech_seconds=math.fsum(one.speech_seconds for one in each),
        covered_seconds=math.fsum(one.covered_seconds for one in each),
        recovered_seconds=math.fsum(one.recovered_seconds for one in each),
        findings=dict(sorted(findings.items())),
    )


def lateness(records: Iterable[UtteranceRecord]) -> Lateness | None:
    """Of all words that were streamed; None where there are none."""
    texts = [record.streamed for record in records if record.streamed is not None]
    lags = [lag for text in texts for lag in text.lags]
    if not lags:
        return None
    middle, late = np.percentile(lags, [50, 95]).tolist()
    return Lateness(
        words=len(lags), p50_seconds=middle, p95_seconds=late, retracted=sum(text.retracted for text in texts)
    )


def total(values: Iterable[float | None]) -> float | None:
    """Their sum; None where one is not known."""
    known = list(values)
    return None if None in known else math.fsum(value for value in known if value is not None)
