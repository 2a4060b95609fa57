from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from material.evidence_records import dataset, records, references, run, spoil, wrong
from msgspec.structs import replace

from app.evaluation.evaluation import Evaluation, summarise
from app.evaluation.kernels import KernelValidation
from app.evaluation.records import BackendRecords, EvidenceError, UtteranceRecord
from app.evaluation.report.page import render_markdown
from app.evaluation.reporting import print_summary

SAID = references(120)
CPU = spoil(SAID, wrong(0.05))
HEARD = {
    "cpu": CPU,
    "int32": spoil(CPU, wrong(0.2), share=0.05, seed=2),
    "int8": spoil(CPU, wrong(0.2), share=0.1, seed=3),
    "legacy-int32": spoil(SAID, wrong(0.25), seed=4),
}


VALIDATION = {"int32": KernelValidation("int32", True, "emulator", "64 tiles equal the reference", 64)}


def runs(**fields: Any) -> dict[str, BackendRecords]:
    return {name: records(name, texts, SAID, **{"expected": 120, **fields}) for name, texts in HEARD.items()}


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return summarise(runs(), validation=VALIDATION, replications=500)


def text(evaluation: Evaluation) -> str:
    return json.dumps(evaluation.to_dict(), allow_nan=False)


def test_the_same_records_give_the_same_bytes(evaluation: Evaluation) -> None:
    shuffled = {}
    for name, one in runs().items():
        utterances = list(one.utterances)
        random.Random(name).shuffle(utterances)
        shuffled[name] = replace(one, utterances=tuple(utterances))
    again = summarise(shuffled, validation=VALIDATION, replications=500)
    assert text(again) == text(evaluation)
    assert render_markdown(again) == render_markdown(evaluation)
    assert text(summarise(runs(), validation=VALIDATION, replications=500, seed=1)) != text(evaluation)


def test_another_backend_changes_no_figure_of_the_others(evaluation: Evaluation) -> None:
    fewer = summarise({name: one for name, one in runs().items() if name != "legacy-int32"}, replications=500)
    for name in ("cpu", "int32", "int8"):
        assert fewer.backend(name).utterance_interval == evaluation.backend(name).utterance_interval
        assert fewer.comparison(name) == evaluation.comparison(name)


def test_the_object_has_what_the_reports_need(evaluation: Evaluation) -> None:
    data = evaluation.to_dict()
    assert data["schema_version"] == 1
    assert list(data) == [
        "schema_version", "dataset", "statistics", "limits", "verdicts", "backends", "comparisons",
        "streams", "differing", "notes",
    ]  # fmt: skip
    assert [v["backend"] for v in data["verdicts"]] == ["int32", "int8", "legacy-int32"]
    assert {v["backend"]: v["exit_code"] for v in data["verdicts"]}["legacy-int32"] == 3
    assert [b["backend"] for b in data["backends"]] == list(HEARD)
    assert data["backends"][0]["broken"] is None
    assert data["backends"][1]["run"]["kernel"] == {"tile_size": 64}
    assert data["dataset"]["speakers"] == 10
    assert data["dataset"]["audio_seconds"] == 1200
    pairs = [(c["backend"], c["baseline"]) for c in data["comparisons"]]
    assert pairs[:3] == [("int32", "cpu"), ("int8", "cpu"), ("legacy-int32", "cpu")]
    assert ("int32", "int8") in pairs
    assert ("int8", "int8") not in pairs


def test_figures_agree_with_each_other(evaluation: Evaluation) -> None:
    for name in ("int32", "int8", "legacy-int32"):
        found = evaluation.comparison(name)
        assert found is not None
        assert found.wer == evaluation.backend(name).rates.wer
        assert found.baseline_wer == evaluation.backend("cpu").rates.wer
        assert found.utterance_interval is not None
        assert found.difference is not None
        assert found.utterance_interval.low <= found.difference <= found.utterance_interval.high
        same = sum(a == b for a, b in zip(HEARD[name], CPU, strict=True))
        assert found.identical_raw == found.identical_normalised == same
        assert found.improved + found.worsened <= 120 - same
        assert found.share_no_worse == 1 - found.worsened / 120
        assert found.mapsswe.segments > 0
    differing = {u.id for u in evaluation.differing}
    assert len(differing) == sum(any(HEARD[name][i] != CPU[i] for name in HEARD) for i in range(len(SAID)))


def test_differing_utterances_show_both_sides(evaluation: Evaluation) -> None:
    for utterance in evaluation.differing:
        first, *others = utterance.transcripts
        assert first.backend == "cpu"
        assert first.same_as_cpu
        assert [r for _, r, _ in first.operations if r] == utterance.reference.split()
        assert any(not other.same_as_cpu for other in others)
        for other in others:
            assert bool(other.operations) is not other.same_as_cpu
            if other.operations:
                assert sum(kind != "=" for kind, _, _ in other.operations) == other.errors


def test_a_whole_set_goes_by_its_name_and_a_part_never(evaluation: Evaluation) -> None:
    assert evaluation.dataset.title == "librispeech-test-clean"
    assert "**This is not" not in render_markdown(evaluation)
    for described, title in (
        (dataset(2620), "a subset of librispeech-test-clean: 120 of 2,620 utterances"),
        (dataset(None), "120 utterances of librispeech-test-clean, whose size is not known"),
        (dataset(120, complete=False), "120 utterances of librispeech-test-clean, which was not whole"),
    ):
        part = summarise(runs(dataset=described), replications=100)
        assert (part.dataset.title, part.dataset.complete) == (title, False)
        page = render_markdown(part)
        assert page.startswith(f"# tiny.en on {title}\n")
        assert "**This is not the librispeech-test-clean WER**" in page


def test_the_page_is_short_and_says_it_all(evaluation: Evaluation) -> None:
    page = render_markdown(evaluation)
    for name in ("int32", "int8", "legacy-int32"):
        assert f"## {name}: {evaluation.verdict(name).outcome}\n" in page
    assert "## legacy-int32: HOLD" in page
    assert f"{100 * (evaluation.backend('cpu').rates.wer or 0):.2f} %" in page
    assert "the emulator's time, not an NPU's" in page
    assert "Bisani and Ney" in page
    assert len(page.splitlines()) < 120
    assert page.endswith("\n")
    for row in (line for line in page.splitlines() if line.startswith("| ---")):
        assert row.count("|") in (4, 9, 10)


def test_the_summary_says_rate_interval_device_and_verdict(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summary(evaluation, Path("somewhere"))
    title, heading, *lines = capsys.readouterr().out.splitlines()
    assert (title, lines[-1]) == (evaluation.dataset.title, "report: somewhere/report.html")
    assert " ".join(heading.split()) == "backend WER 95 % interval time / audio CPU s/min ran on"
    for line, backend in zip(lines, evaluation.backends, strict=False):
        assert line.split()[:2] == [backend.backend, f"{100 * (backend.rates.wer or 0):.2f}"]
        assert line.endswith(f" {backend.run.device}")
    for line, verdict in zip(lines[len(evaluation.backends) :], evaluation.verdicts, strict=False):
        assert line.startswith(f"{verdict.backend:12} {verdict.outcome}")


def test_text_from_outside_stays_text() -> None:
    odd = run("int32", 1, dataset=replace(dataset(1), name="a|b<script>`*_"))
    one = UtteranceRecord("x|y", "two boats", "two boats", "s")
    page = render_markdown(summarise({"int32": BackendRecords(odd, (one,))}, replications=10))
    assert "<script>" not in page
    assert "a\\|b&lt;script>\\`\\*\\_" in page


def test_backends_that_did_not_do_the_same_are_compared_on_what_both_did() -> None:
    given = runs()
    given["legacy-int32"] = replace(given["legacy-int32"], utterances=given["legacy-int32"].utterances[:50])
    found = summarise(given, replications=300)
    whole = summarise(runs(), replications=300)
    assert found.comparison("int32") == whole.comparison("int32")
    part = found.comparison("legacy-int32")
    assert part is not None
    assert part.utterances == 50
    assert part.baseline_wer != found.backend("cpu").rates.wer
    assert found.dataset.title == "a subset of librispeech-test-clean: 50 of 120 utterances"
    assert found.notes == (
        "not every backend transcribed the same utterances (cpu 120, int32 120, int8 120, legacy-int32 50); each pair "
        "is compared on its own",
    )
    assert found.verdict("legacy-int32").outcome == "HOLD"


def test_notes_say_what_cannot_be_compared() -> None:
    given = runs()
    other = replace(given["int32"].run, processor="another", versions={"tilescribe": "0.2.0", "numba": "1"})
    given["int32"] = replace(given["int32"], run=other)
    notes = summarise(given, replications=100).notes
    assert notes[0].startswith("processor differs (cpu: a processor, int32: another,")
    assert notes[1] == "versions differ between backends: numba, tilescribe"


def test_mended_utterances_count_for_the_backend() -> None:
    looping = [CPU[0] + " sun" * 20, *CPU[1:]]
    given = {"cpu": records("cpu", looping, SAID), "int32": records("int32", CPU, SAID)}
    found = summarise(given, replications=100).backend("int32")
    assert found.broken == ()
    assert [one.id for one in found.mended or ()] == ["u0000"]


def test_nothing_at_all_still_makes_a_report() -> None:
    empty = {"cpu": BackendRecords(run("cpu"), ()), "int32": BackendRecords(run("int32"), ())}
    found = summarise(empty, replications=10)
    assert found.verdict("int32").outcome == "INCONCLUSIVE"
    assert found.backend("cpu").rates.wer is None
    assert "| cpu | - | - |" in render_markdown(found)
    text(found)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "int32",
            {"model_sha256": "00"},
            r"not the same run: model_sha256 is 'cd.* in cpu and '00' in int32",
        ),
        ("int32", {"decoding": {"beam_size": 5}}, r"decoding.beam_size is None in cpu and 5 in int32"),
        ("int32", {"dataset": dataset(99)}, r"dataset.expected is 120 in cpu and 99 in int32"),
        ("int32", {"backend": "int8"}, r"records given for int32 are of int8"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(
    name: str, change: dict[str, object], message: str
) -> None:
    given = runs()
    given[name] = replace(given[name], run=replace(given[name].run, **change))  # type: ignore[arg-type]
    with pytest.raises(EvidenceError, match=message):
        summarise(given)


def test_records_that_contradict_each_other_are_refused() -> None:
    given = runs()
    first, *rest = given["int32"].utterances
    other = replace(first, reference="something else")
    with pytest.raises(EvidenceError, match=r"utterance u0000: reference differs between cpu and int32"):
        summarise({**given, "int32": replace(given["int32"], utterances=(other, *rest))})
    with pytest.raises(EvidenceError, match=r"cpu: 120 utterances of a data set of 100"):
        summarise(runs(expected=100))
    with pytest.raises(EvidenceError, match=r"no records"):
        summarise({})


def test_words_lost_here_and_there_stay_within_their_bounds() -> None:
    said = references(103)

    def deaf(words: list[str], chance: random.Random) -> list[str]:
        return [w for w in words if chance.random() > 0.04]

    heard = {
        "cpu": spoil(said, deaf),
        "int32": spoil(said, deaf, seed=9),
        "legacy-int8": spoil(said, wrong(0.9)),
    }
    given = {name: records(name, texts, said, expected=2620) for name, texts in heard.items()}
    found = summarise(given, replications=1000)
    assert not found.dataset.complete
    assert found.verdict("legacy-int8").outcome == "HOLD"
    assert found.verdict("int32").outcome == "INCONCLUSIVE"
    rates = found.backend("cpu").rates
    assert rates.deletions == rates.words - rates.hits - rates.substitutions
    assert 0.03 < (rates.wer or 0) < 0.05
