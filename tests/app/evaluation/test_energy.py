from __future__ import annotations

import time
from pathlib import Path

import pytest

from app.energy import Battery, MeterError, Rapl, find_meter


def put(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")
    return path


def zone(root: Path, name: str, label: str, energy: int, top: int = 65_532_610_987) -> Path:
    """A RAPL zone's folder; returns its counter."""
    folder = root / "class" / "powercap" / name
    put(folder / "name", label)
    put(folder / "max_energy_range_uj", top)
    return put(folder / "energy_uj", energy)


def battery(root: Path, name: str = "BAT0", **files: object) -> Path:
    folder = root / "class" / "power_supply" / name
    for file, value in files.items():
        put(folder / file, value)
    return folder


def rapl(root: Path) -> Rapl:
    meter = find_meter(root)
    assert isinstance(meter, Rapl)
    return meter


def gauge(root: Path) -> Battery:
    meter = find_meter(root)
    assert isinstance(meter, Battery)
    return meter


def reason(root: Path) -> str:
    with pytest.raises(MeterError) as raised:
        find_meter(root)
    return str(raised.value)


def test_joules_are_what_the_counter_rose_by(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    meter = rapl(tmp_path)
    assert "package-0" in meter.name
    assert "not the NPU alone" in meter.name
    reading = meter.measure(lambda: put(counter, 3_500_000))
    assert reading.joules == 2.5
    assert reading.seconds > 0
    assert reading.watts == pytest.approx(2.5 / reading.seconds)


def test_a_counter_that_started_again(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000, top=10_000_000)
    assert rapl(tmp_path).measure(lambda: put(counter, 500_000)).joules == 1.5


def test_packages_add_up_and_nothing_counts_twice(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 0)
    others = [
        zone(tmp_path, "intel-rapl:0:0", "core", 0),
        zone(tmp_path, "intel-rapl:2", "psys", 0),
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
    ]

    def work() -> None:
        put(first, 1_000_000)
        put(second, 2_000_000)
        for other in others:
            put(other, 50_000_000)

    assert rapl(tmp_path).measure(work).joules == 3.0


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
    gauge(tmp_path)


def test_a_counter_that_goes_away(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    with pytest.raises(MeterError, match=r"intel-rapl:0/energy_uj: No such file"):
        rapl(tmp_path).measure(counter.unlink)


def test_a_counter_without_a_number(tmp_path: Path) -> None:
    put(zone(tmp_path, "intel-rapl:0", "package-0", 0), "none")
    assert reason(tmp_path) == "intel-rapl:0/energy_uj holds no number: 'none'; no battery"


def test_nothing_to_measure_with(tmp_path: Path) -> None:
    assert reason(tmp_path) == "no RAPL counters; no battery"


def test_a_discharging_battery_that_tells_its_power(tmp_path: Path) -> None:
    battery(tmp_path, status="Discharging", power_now=12_500_000)
    meter = gauge(tmp_path)
    assert "whole machine" in meter.name
    reading = meter.measure(lambda: time.sleep(0.01))
    assert reading.watts == pytest.approx(12.5)
    assert reading.joules == pytest.approx(12.5 * reading.seconds)


def test_a_discharging_battery_that_tells_current_and_voltage(tmp_path: Path) -> None:
    battery(tmp_path, status="Discharging", current_now=-1_500_000, voltage_now=12_000_000)
    assert gauge(tmp_path).watts() == pytest.approx(18.0)


def test_samples_during_the_work_count(tmp_path: Path) -> None:
    folder = battery(tmp_path, status="Discharging", power_now=10_000_000)
    reading = gauge(tmp_path).measure(lambda: put(folder / "power_now", 20_000_000))
    assert 10 < reading.watts <= 20


def test_a_charging_battery_tells_nothing_of_the_machine(tmp_path: Path) -> None:
    battery(tmp_path, status="Charging", power_now=30_000_000)
    assert reason(tmp_path) == "no RAPL counters; BAT0 is not discharging (charging)"


def test_a_battery_without_a_gauge(tmp_path: Path) -> None:
    battery(tmp_path, status="Discharging")
    assert reason(tmp_path) == "no RAPL counters; BAT0/current_now: No such file or directory"


def test_the_charger_comes_back_in_the_middle(tmp_path: Path) -> None:
    folder = battery(tmp_path, status="Discharging", power_now=10_000_000)
    meter = gauge(tmp_path)
    with pytest.raises(MeterError, match="BAT0 is not discharging"):
        meter.measure(lambda: put(folder / "status", "Charging"))


def test_failing_work_is_not_hidden(tmp_path: Path) -> None:
    battery(tmp_path, status="Discharging", power_now=1)
    meter = gauge(tmp_path)
    with pytest.raises(ZeroDivisionError):
        meter.measure(lambda: 1 // 0)
