from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from material.evidence_records import dataset, run
from msgspec.structs import replace

from app.evaluation import kernels
from app.evaluation.record_files import RecordWriter, load, read
from app.evaluation.records import BackendRecords, EvidenceError, RunDescription, UtteranceRecord
from app.evaluation.reporting import keep_bench

ONE = UtteranceRecord("a-1", "TWO BOATS", " Two boats.", "s1", 2.5, 0.5, 0.2, 0.3, 4, -0.25, 1.1)
TWO = UtteranceRecord("a-2", "ÜBER ALL", ' "Über" all\n', None)
FAILED = UtteranceRecord("a-3", "NOON", error="not audio")


def write(path: Path, *records: UtteranceRecord, description: RunDescription | None = None) -> Path:
    with RecordWriter(path, description or run()) as writer:
        for record in records:
            writer.write(record)
    return path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "cpu.jsonl", ONE, TWO, FAILED)
    assert read(path) == BackendRecords(run(), (ONE, TWO, FAILED))
    assert path.read_bytes().count(b"\n") == 4
    assert json.loads(path.read_text().splitlines()[0])["schema_version"] == 1


def test_a_line_is_on_file_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "cpu.jsonl", run()) as writer:
        writer.write(ONE)
        assert read(tmp_path / "cpu.jsonl").utterances == (ONE,)


def test_a_figure_that_is_not_finite_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "cpu.jsonl", replace(ONE, avg_logprob=math.nan, compression_ratio=math.inf))
    (one,) = read(path).utterances
    assert one == replace(ONE, avg_logprob=None, compression_ratio=None)


def test_half_a_character_from_a_tokeniser_is_no_reason_to_lose_a_run(tmp_path: Path) -> None:
    path = write(tmp_path / "cpu.jsonl", replace(ONE, hypothesis="two \udce2 boats"), TWO)
    assert [u.hypothesis for u in read(path).utterances] == ["two ? boats", TWO.hypothesis]


@pytest.mark.parametrize("kept", range(1, 60, 7))
def test_a_killed_run_goes_on_with_what_was_cut(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "cpu.jsonl", ONE, FAILED, TWO)
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(whole[: last + kept])
    assert read(path).utterances == (ONE, FAILED)
    with RecordWriter(path, run(), resume=True) as writer:
        assert writer.done == {"a-1"}
        writer.write(replace(FAILED, error=None, hypothesis="noon"))
        writer.write(TWO)
    assert {u.id: u.hypothesis for u in load([path]).utterances} == {
        "a-1": ONE.hypothesis,
        "a-3": "noon",
        "a-2": TWO.hypothesis,
    }


def test_a_last_line_that_lacks_only_its_end_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "cpu.jsonl", ONE, TWO)
    path.write_bytes(path.read_bytes()[:-1])
    assert read(path).utterances == (ONE, TWO)
    with RecordWriter(path, run(), resume=True) as writer:
        assert writer.done == {"a-1", "a-2"}
        writer.write(FAILED)
    assert read(path).utterances == (ONE, TWO, FAILED)


def test_a_file_cut_in_its_first_line_begins_again(tmp_path: Path) -> None:
    path = write(tmp_path / "cpu.jsonl")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(EvidenceError, match=r"cut in its first line"):
        read(path)
    with RecordWriter(path, run(), resume=True) as writer:
        writer.write(ONE)
    assert read(path).utterances == (ONE,)


def test_a_file_is_not_overwritten_and_not_resumed_as_another_run(tmp_path: Path) -> None:
    path = write(tmp_path / "cpu.jsonl", ONE)
    before = path.read_bytes()
    with pytest.raises(EvidenceError, match=r"cpu.jsonl: there already; resume it"):
        RecordWriter(path, run())
    with pytest.raises(
        EvidenceError, match=r"not the same run: decoding.beam_size is None in .* and 5 in this run"
    ):
        RecordWriter(path, run(decoding={"beam_size": 5, "temperature": 0.0}), resume=True)
    with pytest.raises(EvidenceError, match=r"dataset.expected is 400 in"):
        RecordWriter(path, run(dataset=dataset(399)), resume=True)
    assert path.read_bytes() == before


def test_two_runs_do_not_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "cpu.jsonl"
    with RecordWriter(path, run()), pytest.raises(EvidenceError, match="another run is writing"):
        RecordWriter(path, run(), resume=True)


SPOKEN = b'{"kind":"utterance","id":"x","reference":"y","hypothesis":"z"'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{]", "damaged: JSON is malformed"),
        (b"[1]", "Expected object, got array"),
        (b'{"kind":"utterance","id":"\xff"}', "damaged: not UTF-8"),
        (SPOKEN + b',"speaker":"\\udce2"}', "damaged: JSON is malformed: invalid utf-16 surrogate pair"),
        (SPOKEN + b',"seconds":NaN}', "damaged: JSON is malformed: invalid character"),
        (SPOKEN + b',"seconds":' + b"9" * 400 + b"}", "seconds: Number out of range"),
        (SPOKEN + b',"seconds":-1}', "seconds: Expected float >= 0.0"),
        (SPOKEN + b',"tokens":' + b"9" * 5000 + b"}", "tokens: Integer value out of range"),
        (SPOKEN + b',"tokens":' + b"[" * 100_000 + b"}", "tokens: Expected int | null, got array"),
        (SPOKEN + b',"mood":1}', "Object contains unknown field mood"),
        (
            b'{"kind":"utterance","id":"x","reference":"y"}',
            "utterance x: give a hypothesis, or else an error",
        ),
        (b'{"kind":"utterance","id":"x","hypothesis":"z"}', "Object missing required field reference"),
        (b'{"kind":"utterance","id":7,"reference":"y","hypothesis":"z"}', "id: Expected str, got int"),
        (b'{"kind":"utterance","id":"","reference":"y","hypothesis":"z"}', "id: Expected str of length >= 1"),
        (b'{"kind":"song"}', "kind: Invalid value 'song'"),
        (b'{"id":"x"}', "Object missing required field kind"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = write(tmp_path / "cpu.jsonl")
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(EvidenceError, match=re.escape(f"cpu.jsonl:2: {message}")):
        read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version: Invalid enum value 2"),
        ({"schema_version": None}, "schema_version: Expected int, got null"),
        ({"kind": "utterance"}, "Object contains unknown field model"),
        ({"colour": "red"}, "Object contains unknown field colour"),
        ({"threads": True}, "threads: Expected int | null, got bool"),
        ({"dataset": 3}, "dataset: Expected object, got int"),
        ({"dataset": {"name": "x", "expected": "many"}}, "dataset.expected: Expected int | null, got str"),
        ({"kernel": [1]}, "kernel: Expected object, got array"),
    ],
)
def test_a_first_line_that_this_version_does_not_know_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = write(tmp_path / "cpu.jsonl")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}) + "\n")
    with pytest.raises(EvidenceError, match=re.escape(f"cpu.jsonl:1: {message}")):
        read(path)


def test_a_first_line_has_to_be_a_description_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "cpu.jsonl"
    path.write_bytes(SPOKEN + b"}\n")
    with pytest.raises(EvidenceError, match=r"cpu.jsonl:1: not a run's description"):
        read(path)
    write(tmp_path / "deep.jsonl")
    whole = (tmp_path / "deep.jsonl").read_bytes()
    path.write_bytes(whole.replace(b'"kernel":{}', b'"kernel":{"a":' + b"[" * 100_000))
    with pytest.raises(EvidenceError, match=r"cpu.jsonl:1: damaged: nested too deep"):
        read(path)


def test_a_second_description_and_an_empty_or_absent_file_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "cpu.jsonl", ONE)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(EvidenceError, match=r"cpu.jsonl:3: a second run's description"):
        load([path])
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(EvidenceError, match=r"empty.jsonl: empty"):
        load([tmp_path / "empty.jsonl"])
    with pytest.raises(EvidenceError, match=r"absent.jsonl: No such file"):
        load([tmp_path / "absent.jsonl"])
    with pytest.raises(EvidenceError, match=r"no record files"):
        load([])


def test_shards_become_one_run(tmp_path: Path) -> None:
    first = write(tmp_path / "1.jsonl", ONE, FAILED)
    done = replace(FAILED, error=None, hypothesis="noon")
    other = run(processor="another", threads=8, started="2024-12-31T00:00:00+00:00")
    second = write(tmp_path / "2.jsonl", TWO, done, replace(ONE, seconds=9.0), description=other)
    merged = load([first, second])
    assert merged.utterances == (ONE, done, TWO)
    assert merged.run.processor == "a processor; another"
    assert merged.run.threads is None
    assert merged.run.started == "2024-12-31T00:00:00+00:00"
    assert load([second, first]).run == merged.run


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (replace(ONE, hypothesis="two goats"), r"utterance a-1: two hypotheses, in .*1.jsonl and .*2.jsonl"),
        (replace(ONE, reference="TWO GOATS"), r"utterance a-1: reference differs"),
        (replace(ONE, speaker="s2"), r"utterance a-1: speaker differs"),
    ],
)
def test_shards_that_contradict_each_other_are_refused(
    tmp_path: Path, second: UtteranceRecord, message: str
) -> None:
    paths = [write(tmp_path / "1.jsonl", ONE), write(tmp_path / "2.jsonl", second)]
    with pytest.raises(EvidenceError, match=message):
        load(paths)


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (run("int8"), "backend"),
        (run(model_sha256="ef"), "model_sha256"),
        (run(kernel={"tile_size": 64}), "kernel.tile_size"),
        (run(versions={"tilescribe": "0.2.0"}), "versions.tilescribe"),
        (run(dataset=replace(dataset(), sha256="ee")), "dataset.sha256"),
    ],
)
def test_shards_of_different_runs_are_refused(tmp_path: Path, other: RunDescription, field: str) -> None:
    paths = [write(tmp_path / "1.jsonl", ONE), write(tmp_path / "2.jsonl", TWO, description=other)]
    with pytest.raises(
        EvidenceError, match=rf"not the same run: {field} is .* in .*1.jsonl and .* in .*2.jsonl"
    ):
        load(paths)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "damaged: Input data was truncated"),
        (b"\xff", "damaged: "),
        (b'{"schema_version":0}', "schema_version: Invalid enum value 0"),
        (b'{"schema_version":%v,"extras":{"x":"\\ud800"},"measurements":["\\ud800"]}', "damaged: "),
        (b'{"schema_version":%v,"%s":1e999}', "%s: Number out of range"),
        (b'{"schema_version":%v,"%s":{"x":' + b"9" * 400 + b".5}}", "%s"),
        (b'{"schema_version":%v,"extras":{"x":' + b"[" * 100_000, "damaged: nested too deep"),
    ],
)
def test_kernels_and_bench_figures_that_are_damaged_are_named(
    tmp_path: Path, text: bytes, message: str
) -> None:
    for name, field, version in (("kernels.json", "validation", b"2"), ("bench.json", "measurements", b"1")):
        path = tmp_path / name
        path.write_bytes(text.replace(b"%s", field.encode()).replace(b"%v", version))
        with pytest.raises(EvidenceError, match=re.escape(f"{path}: {message.replace('%s', field)}")) as told:
            kernels.read([tmp_path], run()) if name == "kernels.json" else keep_bench(path, tmp_path)
        assert len(str(told.value).splitlines()) == 1
