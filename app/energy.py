"""Energy of a piece of work, from the processor's counters or the battery, or the reason why there is none.

RAPL (`class/powercap/intel-rapl:*`, which Linux has for AMD's processors too) counts microjoules of each processor
package; the counter starts again at its `max_energy_range_uj`. A battery tells the power of the whole machine while
it discharges. Neither sees the NPU alone: a package counter holds whatever the package does. Nothing is estimated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SYSFS = Path("/sys")
SAMPLE_SECONDS = 0.1
"""Between two readings of the battery; its own gauge is slower."""


@dataclass(frozen=True)
class Reading:
    """Energy of a piece of work.

    Attributes:
        joules: in all, idle power and other programs included.
        seconds: that it took.
    """

    joules: float
    seconds: float

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class NoMeter:
    """There is nothing to measure with; the reason in a few words."""

    reason: str


class MeterError(Exception):
    """A meter stopped working: what it could not read."""


class Meter(Protocol):
    """Measures the energy of a piece of work.

    Attributes:
        name: what is read, and what it covers.
    """

    name: str

    def measure(self, work: Callable[[], object]) -> Reading:
        """Run `work` and tell its energy.

        Raises:
            MeterError: the counters became unreadable, or the battery stopped discharging.
        """
        ...


def find_meter(root: Path = SYSFS) -> Meter | NoMeter:
    """The best meter that works here: RAPL, else a discharging battery.

    Args:
        root: where sysfs is mounted.
    """
    packages, without_rapl = _rapl(root)
    if packages:
        return Rapl(packages)
    batteries, without_battery = _batteries(root)
    if batteries:
        return Battery(batteries)
    return NoMeter(f"{without_rapl}; {without_battery}")


class Rapl:
    """The energy counters of the processor's packages."""

    def __init__(self, packages: list[Path]) -> None:
        """Read these folders' counters."""
        names = ", ".join(_text(package / "name") for package in packages)
        self.name = f"RAPL ({names}: the whole processor package, not the NPU alone)"
        self._packages = packages

    def measure(self, work: Callable[[], object]) -> Reading:
        """See `Meter`. Work that lasts longer than a counter's whole range, minutes at full power, is told too low."""
        before, start = [_number(p / "energy_uj") for p in self._packages], time.perf_counter_ns()
        work()
        seconds = (time.perf_counter_ns() - start) / 1e9
        microjoules = 0
        for package, first in zip(self._packages, before, strict=True):
            used = _number(package / "energy_uj") - first
            if used < 0:
                used += _number(package / "max_energy_range_uj")
            microjoules += used
        return Reading(microjoules / 1e6, seconds)


class Battery:
    """The batteries' own gauges, sampled while the work runs."""

    def __init__(self, batteries: list[Path]) -> None:
        """Read these folders' gauges."""
        self.name = f"battery ({', '.join(b.name for b in batteries)}: the whole machine)"
        self._batteries = batteries

    def watts(self) -> float:
        """Power at the moment.

        Raises:
            MeterError: a battery does not discharge, or cannot be read.
        """
        return sum(_battery_watts(battery) for battery in self._batteries)

    def measure(self, work: Callable[[], object]) -> Reading:
        """See `Meter`. The energy is the mean of the samples times the time."""
        samples, problems, done = [self.watts()], list[MeterError](), threading.Event()

        def sample() -> None:
            while not done.wait(SAMPLE_SECONDS):
                try:
                    samples.append(self.watts())
                except MeterError as error:
                    problems.append(error)
                    return

        sampler = threading.Thread(target=sample, name="battery", daemon=True)
        start = time.perf_counter_ns()
        sampler.start()
        try:
            work()
            seconds = (time.perf_counter_ns() - start) / 1e9
        finally:
            done.set()
            sampler.join()
        if problems:
            raise problems[0]
        samples.append(self.watts())
        return Reading(sum(samples) / len(samples) * seconds, seconds)


def _rapl(root: Path) -> tuple[list[Path], str]:
    """Folders of packages with readable counters, or why there are none."""
    folder = root / "class" / "powercap"
    zones = sorted(folder.glob("intel-rapl:*"))
    packages = []
    for zone in zones:
        try:
            if not _text(zone / "name").startswith("package"):
                continue  # the others are parts of a package, or psys, which covers them once more
            for counter in ("energy_uj", "max_energy_range_uj"):
                _number(zone / counter)
        except MeterError as error:
            return [], str(error)
        packages.append(zone)
    return packages, "no RAPL counters"


def _batteries(root: Path) -> tuple[list[Path], str]:
    """Folders of discharging batteries, or why there are none."""
    found = sorted((root / "class" / "power_supply").glob("BAT*"))
    if not found:
        return [], "no battery"
    discharging, reason = [], ""
    for battery in found:
        try:
            _battery_watts(battery)
        except MeterError as error:
            reason = reason or str(error)
            continue
        discharging.append(battery)
    return discharging, reason


def _battery_watts(battery: Path) -> float:
    status = _text(battery / "status")
    if status != "Discharging":
        raise MeterError(f"{battery.name} is not discharging ({status.lower()})")
    if (battery / "power_now").exists():
        return abs(_number(battery / "power_now")) / 1e6
    return abs(_number(battery / "current_now")) * _number(battery / "voltage_now") / 1e12


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except PermissionError:
        raise MeterError(f"{path.parent.name}/{path.name} is readable by root alone") from None
    except OSError as error:
        raise MeterError(f"{path.parent.name}/{path.name}: {error.strerror or error}") from None


def _number(path: Path) -> int:
    text = _text(path)
    try:
        return int(text)
    except ValueError:
        raise MeterError(f"{path.parent.name}/{path.name} holds no number: {text[:20]!r}") from None
