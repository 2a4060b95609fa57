from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from material.evidence_records import dataset, records, references, spoil, wrong
from msgspec.structs import replace

from app.evaluation.evaluation import summarise
from app.evaluation.kernels import KernelValidation
from app.evaluation.records import EvidenceError, UtteranceRecord
from app.evaluation.rules import Limits, Rule, _needed, read_limits
from app.evaluation.verdict import Verdict

SAID = references(400)
CPU = spoil(SAID, wrong(0.05))
PASSED = KernelValidation("int32", True, "emulator", "64 tiles equal the reference bit for bit", 64)


def judged(
    hypotheses: list[str],
    *,
    backend: str = "int32",
    int8: list[str] | None = CPU,
    validation: KernelValidation | None = PASSED,
    limits: Limits | None = None,
    count: int = 400,
    **fields: Any,
) -> Verdict:
    runs = {"cpu": records("cpu", CPU[:count], SAID[:count], **fields)}
    if int8 is not None:
        runs["int8"] = records("int8", int8[:count], SAID[:count], **fields)
    runs[backend] = records(backend, hypotheses[:count], SAID[:count], **fields)
    validations = {} if validation is None else {backend: replace(validation, backend=backend)}
    evaluation = summarise(runs, limits=limits, validation=validations, replications=1000)
    return evaluation.verdict(backend)


def rule(verdict: Verdict, name: str) -> Rule:
    (found,) = [r for r in verdict.rules if r.name == name]
    return found


def test_deploy_needs_every_rule() -> None:
    verdict = judged(CPU)
    assert verdict.outcome == "DEPLOY"
    assert verdict.exit_code == 0
    assert verdict.reasons == ()
    assert [(r.name, r.passed) for r in verdict.rules] == [
        ("kernel validation", True),
        ("WER against cpu", True),
        ("WER against int8", True),
        ("broken utterances", True),
        ("audible recordings", True),
        ("whole data set", True),
        ("sample size", True),
    ]
    assert "emulator" in verdict.device_statement
    assert verdict.not_measured == ("latency on the NPU", "energy")


@pytest.mark.parametrize(
    ("given", "reason", "settled_by"),
    [
        ({"validation": None}, "kernel validation: not done: run `tilescribe validate` for int32", None),
        ({"count": 399}, "whole data set: 399 of 400 utterances: a part is never deployed on", 400),
        (
            {"dataset": dataset(None)},
            "whole data set: 400 utterances, of a set whose size is not known",
            None,
        ),
        (
            {"dataset": replace(dataset(), complete=False)},
            "whole data set: all 400 utterances of a set that is itself not whole",
            400,
        ),
        (
            {"count": 100, "expected": 100},
            "sample size: 100 utterances; at least 300 are needed to see what is rare",
            300,
        ),
        (
            {"int8": None},
            "WER against int8: not known: there is no int8 run on these utterances; add int8 to --backends",
            None,
        ),
    ],
)
def test_what_is_missing_leaves_it_undecided(
    given: dict[str, Any], reason: str, settled_by: int | None
) -> None:
    verdict = judged(CPU, **given)
    assert (verdict.outcome, verdict.exit_code) == ("INCONCLUSIVE", 4)
    assert (verdict.reasons, verdict.settled_by) == ((reason,), settled_by)


@pytest.mark.parametrize(
    ("change", "outcome", "words"),
    [
        (
            {"passed": False, "detail": "3 of 64 tiles differ"},
            "HOLD",
            "failed on the emulator: 3 of 64 tiles differ",
        ),
        ({"device": "npu"}, "INCONCLUSIVE", "passed on the npu, but the run was on the emulator"),
        ({"tile_size": 128}, "INCONCLUSIVE", "passed with tiles of 128, but the run had 64"),
    ],
)
def test_validation_must_be_of_what_ran(change: dict[str, Any], outcome: str, words: str) -> None:
    verdict = judged(CPU, validation=replace(PASSED, **change))
    assert verdict.outcome == outcome
    assert words in verdict.reasons[0]


def test_a_limit_says_how_few_utterances_are_too_few() -> None:
    assert judged(CPU, count=100, expected=100, limits=Limits(minimum_utterances=100)).outcome == "DEPLOY"


def test_wholly_over_the_margin_is_held() -> None:
    verdict = judged(spoil(CPU, wrong(0.2), seed=2))
    assert verdict.outcome == "HOLD"
    assert verdict.exit_code == 3
    against = rule(verdict, "WER against cpu")
    assert against.passed is False
    assert "even the lower end is over the margin of 0.5, by " in against.sentence


def test_astride_the_margin_is_inconclusive_and_says_how_many() -> None:
    verdict = judged(spoil(CPU, wrong(0.1), share=0.05, seed=2), int8=None)
    against = rule(verdict, "WER against cpu")
    assert against.passed is None
    assert verdict.outcome == "INCONCLUSIVE"
    assert against.settled_by is not None
    assert against.settled_by > 400
    # The other undecided rule needs an int8 run, not utterances.
    assert verdict.settled_by is None
    assert verdict.settled == "more utterances alone do not decide it: WER against int8"
    alone = judged(spoil(CPU, wrong(0.1), share=0.05, seed=2), int8=spoil(CPU, wrong(0.2)))
    assert alone.settled == (
        f"about {against.settled_by:,} utterances like these would decide it (WER against cpu), more than the set's 400"
    )


def test_a_handful_of_utterances_does_not_decide_on_wer_and_one_figure_says_how_many_would() -> None:
    """Of several undecided rules the one that needs most: here the whole set, not the few for an interval."""
    verdict = judged(spoil(CPU, wrong(0.3)), count=10, limits=Limits(broken_per_thousand=1000))
    assert verdict.outcome == "INCONCLUSIVE"
    assert rule(verdict, "WER against int8").passed is None
    against = rule(verdict, "WER against cpu")
    assert (against.passed, against.settled_by) == (None, 20)
    assert "10 utterances are too few to trust it" in against.sentence
    assert verdict.settled_by == 400
    assert verdict.settled == "the whole data set, 400 utterances, would decide it"
    assert not any("utterances like these" in one.sentence for one in verdict.rules)


def test_over_the_margin_by_less_than_chance_is_inconclusive() -> None:
    verdict = judged(spoil(CPU, wrong(0.1), share=0.08, seed=2), int8=None)
    against = rule(verdict, "WER against cpu")
    difference = float(against.sentence.split()[0])
    assert difference > 0.5
    assert against.passed is None
    assert against.settled_by is not None


def test_the_number_that_would_settle_it_does() -> None:
    """Half widths fall with the square root: half the width takes four times the utterances."""
    assert _needed(100, 0.4, 0.2) == 400
    assert _needed(103, 0.31, 0.2) == 250  # 247.5, to two figures
    assert _needed(100, 0.4, 0.0) is None


def test_better_or_equal_to_int8_passes_by_the_figures() -> None:
    assert rule(judged(CPU), "WER against int8").passed is True
    assert rule(judged(CPU, int8=spoil(CPU, wrong(0.05), seed=2)), "WER against int8").passed is True


def test_worse_than_int8_is_held_only_beyond_chance() -> None:
    slightly = [*CPU]
    index = next(i for i, text in enumerate(CPU) if text == SAID[i])
    slightly[index] = slightly[index] + " xylophone"
    verdict = judged(slightly)
    assert rule(verdict, "WER against int8").passed is None
    assert "by no more than chance may make" in rule(verdict, "WER against int8").sentence
    assert verdict.outcome == "INCONCLUSIVE"
    worse = judged(spoil(CPU, wrong(0.02), seed=2), limits=Limits(margin=10))
    assert rule(worse, "WER against int8").passed is False
    assert worse.outcome == "HOLD"
    assert "worse, by more than chance" in worse.reasons[0]


def test_int8_is_not_held_to_itself() -> None:
    verdict = judged(CPU, backend="int8", int8=None)
    assert rule(verdict, "WER against int8").applies is False
    assert verdict.outcome == "DEPLOY"


def test_silent_recordings_leave_it_undecided_whatever_the_figures() -> None:
    runs = {name: records(name, CPU, SAID) for name in ("cpu", "int8", "int32")}
    assert (
        summarise(runs, validation={"int32": PASSED}, replications=200).verdict("int32").outcome == "DEPLOY"
    )
    for name, one in runs.items():
        silent = [replace(u, silent=True, hypothesis="") for u in one.utterances[:7]]
        wordless = replace(one.utterances[7], silent=True, reference="Um.", hypothesis="")
        runs[name] = replace(one, utterances=(*silent, wordless, *one.utterances[8:]))
    evaluation = summarise(runs, validation={"int32": PASSED}, replications=200)
    verdict = evaluation.verdict("int32")
    assert verdict.outcome == "INCONCLUSIVE"
    words = (
        "7 recordings are silent though their references have words (u0000, u0001, u0002, u0003, u0004, ...): "
        "all of them count as deleted, by every backend"
    )
    assert verdict.reasons == (f"audible recordings: {words}",)
    assert verdict.settled == "more utterances alone do not decide it: audible recordings"
    assert words in evaluation.notes


def test_without_cpu_it_says_what_to_add() -> None:
    alone = summarise({"int32": records("int32", CPU, SAID)}, replications=200).verdict("int32")
    assert alone.outcome == "INCONCLUSIVE"
    assert rule(alone, "WER against cpu").sentence.endswith("add cpu to --backends")
    assert rule(alone, "broken utterances").passed is None


def test_broken_utterances_beyond_the_allowance_are_held_even_on_a_part() -> None:
    broken = ["" if i < 3 else text for i, text in enumerate(CPU)]
    limits = Limits(margin=20, broken_per_thousand=5)
    assert judged(broken[1:2] + CPU[1:], limits=limits, int8=broken).outcome == "DEPLOY"
    verdict = judged(broken, limits=limits, int8=broken)
    assert verdict.outcome == "HOLD"
    assert verdict.reasons == (
        "broken utterances: 3 of 400 broken that the cpu did not break, 2 allowed: 1 too many",
    )
    part = judged(broken, limits=limits, int8=broken, count=50)
    assert part.outcome == "HOLD"
    assert "2 allowed in the whole set of 400: 1 too many" in part.reasons[0]


def test_an_utterance_that_fails_on_the_candidate_alone_is_broken() -> None:
    runs = {name: records(name, CPU, SAID) for name in ("cpu", "int8", "int32")}
    first = runs["int32"].utterances[0]
    failed = UtteranceRecord(first.id, first.reference, error="out of memory", speaker=first.speaker)
    runs["int32"] = replace(runs["int32"], utterances=(failed, *runs["int32"].utterances[1:]))
    evaluation = summarise(runs, validation={"int32": PASSED}, replications=200)
    verdict = evaluation.verdict("int32")
    assert verdict.outcome == "HOLD"
    (broken,) = evaluation.backend("int32").broken or ()
    assert (broken.id, broken.kinds, broken.detail) == (first.id, ("failed",), "failed: out of memory")
    assert "; 1 failed" in rule(verdict, "whole data set").sentence


@pytest.mark.parametrize("count", [60, 400])
@pytest.mark.parametrize(("backend", "share"), [("legacy-int32", 0.22), ("legacy-int8", 0.96)])
def test_kernels_that_lose_words_are_held_on_any_part(backend: str, share: float, count: int) -> None:
    validation = replace(PASSED, passed=False, detail="relative error 0.44", tile_size=None)
    verdict = judged(spoil(SAID, wrong(share)), backend=backend, validation=validation, count=count)
    assert verdict.outcome == "HOLD"
    held = {r.name for r in verdict.rules if r.passed is False}
    assert held == {"kernel validation", "WER against cpu", "WER against int8", "broken utterances"}
    assert "exists as an emulation on the CPU alone" in verdict.device_statement


def test_speakers_can_be_drawn_instead() -> None:
    # Only one of ten speakers is worse: with speakers drawn the interval is wider.
    heard = [spoil([t], wrong(0.5))[0] if i % 10 == 0 else t for i, t in enumerate(CPU)]
    limits = Limits(margin=6.5, broken_per_thousand=1000)
    utterances = judged(heard, int8=heard, limits=limits)
    speakers = judged(heard, int8=heard, limits=replace(limits, resampling="speakers"))
    assert rule(utterances, "WER against cpu").passed is True
    assert rule(speakers, "WER against cpu").passed is None
    assert any("on either side of the margin; the rule reads utterances" in note for note in utterances.notes)
    runs = {name: records(name, CPU, SAID) for name in ("cpu", "int32")}
    for name, one in runs.items():
        runs[name] = replace(one, utterances=tuple(replace(u, speaker=None) for u in one.utterances))
    verdict = summarise(runs, limits=Limits(resampling="speakers"), replications=100).verdict("int32")
    assert "drawing speakers needs at least two" in rule(verdict, "WER against cpu").sentence


def test_the_npu_measures_its_own_latency() -> None:
    verdict = judged(CPU, device="npu", validation=replace(PASSED, device="npu"))
    assert verdict.outcome == "DEPLOY"
    assert verdict.not_measured == ("energy",)
    assert "ran on the NPU" in verdict.device_statement


def test_limits_come_from_a_file_and_then_from_options(tmp_path: Path) -> None:
    assert read_limits() == Limits()
    path = tmp_path / "limits.toml"
    path.write_text('margin = 1\nresampling = "speakers"\n')
    assert read_limits(path) == Limits(margin=1.0, resampling="speakers")
    assert read_limits(path, margin=0.25, minimum_utterances=None) == Limits(0.25, resampling="speakers")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("margins = 1", "limits.toml: Object contains unknown field margins"),
        ("margin = true", "limits.toml: margin: Expected float, got bool"),
        ('margin = "half"', "limits.toml: margin: Expected float, got str"),
        ("margin = -1", "limits.toml: margin: Expected float >= 0.0"),
        ("margin = 101", "limits.toml: margin: Expected float <= 100.0"),
        ("margin = nan", "limits.toml: margin: Expected float >= 0.0"),
        ("margin = 1" + "0" * 400, r"limits.toml: margin: (Number out of range|Expected float)"),
        ("minimum_utterances = 1.5", "limits.toml: minimum_utterances: Expected int, got float"),
        ('resampling = "chapters"', "limits.toml: resampling: Invalid enum value 'chapters'"),
        ("a = " + "[" * 10_000, "limits.toml: not TOML"),
        ("margin =", "limits.toml: not TOML: "),
    ],
)
def test_limits_that_are_wrong_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(text)
    with pytest.raises(EvidenceError, match=message):
        read_limits(path)


def test_limits_from_nowhere_or_wrong_options(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"absent.toml: No such file"):
        read_limits(tmp_path / "absent.toml")
    with pytest.raises(EvidenceError, match=r"limits: margin: Expected float >= 0.0"):
        read_limits(margin=-2)
    (tmp_path / "limits.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(EvidenceError, match=r"not TOML"):
        read_limits(tmp_path / "limits.toml")
