from typing import Any

import msgspec
import numpy as np
import pytest
from material.evidence_records import records, references, spoil, wrong

from app.evaluation import streaming
from app.evaluation.evaluation import Evaluation, summarise
from app.evaluation.records import BackendRecords, StreamedText
from app.evaluation.report import metrics
from app.evaluation.rules import Limits
from app.live.transcriber import LiveText
from app.output import tables
from models.decoding.segments import Word

SAID = references(400)


def with_streams(backend: str, share: float) -> BackendRecords:
    """Perfect transcripts, whose streams have a share of the words wrong."""
    whole = records(backend, SAID, SAID)
    streams = spoil(SAID, wrong(share))
    return msgspec.structs.replace(
        whole,
        utterances=tuple(
            msgspec.structs.replace(u, streamed=StreamedText(hypothesis=text, lags=(0.5, 1.5), retracted=1))
            for u, text in zip(whole.utterances, streams, strict=True)
        ),
    )


def summed(share: float, **limits: Any) -> Evaluation:
    chosen = {"cpu": records("cpu", SAID, SAID), "int32": with_streams("int32", share)}
    return summarise(chosen, limits=Limits(**limits), replications=500)


@pytest.mark.parametrize(("share", "passed"), [(0.0, True), (0.01, True), (0.2, False)])
def test_streaming_is_held_to_its_own_margin(share: float, passed: bool) -> None:
    verdict = summed(share).verdict("int32")
    (rule,) = (rule for rule in verdict.rules if rule.name == "WER of streaming")
    assert rule.passed is passed
    assert rule.limit == 2.0
    assert (verdict.outcome == "HOLD") is not passed
    assert f"margin of {2:g}" in rule.sentence


def test_the_margin_is_a_limit_like_others() -> None:
    (rule,) = (r for r in summed(0.01, streaming_margin=0.1).verdict("int32").rules if "streaming" in r.name)
    assert rule.passed is False


def test_it_is_compared_with_the_same_backend() -> None:
    found = summed(0.05)
    (one,) = found.streams
    assert one.backend == "int32 streamed"
    assert one.baseline == "int32"
    assert one.baseline_wer == 0
    assert one.wer == pytest.approx(0.05, abs=0.02)
    assert one.utterance_interval
    assert one.utterance_interval.low > 0
    assert "int32 streamed - int32" in [
        row[0] for row in metrics.tables(found, (), {}, {})["comparisons"].rows
    ]


def test_how_late_words_were_is_in_the_table() -> None:
    found = summed(0.0)
    late = {b.backend: b.lateness for b in found.backends}
    assert late["cpu"] is None
    assert late["int32"] is not None
    assert (late["int32"].words, late["int32"].retracted) == (800, 400)
    assert late["int32"].p50_seconds == pytest.approx(1.0)
    table = tables.written(metrics.BACKENDS, found.backends, "page", "")
    assert {"lag p50", "lag p95", "words taken back"} <= {metric.heading for metric in table.columns}


def test_without_streams_nothing_is_said_of_them() -> None:
    found = summarise({"cpu": records("cpu", SAID, SAID), "int32": records("int32", SAID, SAID)})
    assert not [rule for rule in found.verdict("int32").rules if "streaming" in rule.name]
    assert not found.streams


class Told:
    """Says a word a second, and shows the next one before, wrong every other time."""

    def __init__(self) -> None:
        self.pushed: list[tuple[int, bool]] = []
        self._seconds = 0.0

    def push(self, samples: np.ndarray, *, hurry: bool = False) -> list[LiveText]:
        self.pushed.append((len(samples), hurry))
        before = int(self._seconds)
        self._seconds = round(self._seconds + len(samples) / 16000, 6)
        at = int(self._seconds)
        if at == before:
            return []
        shown = f" word{at}" if at % 2 else " wrong"
        return [
            LiveText((Word(f" word{at - 1}", at - 1, at - 0.5, 1.0),), shown, at, 0, 0.0, False, False, "en")
        ]

    def finish(self) -> list[LiveText]:
        return [LiveText((Word(" end", 3.5, 3.9, 1.0),), "", 4.0, 0, 0.0, False, True, "en")]


def test_a_recording_comes_as_fast_as_it_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming.time, "perf_counter", lambda: 0.0)
    live = Told()
    found = streaming.streamed(live, [np.zeros(16000, np.float32)] * 4)  # type: ignore[arg-type]
    assert live.pushed == [(1600, False)] * 40
    assert found.hypothesis == "word0 word1 word2 word3 end"
    assert found.lags == pytest.approx((0.5, 0.5, 0.5, 0.5, 0.1))
    assert found.retracted == 2


def test_what_came_while_it_computed_is_pushed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.arange(0, 1000, 1.25).tolist())
    monkeypatch.setattr(streaming.time, "perf_counter", lambda: next(clock))
    live = Told()
    found = streaming.streamed(live, [np.zeros(16000, np.float32)] * 4)  # type: ignore[arg-type]
    assert [size for size, _ in live.pushed] == [1600, 19200, 20800, 19200, 3200]
    assert [hurry for _, hurry in live.pushed] == [False, True, True, True, False]
    assert found.lags[0] > 1.25


def test_a_recording_without_samples_says_nothing() -> None:
    live = Told()
    live.finish = list  # type: ignore[method-assign]
    found = streaming.streamed(live, [])  # type: ignore[arg-type]
    assert (found.hypothesis, found.lags, found.retracted) == ("", (), 0)
