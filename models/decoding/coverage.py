"""A ledger of every second: speech that got no text, and text where nobody speaks.

Speech is what voice activity detection hears; text covers the time of its segments. Where they disagree, speech is
decoded once more, cut elsewhere and then at a higher temperature, and text is dropped. What is left is reported.
Beside a pause a segment begins and ends where the voice does, which the model's timestamps miss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from typing import Any, Literal, TypeAlias

from models.decoding.segments import Segment
from models.features import FRAMES_PER_SECOND
from models.voice import Span, VoiceActivity, common, without

__all__ = ["Coverage", "DecodeAgain", "Finding", "Ledger"]

Kind: TypeAlias = Literal[
    "speech without text", "recovered", "text without speech", "early end", "token limit", "loop"
]
DecodeAgain: TypeAlias = Callable[[Span, float], list[Segment]]
"""Decodes a part of the recording at a temperature, prompted with nothing."""

# The model's timestamps miss the voice by up to a second: on 103 utterances 0.65 s, in a long recording 1.6.
_LEAST = 2.0
_MARGIN = 0.2
_ONSET = 0.2  # seconds that a voice may sound before it is heard
_NEAR = 1.0  # seconds before the end of the voice: what ends sooner is not the last that it says
_SECOND_TEMPERATURE = 0.4
# Bytes of UTF-8 per second of speech: 99 % of segments have 8 or more in English; other scripts take more for a letter.
_SPARSE = 5.0
_SPARSE_FROM = 3.0  # seconds of speech
_MORE = 1.5  # times as much text is worth more than the segment's own
# The same where the model wrote no time after its text, which it does when all is said: half of all segments have 14.
_SPARSE_UNENDED = 14.0
_MORE_UNENDED = 1.15


@dataclass(frozen=True)
class Finding:
    """Where speech and text disagree, or decoding did not end as it should.

    `speech without text`: nothing came of decoding it again. `recovered`: that gave `text`, which is among the
    segments. `text without speech`: `text` was dropped, or is kept where that was asked for. `early end`: `text` was
    too little for the speech in its time, and is replaced by what was recovered there, or kept where nothing is to be.
    `token limit`: a window's text was cut at the most
    tokens that the model can write. `loop`: a window's text repeats itself at every temperature that was tried.
    """

    kind: Kind
    start: float
    end: float
    text: str = ""

    def __str__(self) -> str:
        minutes, seconds = divmod(self.start, 60)
        return f"{self.kind} at {int(minutes)}:{seconds:04.1f} for {self.end - self.start:.1f} s"


@dataclass(frozen=True)
class Coverage:
    """What became of a recording's speech, in seconds.

    Attributes:
        speech: that voice activity detection heard.
        covered: of it, what has text.
        recovered: of that, what got its text by decoding again.
        findings: in the order of the recording.
        heard: the stretches of speech, without pauses of a tenth of a second.
    """

    speech: float
    covered: float
    recovered: float
    findings: tuple[Finding, ...]
    heard: tuple[Span, ...] = ()

    @property
    def left_over(self) -> tuple[Finding, ...]:
        """The findings that nothing could be done about."""
        return tuple(f for f in self.findings if f.kind in ("speech without text", "token limit", "loop"))

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        seconds = {name: round(getattr(self, name), 2) for name in ("speech", "covered", "recovered")}
        return {f"{name}_seconds": value for name, value in seconds.items()} | {
            "findings": [asdict(finding) for finding in self.findings]
        }


class Ledger:
    """Checks segments against the speech in a recording, in its order."""

    def __init__(self, voice: VoiceActivity, clips: Sequence[tuple[int, int]]) -> None:
        """`clips` are the frames of 10 ms, first and last + 1, of what is to have text."""
        asked = [(first / FRAMES_PER_SECOND, last / FRAMES_PER_SECOND) for first, last in clips]
        # Without what is read around it, and with every pause of a tenth of a second left out.
        heard = voice.spans(min_silence_duration_ms=100, speech_pad_ms=0)
        self._options = voice.options
        self._speech = common(heard, asked)
        self._faint = voice.spans(min_speech_duration_ms=0, min_silence_duration_ms=100, speech_pad_ms=300)
        self._ends = voice.ends() if voice.options.snap_ends else []
        self._before = voice.options.speech_pad_ms / 1000 + 0.02  # the model's timestamps are of 20 ms
        self._text: list[Span] = []
        self._recovered: list[Span] = []
        self._findings: list[Finding] = []
        self._checked = 0.0
        self._unended: set[Span] = set()

    def coverage(self) -> Coverage:
        """What is known when all segments have been checked."""
        return Coverage(
            speech=_length(self._speech),
            covered=_length(common(self._speech, _joined(self._text))),
            recovered=_length(common(self._speech, _joined(self._recovered))),
            findings=tuple(sorted(self._findings, key=lambda finding: finding.start)),
            heard=tuple(self._speech),
        )

    def note(self, kind: Kind, start: float, end: float, text: str = "") -> None:
        """Put a finding down."""
        self._findings.append(Finding(kind, start, end, text))

    def unended(self, segment: Segment) -> None:
        """Know that the model wrote no timestamp after a segment's text, so that nobody knows how far it goes."""
        self._unended.add((segment.start, segment.end))

    def check(self, segments: Sequence[Segment], until: float | None, again: DecodeAgain) -> list[Segment]:
        """Drop what has no speech, and look for speech without text up to `until` seconds, None being the end.

        Returns:
            The segments, with those that were recovered among them.
        """
        spoken = [segment for segment in segments if not segment.text or self._spoken(segment)]
        kept = [segment for one in spoken for segment in self._whole(one, again)]
        self._text += [(segment.start, segment.end) for segment in kept if segment.text]
        end = float("inf") if until is None else until
        open_speech = common(self._speech, [(self._checked, end)]) if end > self._checked else []
        missing = without(open_speech, _joined([span for span in self._text if span[1] > self._checked]))
        self._checked = max(self._checked, min(end, self._speech[-1][1] if self._speech else 0.0))
        if missing and missing[-1][1] >= end:
            # The next window may have its text.
            self._checked = missing.pop()[0]
        for span in missing:
            if span[1] - span[0] >= _LEAST:
                kept += self._recover(span, kept, again)
        return self._snapped(sorted(kept, key=lambda segment: segment.start), end)

    def _snapped(self, segments: list[Segment], until: float) -> list[Segment]:
        """The segments: a stretch's first begins, and if that is decoded whole its last ends, where the voice does."""
        segments = [self._begun(segment) for segment in segments]
        ends = [(start, end) for start, end in self._ends if end <= until]
        told = [i for i, segment in enumerate(segments) if segment.text]
        for i, after in zip_longest(told, told[1:]):
            segment = segments[i]
            start, end = max(((a, b) for a, b in ends if a < segment.end), default=(0.0, 0.0))
            following = float("inf") if after is None else segments[after].start
            if segment.words or not max(start, segment.start) < end <= following or segment.end < end - _NEAR:
                continue
            segments[i] = replace(segment, end=max(end, segment.start + 0.02))
        return segments

    def _begun(self, segment: Segment) -> Segment:
        """The segment, which may begin in what was read before the voice."""
        start = next((start for start, end in self._ends if end > segment.start), 0.0) - _ONSET
        words = segment.words
        until = words[0].end if words else segment.end
        if not (segment.text and 0 < start - segment.start <= self._before and start < until):
            return segment
        if words:
            words = (replace(words[0], start=max(words[0].start, start)), *words[1:])
        return replace(segment, start=start, words=words)

    def _spoken(self, segment: Segment) -> bool:
        if common(self._faint, [(segment.start, segment.end)]):
            return True
        self.note("text without speech", segment.start, segment.end, segment.text.strip())
        return not self._options.drop_unspoken

    def _whole(self, segment: Segment, again: DecodeAgain) -> list[Segment]:
        """The segment, or where its text is too little for the speech in its time, what both halves give."""
        start, end = segment.start, segment.end
        speech = common(self._speech, [(start, end)])
        written = len(segment.text.strip().encode())
        unended = (start, end) in self._unended
        sparse, more = (_SPARSE_UNENDED, _MORE_UNENDED) if unended else (_SPARSE, _MORE)
        if not 0 < written < sparse * _length(speech) or _length(speech) < _SPARSE_FROM:
            return [segment]
        if not self._options.recover:
            self.note("early end", start, end, segment.text.strip())
            return [segment]
        pauses = without([(start, end)], speech)
        middle = max(
            (pause for pause in pauses if abs(sum(pause) - start - end) < (end - start) / 2),
            key=lambda pause: pause[1] - pause[0],
            default=((start + end) / 2, (start + end) / 2),
        )
        cut = sum(middle) / 2
        halves = [*again((max(0.0, start - _MARGIN), cut), 0.0), *again((cut, end + _MARGIN), 0.0)]
        text = "".join(half.text for half in halves).strip()
        if len(text.encode()) < more * written:
            return [segment]  # it is slow, or sung
        self.note("early end", start, end, segment.text.strip())
        self.note("recovered", start, end, text)
        self._recovered.append((start, end))
        return [_within(half, start, end) for half in halves]

    def _recover(self, span: Span, around: Sequence[Segment], again: DecodeAgain) -> list[Segment]:
        start, end = span
        for temperature in (0.0, _SECOND_TEMPERATURE) if self._options.recover else ():
            found = again((max(0.0, start - _MARGIN), end + _MARGIN), temperature)
            words = _words("".join(segment.text for segment in found))
            if not words:
                continue
            self._text.append(span)
            if words in _words("".join(segment.text for segment in around)):
                return []  # its text is there, with times that miss it
            self._recovered.append(span)
            self.note("recovered", start, end, "".join(segment.text for segment in found).strip())
            return [
                replace(
                    segment, start=max(segment.start, start), end=min(max(segment.end, start + 0.02), end)
                )
                for segment in found
            ]
        self.note("speech without text", start, end)
        return []


def _within(segment: Segment, start: float, end: float) -> Segment:
    first = min(max(segment.start, start), end - 0.02)
    return replace(segment, start=first, end=min(max(segment.end, first + 0.02), end))


def _words(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _length(spans: Sequence[Span]) -> float:
    return sum(end - start for start, end in spans)


def _joined(spans: Sequence[Span]) -> list[Span]:
    """The same time in order and without overlaps."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined
