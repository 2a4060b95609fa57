from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from app.cli import app as tilescribe
from app.console import INTERRUPTED, LACKING, USAGE
from app.energy import MeterError, Rapl, Reading
from app.evaluation.benchmark import encoders, measuring
from app.evaluation.benchmark.measuring import WARM_UP, time_phases
from app.evaluation.benchmark.results import BenchResult, Options, Series
from app.evaluation.benchmark.text import device_line, lines
from kernels.emulator import Emulator

NO_NPU = not list(Path("/dev/accel").glob("accel*")) if Path("/dev/accel").exists() else True
TINY = encoders.stack("tiny.en", 4, 6, 80)
SMALL = encoders.stack("small one", 1, 1, 80, tokens=70)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(tilescribe, ["bench", *(str(argument) for argument in arguments)])


def refused(code: int, beginning: str, *arguments: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1), result.stderr
    assert result.stderr.startswith(f"error: {beginning}")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, dict[str, Any]]:
    """The whole command once: two kernels and the CPU, on the emulator."""
    file = tmp_path_factory.mktemp("bench") / "bench.json"
    settings = ("--model", "tiny.en", "--device", "emulator", "--backends", "int32,int8,cpu")
    result = run(*settings, "--tiles", "4", "--repeat", "1", "--threads", "1", "--json", file)
    assert result.exit_code == 0, result.stderr
    return result, json.loads(file.read_text())


def test_the_heading_names_the_device(measured: tuple[Result, dict[str, Any]]) -> None:
    first = measured[0].stdout.splitlines()[0]
    assert first == "tilescribe bench: emulator on the CPU: not an NPU figure; asked for"
    assert measured[1]["device"] == "emulator"
    assert measured[1]["measured_on_npu"] is False


def test_everything_asked_for_is_measured(measured: tuple[Result, dict[str, Any]]) -> None:
    settings = [(m["what"], m["backend"], m["tile_size"]) for m in measured[1]["measurements"]]
    assert settings == [
        ("host", "int32", 64), ("tile", "int32", 64), ("tile", "int8", 64), ("layer", "int32", 64),
        ("encoder", "int32", 64), ("layer", "int8", 64), ("encoder", "int8", 64), ("encoder", "cpu", None),
    ]  # fmt: skip
    phases = {(m["what"], m["backend"]): m["phases"] for m in measured[1]["measurements"]}
    assert list(phases["layer", "int8"]) == ["quantise", "run", "dequantise", "total"]
    assert list(phases["host", "int32"]) == ["quantise", "pack", "dequantise", "total"]
    assert phases["tile", "int32"]["run"]["count"] == 4
    for name in ("int32", "int8", "cpu"):
        window, attention = phases["encoder", name]["window"], phases["encoder", name]["attention"]
        assert 0 < attention["p50_ms"] < window["p50_ms"]
        assert window["cpu_per_minute"] == pytest.approx(window["cpu_ms"] * 60e-3 / 30)


def test_json_holds_schema_machine_and_assumptions(measured: tuple[Result, dict[str, Any]]) -> None:
    document = measured[1]
    assert document["schema_version"] == 1
    assert document["machine"]["cpu"]
    assert {"python", "tilescribe", "numpy", "numba", "torch"} <= document["machine"]["versions"].keys()
    assert document["options"]["tile_sizes"] == [64]
    model = document["cost_model"]
    assert "not a measurement" in model["note"]
    assert [w["model"] for w in model["windows"]] == ["tiny", "base", "small", "medium", "large", "turbo"]
    assert len(model["plans"]) == 24
    assert all(a["source"] for a in model["assumptions"])
    assert model["host"]["source"].startswith("measured here: ")
    assert model["one_dispatch_per_tile"]["tiles"] == 24 * 24 * 6 * 4
    assert document["energy"]["windows"] or document["energy"]["reason"]


def test_the_report_prints_every_assumption_and_that_nothing_ran(
    measured: tuple[Result, dict[str, Any]],
) -> None:
    report = " ".join(measured[0].stdout.split())
    assert "A model, not a measurement: no part of it has run on an NPU." in report
    for assumption in measured[1]["cost_model"]["assumptions"]:
        assert " ".join(f"{assumption['unit']}. {assumption['source']}.".split()) in report
    assert "13,824 tiles of 64 x 64" in report
    # Times on a busy machine make the table before it as wide as they are.
    modelled = measured[0].stdout.partition("One 30 s window")[2]
    assert max(len(line) for line in modelled.splitlines()) <= 120


def test_model_only_measures_nothing_on_a_device() -> None:
    result = run("--model-only", "--repeat", "1")
    assert result.exit_code == 0
    assert result.stdout.startswith("tilescribe bench: nothing was measured on a device\n")
    assert "27,648 tiles of 64 x 64" in result.stdout
    assert "39.4 %" in result.stdout
    assert "Tile: 64 rows" not in result.stdout


def test_json_to_standard_output_is_json_alone() -> None:
    result = run("--model-only", "--repeat", "1", "--model", "large-v3", "--json", "-")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["device"] is None
    assert document["cost_model"]["one_dispatch_per_tile"]["tiles"] == 24 * 24 * 20 * 32
    assert result.stderr == "bench: nothing was measured on a device\n"


def test_without_weights_windows_are_left_out_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(encoders, "of_name", lambda _: SMALL)
    result = run("--model", "small", "--device", "emulator", "--tiles", "1", "--repeat", "1")
    assert result.exit_code == 0
    assert (
        "left out: encoder windows: the weights of small are not here; `tilescribe models fetch small` gets them\n"
        in result.stdout
    )
    assert "Layer of small one: 1 heads, 70 tokens" in result.stdout
    assert "Window through the whole encoder" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backends", "int32,seed"], "unknown backend 'seed': choose from int32, int8, cpu"),
        (["--backends", ","], "--backends and --batch need at least one value each"),
        (["--tile-size", "65"], "--tile-size 65: choose from 64, 128, 256, all"),
        (["--batch", "1,x"], "--batch 1,x: whole numbers from 1 to 64, with commas"),
        (["--batch", "9" * 5000], f"--batch {'9' * 5000}: whole numbers from 1 to 64, with commas"),
        (["--batch", "0"], "--batch 0: whole numbers from 1 to 64, with commas"),
        (["--tiles", "0"], "--tiles: it has to be a whole number from 1 to 1,000,000"),
        (["--repeat", "-1"], "--repeat: it has to be a whole number from 1 to 1,000,000"),
        (["--threads", "2", "--threads", "0"], "--threads: it has to be a whole number from 1 to 1,024"),
        (["--json", "/nonexistent/x.json"], "--json /nonexistent/x.json: there is no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line(arguments: list[str], message: str) -> None:
    refused(USAGE, f"{message}\n", *arguments)


def test_an_unknown_model_is_wrong_usage() -> None:
    refused(USAGE, "unknown model 'nonesuch'", "--model", "nonesuch")


def test_a_missing_weights_file_is_lacking() -> None:
    path = "/nonexistent/model.pt"
    refused(LACKING, f"no such file or folder: '{path}'", "--model", path)


@pytest.mark.skipif(not NO_NPU, reason="this machine has an NPU")
def test_without_an_npu_asking_for_it_is_lacking() -> None:
    refused(LACKING, "there is no NPU here", "--model", "tiny.en", "--device", "npu")


def test_interrupted_runs_print_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring.Benchmark, "layer", interrupt)
    settings = ("--model", "tiny.en", "--device", "emulator", "--tiles", "2", "--repeat", "1")
    result = run(*settings, "--json", "-")
    assert result.exit_code == INTERRUPTED
    document = json.loads(result.stdout)
    assert document["interrupted"] is True
    assert [m["what"] for m in document["measurements"]] == ["host", "tile", "tile"]


def bench_small(**options: Any) -> BenchResult:
    chosen = Options(device="emulator", tiles=2, repeat=2, threads=(1,), **options)
    return measuring.run(chosen, SMALL, None, lambda *_: None)


def test_tiles_per_second_count_tiles_of_all_windows() -> None:
    result = bench_small(backends=("int32",), tile_sizes=(64, 256), batches=(1, 3))
    layers = {(m.tile_size, m.batch): m for m in result.measurements if m.what == "layer"}
    tiles = {(64, 1): 2 * 2, (256, 1): 2 * 1, (64, 3): 3 * 2 * 2, (256, 3): 3 * 2 * 1}
    assert {setting: m.tiles for setting, m in layers.items()} == tiles
    for m in layers.values():
        assert m.tiles_per_second == pytest.approx(1e3 * m.tiles / m.phases["run"].p50_ms)


def test_the_interrupted_report_says_so() -> None:
    result = bench_small(backends=("int8",))
    result.interrupted = True
    assert [line for line in list(lines(result))[:6] if "INTERRUPTED" in line]


def test_what_a_device_tells_of_itself_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter(np.arange(1, 1000) * 1e-6)
    honest = Emulator.run

    def telling(self: Any, *arguments: Any, **options: Any) -> Any:
        self.last_timings = {"sync": float(next(told))}
        return honest(self, *arguments, **options)

    monkeypatch.setattr(Emulator, "run", telling)
    result = bench_small(backends=("int32",))
    tile = next(m for m in result.measurements if m.what == "tile")
    series = tile.phases["emulator: sync"].samples_ns
    assert len(series) == 2
    assert series[1] - series[0] == 1000


def test_only_an_npu_has_a_smallest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "smallest run" not in {m.what for m in bench_small(backends=("int32",)).measurements}
    monkeypatch.setattr(Emulator, "name", "npu")  # stands in for a device that is not here
    result = bench_small(backends=("int32",), tile_sizes=(128,))
    smallest = next(m for m in result.measurements if m.what == "smallest run")
    assert (smallest.tile_size, smallest.tiles, len(smallest.phases["run"].samples_ns)) == (128, 0, 2)


@pytest.mark.parametrize("device", [None, "cpu", "emulator", "host"])
def test_nothing_but_an_npu_is_called_an_npu(device: str | None) -> None:
    line = device_line(device, "some reason")
    assert not line.startswith("NPU")
    assert device is None or "not an NPU figure" in line
    assert device_line("npu", "some reason").startswith("NPU")


class _Meter(Rapl):
    """Two watts at rest, and 5 J for any work."""

    name = "a meter"

    def __init__(self) -> None:
        pass

    def measure(self, work: Any) -> Reading:
        work()
        return Reading(5.0, 0.5)


def test_energy_is_told_with_and_without_idle_power(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(measuring, "find_meter", _Meter)
    options = Options("tiny.en", ("cpu",), threads=(1,), repeat=2)
    before = torch.get_num_threads()
    result = measuring.run(options, TINY, tiny, lambda *_: None)
    assert torch.get_num_threads() == before
    energy = result.energy
    assert energy is not None
    assert (energy.meter, energy.idle_watts) == ("a meter", 10.0)
    assert [(w.windows, w.joules, w.joules_over_idle) for w in energy.windows] == [(2, 2.5, 0.0)]
    first, *others = lines(result)
    assert first.startswith("tilescribe bench: CPU alone: not an NPU figure")
    assert "idle before the run: 10.00 W" in others
    assert result.device == "cpu"


def test_without_a_meter_there_is_a_reason_and_no_figure(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise MeterError("no counters")

    monkeypatch.setattr(measuring, "find_meter", none)
    options = Options("tiny.en", ("cpu",), threads=(1,), repeat=1)
    result = measuring.run(options, TINY, tiny, lambda *_: None)
    assert "Energy: not available (no counters)" in list(lines(result))
    assert result.to_dict()["energy"]["windows"] == []


def test_percentiles_are_numpys_and_keep_outliers() -> None:
    series = Series.of([1_000_000, 2_000_000, 3_000_000, 1_000_000_000])
    assert (series.count, series.min_ms, series.max_ms) == (4, 1, 1000)
    assert series.p50_ms == pytest.approx(2.5)
    assert series.p99_ms == pytest.approx(float(np.percentile([1, 2, 3, 1000], 99)))
    assert series.samples_ns == (1_000_000, 2_000_000, 3_000_000, 1_000_000_000)
    assert (series.cpu_ms, series.cpu_per_minute) == (None, None)


def test_cpu_time_is_a_mean_and_told_per_minute_of_audio() -> None:
    series = Series.of([1_000_000, 1_000_000], [2_000_000, 4_000_000], 30.0)
    assert (series.cpu_ms, series.cpu_per_minute) == (3.0, pytest.approx(0.006))
    assert Series.of([1], [2]).cpu_per_minute is None
    phases = time_phases({"a": lambda: None, "b": lambda: sum(range(10_000))}, 3)
    assert phases["total"].cpu_ms == pytest.approx((phases["a"].cpu_ms or 0) + (phases["b"].cpu_ms or 0))
    assert (phases["b"].cpu_ms or 0) > 0


def test_warm_up_rounds_are_not_counted() -> None:
    calls: list[str] = []
    phases = time_phases({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 5)
    assert calls == ["a", "b"] * (5 + WARM_UP)
    assert {name: len(series.samples_ns) for name, series in phases.items()} == {"a": 5, "b": 5, "total": 5}
    sums = [a + b for a, b in zip(phases["a"].samples_ns, phases["b"].samples_ns, strict=True)]
    assert list(phases["total"].samples_ns) == sums
