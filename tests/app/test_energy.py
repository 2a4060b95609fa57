from __future__ import annotations

import time
from pathlib import Path

import pytest

from app.energy import Battery, MeterError, Rapl, find_meter


def put(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")
    return path


def zone(root: Path, name: str, label: str, energy: object, top: int = 65_532_610_987) -> Path:
    """A RAPL zone's folder; returns its counter."""
    folder = root / "class" / "powercap" / name
    put(folder / "name", label)
    put(folder / "max_energy_range_uj", top)
    return put(folder / "energy_uj", energy)


def battery(root: Path, **files: object) -> Path:
    folder = root / "class" / "power_supply" / "BAT0"
    for file, value in files.items():
        put(folder / file, value)
    return folder


def reason(root: Path) -> str:
    with pytest.raises(MeterError) as raised:
        find_meter(root)
    return str(raised.value)


def test_joules_are_what_the_counter_rose_by(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    meter = find_meter(tmp_path)
    assert isinstance(meter, Rapl)
    assert "package-0" in meter.name
    assert "not the NPU alone" in meter.name
    reading = meter.measure(lambda: put(counter, 3_500_000))
    assert reading.joules == 2.5
    assert reading.seconds > 0
    assert reading.watts == pytest.approx(2.5 / reading.seconds)


def test_a_counter_that_started_again(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000, top=10_000_000)
    assert find_meter(tmp_path).measure(lambda: put(counter, 500_000)).joules == 1.5


def test_packages_add_up_and_nothing_counts_twice(tmp_path: Path) -> None:
    rises = {
        zone(tmp_path, "intel-rapl:0", "package-0", 0): 1_000_000,
        zone(tmp_path, "intel-rapl:1", "package-1", 0): 2_000_000,
        zone(tmp_path, "intel-rapl:0:0", "core", 0): 50_000_000,
        zone(tmp_path, "intel-rapl:2", "psys", 0): 50_000_000,
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0): 50_000_000,
    }
    assert find_meter(tmp_path).measure(lambda: [put(*rise) for rise in rises.items()]).joules == 3.0


def test_counters_for_root_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    honest = Path.read_text

    def denied(path: Path, *arguments: str, **options: str) -> str:
        if path.name == "energy_uj":  # a test that runs as root cannot be denied anything by the file's mode
            raise PermissionError(13, "Permission denied")
        return honest(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", denied)
    assert reason(tmp_path) == "intel-rapl:0/energy_uj is readable by root alone; no battery"
    battery(tmp_path, status="Discharging", power_now=1_000_000)
    assert isinstance(find_meter(tmp_path), Battery)


def test_a_counter_that_goes_away(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    with pytest.raises(MeterError, match=r"intel-rapl:0/energy_uj: No such file"):
        find_meter(tmp_path).measure(counter.unlink)


def test_a_counter_without_a_number(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", "none")
    assert reason(tmp_path) == "intel-rapl:0/energy_uj holds no number: 'none'; no battery"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no battery"),
        ({"status": "Charging", "power_now": 30_000_000}, "BAT0 is not discharging (charging)"),
        ({"status": "Discharging"}, "BAT0/current_now: No such file or directory"),
    ],
    ids=["none", "charging", "without a gauge"],
)
def test_a_battery_that_tells_nothing_of_the_machine(
    tmp_path: Path, files: dict[str, object], said: str
) -> None:
    battery(tmp_path, **files)
    assert reason(tmp_path) == f"no RAPL counters; {said}"


@pytest.mark.parametrize(
    ("files", "watts"),
    [({"power_now": 12_500_000}, 12.5), ({"current_now": -1_500_000, "voltage_now": 12_000_000}, 18.0)],
    ids=["power", "current and voltage"],
)
def test_a_discharging_battery(tmp_path: Path, files: dict[str, object], watts: float) -> None:
    battery(tmp_path, status="Discharging", **files)
    meter = find_meter(tmp_path)
    assert isinstance(meter, Battery)
    assert "whole machine" in meter.name
    assert meter.watts() == pytest.approx(watts)
    reading = meter.measure(lambda: time.sleep(0.01))
    assert reading.watts == pytest.approx(watts)
    assert reading.joules == pytest.approx(watts * reading.seconds)


def test_samples_during_the_work_count(tmp_path: Path) -> None:
    folder = battery(tmp_path, status="Discharging", power_now=10_000_000)
    reading = find_meter(tmp_path).measure(lambda: put(folder / "power_now", 20_000_000))
    assert 10 < reading.watts <= 20


def test_the_charger_comes_back_in_the_middle(tmp_path: Path) -> None:
    folder = battery(tmp_path, status="Discharging", power_now=10_000_000)
    meter = find_meter(tmp_path)
    with pytest.raises(MeterError, match="BAT0 is not discharging"):
        meter.measure(lambda: put(folder / "status", "Charging"))


def test_failing_work_is_not_hidden(tmp_path: Path) -> None:
    battery(tmp_path, status="Discharging", power_now=1)
    with pytest.raises(ZeroDivisionError):
        find_meter(tmp_path).measure(lambda: 1 // 0)
