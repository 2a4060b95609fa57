from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from jiwer import wer

from kernels.arrays import Reals
from models.decoding import pieces, reader
from models.decoding.coverage import Coverage, Finding, Ledger
from models.decoding.longform import transcribe_batched, transcribe_group, transcribe_windows
from models.decoding.options import DecodeOptions
from models.decoding.recogniser import Recogniser
from models.decoding.search import Hypothesis
from models.decoding.segments import Segment, Word
from models.features import LogMelFeatures
from models.voice import VadOptions, VoiceActivity

SECOND = 16000


def words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def transcribed(
    recogniser: Recogniser, audio: Reals, form: str, vad: VadOptions | None = None, **options: Any
) -> tuple[list[Segment], Coverage]:
    """Segments with text, and the coverage."""
    found: list[Coverage] = []
    how = DecodeOptions(**{"temperature": 0.0, **options})
    with LogMelFeatures([audio], vad=vad or VadOptions()) as features:
        if form == "windows":
            segments = list(transcribe_windows(recogniser, features, how, on_coverage=found.append))
        elif form == "batched":
            segments = list(transcribe_batched(recogniser, features, how, on_coverage=found.append))
        else:
            (segments,) = transcribe_group(recogniser, [features], how, on_coverage=found.append)
    assert [segment.id for segment in segments] == list(range(len(segments)))
    told = [segment for segment in segments if segment.text]
    assert all(a.end <= b.start + 1e-6 for a, b in pairwise(told))
    assert len(found) == 1
    return told, found[0]


@pytest.fixture(scope="module")
def recogniser(usual: Recogniser) -> Recogniser:
    """What is covered does not depend on what computes it."""
    return usual


@pytest.fixture(scope="module")
def whole(recogniser: Recogniser, sentences: Reals) -> Callable[..., str]:
    """By form, and without timestamps or with them, the text of all three sentences."""

    @cache
    def text(form: str, untimed: bool = False) -> str:
        told, _ = transcribed(recogniser, sentences, form, without_timestamps=untimed)
        return "".join(segment.text for segment in told)

    return text


FORMS = pytest.mark.parametrize("form", ["windows", "batched", "group"])


@FORMS
def test_what_is_said_is_covered(form: str, recogniser: Recogniser, sentences: Reals) -> None:
    told, coverage = transcribed(recogniser, sentences, form)
    assert coverage.findings == coverage.left_over == ()
    assert 10 < coverage.covered <= coverage.speech < 14.2
    assert coverage.speech - coverage.covered < 0.5
    assert coverage.recovered == 0
    assert coverage.to_dict()["findings"] == []
    assert len(words("".join(segment.text for segment in told))) > 30


def cut_text(monkeypatch: pytest.MonkeyPatch, keep: int, calls: int = 1) -> None:
    """Make the first windows' text end after so many tokens, as where the end of text comes too early."""
    decode, done = reader.decode_with_fallback, 0

    def early(*args: Any, **how: Any) -> Any:
        nonlocal done
        done += 1
        if done > calls:
            return decode(*args, **how)
        if not keep:
            return [Hypothesis((), "", "en", -0.2, 0.0, 0.0, 1.0) for _ in range(len(args[1]))]
        return [replace(h, tokens=h.tokens[:keep], text="") for h in decode(*args, **how)]

    monkeypatch.setattr(reader, "decode_with_fallback", early)


Ended = Callable[[str, bool, int], tuple[list[str], list[str], Coverage]]


@pytest.fixture
def ended_early(
    recogniser: Recogniser, sentences: Reals, whole: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Ended:
    """The words that there are, and those with what was found, where the first text ends after so many tokens."""

    def read(form: str, untimed: bool, keep: int) -> tuple[list[str], list[str], Coverage]:
        expected = words(whole(form, untimed))
        cut_text(monkeypatch, keep)
        told, coverage = transcribed(recogniser, sentences, form, without_timestamps=untimed)
        return expected, words("".join(segment.text for segment in told)), coverage

    return read


@FORMS
@pytest.mark.parametrize(("untimed", "keep"), [(False, 0), (True, 7)])
def test_text_that_ends_early_is_recovered(form: str, untimed: bool, keep: int, ended_early: Ended) -> None:
    expected, found, coverage = ended_early(form, untimed, keep)
    kinds = [finding.kind for finding in coverage.findings]
    assert "recovered" in kinds
    assert ("early end" in kinds) == (keep > 0)
    assert coverage.left_over == ()
    assert coverage.recovered > 8
    assert wer(" ".join(expected), " ".join(found)) < 0.1


@pytest.mark.parametrize(("untimed", "keep"), [(False, 18), (False, 27), (True, 27), (True, 36)])
def test_text_without_an_end_is_decoded_again_where_it_is_short(
    untimed: bool, keep: int, ended_early: Ended
) -> None:
    expected, found, coverage = ended_early("windows", untimed, keep)
    assert [finding.kind for finding in coverage.findings] == ["early end", "recovered"]
    assert found == expected


@FORMS
def test_what_cannot_be_recovered_is_reported(
    form: str, recogniser: Recogniser, sentences: Reals, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_text(monkeypatch, 0, calls=99)
    told, coverage = transcribed(recogniser, sentences, form)
    assert told == []
    assert {finding.kind for finding in coverage.left_over} == {"speech without text"}
    assert coverage.covered == 0
    assert str(coverage.left_over[0]).startswith("speech without text at 0:0")


def test_recovering_can_be_turned_off(
    recogniser: Recogniser, sentences: Reals, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_text(monkeypatch, 0)
    off = VadOptions(recover=False)
    told, coverage = transcribed(recogniser, sentences, "windows", off)
    assert told == []
    assert {finding.kind for finding in coverage.findings} == {"speech without text"}
    cut_text(monkeypatch, 7)
    told, coverage = transcribed(recogniser, sentences, "windows", off, without_timestamps=True)
    assert [segment.text.strip() for segment in told] == [finding.text for finding in coverage.findings]
    assert {finding.kind for finding in coverage.findings} == {"early end"}


def test_a_gap_between_pieces_is_recovered(
    recogniser: Recogniser, sentences: Reals, whole: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = words(whole("batched"))
    monkeypatch.setattr(pieces, "quiet_pieces", lambda levels, start, end: [(start, 300), (900, end)])
    told, coverage = transcribed(recogniser, sentences, "batched")
    assert [finding.kind for finding in coverage.findings] == ["recovered"]
    found = words("".join(segment.text for segment in told))
    assert wer(" ".join(expected), " ".join(found)) < 0.35  # words on the cuts are halved


def test_a_window_at_the_token_limit_and_a_loop_are_named(
    recogniser: Recogniser, sentences: Reals, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = reader.decode_with_fallback

    def full(*args: Any, **how: Any) -> Any:
        found = decode(*args, **how)
        return [replace(h, tokens=(*h.tokens, *[262] * 224)[:224], compression_ratio=9.0) for h in found]

    monkeypatch.setattr(reader, "decode_with_fallback", full)
    _, coverage = transcribed(recogniser, sentences, "windows", VadOptions(recover=False))
    assert {"token limit", "loop"} <= {finding.kind for finding in coverage.left_over}


class Spoken(VoiceActivity):
    """A voice with these probabilities."""

    def __init__(self, spans: list[tuple[float, float]], seconds: float, **options: Any) -> None:
        super().__init__(VadOptions(**options))
        at = np.arange(round(seconds / 0.032)) * 0.032
        self._found = [np.any([(a <= at) & (at < b) for a, b in spans], axis=0).astype(np.float32)[None]]
        self.samples = round(seconds * SECOND)


def segment(start: float, end: float, text: str) -> Segment:
    return Segment(0, 0, start, end, text, (1,), 0.0, -0.2, 1.0, 0.0)


def nothing(span: tuple[float, float], temperature: float) -> list[Segment]:
    return []


@pytest.mark.parametrize("drop", [True, False])
def test_text_where_nobody_speaks_is_dropped_or_kept_and_reported(drop: bool) -> None:
    ledger = Ledger(Spoken([(0, 5)], 30, drop_unspoken=drop, snap_ends=False), [(0, 3000)])
    said, invented = (
        segment(0, 5, " Said by somebody, and long enough for that."),
        segment(20, 22, " Thank you."),
    )
    kept = ledger.check([said, invented], None, nothing)
    assert kept == ([said] if drop else [said, invented])
    assert ledger.coverage().findings == (Finding("text without speech", 20, 22, "Thank you."),)
    assert ledger.coverage().left_over == ()


def test_speech_is_decoded_again_and_then_at_a_higher_temperature() -> None:
    tried = []

    def again(span: tuple[float, float], temperature: float) -> list[Segment]:
        tried.append((round(span[0], 1), round(span[1], 1), temperature))
        return [segment(9.7, 16.5, " The rest of it.")] if temperature else []

    ledger = Ledger(Spoken([(0, 16)], 20), [(0, 2000)])
    first = segment(0, 10, " What was said, in as many words as ten seconds hold.")
    kept = ledger.check([first], None, again)
    assert tried == [(9.8, 16.2, 0.0), (9.8, 16.2, 0.4)]
    assert [one.text for one in kept] == [first.text, " The rest of it."]
    assert kept[1].start == 10 and kept[1].end == pytest.approx(16, abs=0.05)  # noqa: PT018
    assert ledger.coverage().recovered == pytest.approx(6, abs=0.05)


def test_text_that_is_there_with_other_times_is_not_put_in_twice() -> None:
    ledger = Ledger(Spoken([(0, 16)], 20), [(0, 2000)])
    told = segment(0, 12, " All of it is here: the rest, too.")
    kept = ledger.check([told], None, lambda span, temperature: [segment(12, 16, " The rest too")])
    assert kept == [told]
    assert ledger.coverage().findings == ()


@pytest.mark.parametrize("snap", [True, False])
def test_what_is_said_before_a_pause_ends_where_the_voice_does(snap: bool) -> None:
    ledger = Ledger(Spoken([(0, 9.6), (16, 25.6)], 40, snap_ends=snap), [(0, 4000)])
    early = [segment(0, 5, " a" * 50), segment(5, 9, " b" * 50)]
    late = [segment(16, 25, " c" * 50), segment(25, 25.2, " d"), segment(25.2, 30, " e" * 9)]
    kept = ledger.check(early, 12.0, nothing) + ledger.check(late, None, nothing)
    ends = [one.end for one in kept]
    assert ends == (pytest.approx([5, 9.6, 25, 25.2, 25.6]) if snap else [5, 9, 25, 25.2, 30])
    assert ledger.coverage().findings == ()


@pytest.mark.parametrize("snap", [True, False])
def test_what_is_said_after_a_pause_begins_where_the_voice_does(snap: bool) -> None:
    words = (Word(" a", 15.7, 16.3, 0.9), Word(" b", 16.3, 25, 0.9))
    told = [segment(2.8, 5, " a" * 50), replace(segment(15.7, 25, " a b" * 50), words=words)]
    told += [
        segment(28, 36, " c" * 50),
        segment(36, 39, " d" * 50),
    ]  # more before the voice than was read there
    ledger = Ledger(Spoken([(3, 9.6), (16, 25.6), (30, 39)], 40, snap_ends=snap), [(0, 4000)])
    kept = ledger.check(told, None, nothing)
    assert [one.start for one in kept] == (
        pytest.approx([2.808, 15.8, 28, 36]) if snap else [2.8, 15.7, 28, 36]
    )
    assert kept[1].words == (replace(words[0], start=pytest.approx(kept[1].start)), words[1])


def test_ends_that_words_have_or_that_are_no_stretchs_last_stay() -> None:
    timed = replace(segment(0, 9, " a" * 60), words=(Word(" a", 0, 9, 0.9),))
    ledger = Ledger(Spoken([(0, 9.6)], 40), [(0, 4000)])
    assert ledger.check([timed], None, nothing) == [timed]
    for until, *told in (
        (9.5, segment(0, 9, " a" * 60)),  # its stretch goes on in the next window
        (None, segment(0, 8, " a" * 60)),
        (None, segment(0, 9, " a" * 60), segment(9.1, 9.3, " b")),
    ):
        ledger = Ledger(Spoken([(0, 9.6)], 40), [(0, 4000)])
        assert next(one.end for one in ledger.check(told, until, nothing)) == told[0].end


def test_speech_at_a_windows_end_waits_for_the_next_one() -> None:
    ledger = Ledger(Spoken([(0, 40)], 40), [(0, 4000)])
    assert len(ledger.check([segment(0, 25, " a" * 200)], 28.0, nothing)) == 1
    assert len(ledger.check([segment(25, 40, " b" * 99)], None, nothing)) == 1
    assert ledger.coverage().findings == ()


def test_speech_that_nobody_asked_for_needs_no_text() -> None:
    ledger = Ledger(Spoken([(0, 20)], 20), [(500, 1000)])
    assert ledger.check([segment(5, 10, " A clip that was asked for, and read.")], None, nothing)
    assert ledger.coverage() == Coverage(5.0, 5.0, 0.0, (), ((5.0, 10.0),))
