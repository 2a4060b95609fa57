"""Energy of a piece of work, from the processor's counters or the battery, or the reason why there is none.

RAPL (`class/powercap/intel-rapl:*`, which Linux has for AMD's processors too) counts microjoules of each processor
package; the counter starts again at its `max_energy_range_uj`. A battery tells the power of the whole machine while
it discharges. Neither sees the NPU alone: a package counter holds whatever the package does. Nothing is estimated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys")
SAMPLE_SECONDS = 0.1
"""Between two readings of the battery; its own gauge is slower."""


@dataclass(frozen=True)
class Reading:
    """Energy of a piece of work, idle power and other programs included, and the seconds that it took."""

    joules: float
    seconds: float

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / self.seconds if self.seconds > 0 else 0.0


class MeterError(Exception):
    """A meter is missing or stopped working: what it could not read."""


class Rapl:
    """The energy counters of the processor's packages; `name` says what they cover."""

    def __init__(self, root: Path) -> None:
        """Find the counters under a sysfs. Raises `MeterError`: there are none, or they cannot be read."""
        self._packages = []
        for zone in sorted((root / "class" / "powercap").glob("intel-rapl:*")):
            # The others are parts of a package, or psys, which covers them once more.
            if _text(zone / "name").startswith("package"):
                self._packages.append(zone)
                self._counts("energy_uj", "max_energy_range_uj")
        if not self._packages:
            raise MeterError("no RAPL counters")
        names = ", ".join(_text(package / "name") for package in self._packages)
        self.name = f"RAPL ({names}: the whole processor package, not the NPU alone)"

    def measure(self, work: Callable[[], object]) -> Reading:
        """Run `work` and tell its energy: too little if it outlasts a counter's range, minutes at full power.

        Raises:
            MeterError: the counters became unreadable.
        """
        before, start = self._counts("energy_uj"), time.perf_counter_ns()
        work()
        seconds = (time.perf_counter_ns() - start) / 1e9
        after, ranges = self._counts("energy_uj"), self._counts("max_energy_range_uj")
        used = ((b - a) if b >= a else b - a + top for a, b, top in zip(before, after, ranges, strict=True))
        return Reading(sum(used) / 1e6, seconds)

    def _counts(self, *files: str) -> list[int]:
        return [_number(package / file) for package in self._packages for file in files]


class Battery:
    """The batteries' own gauges, sampled while the work runs; `name` says what they cover."""

    def __init__(self, root: Path) -> None:
        """Find discharging batteries under a sysfs. Raises `MeterError`: there are none."""
        self._batteries: list[Path] = []
        reasons = []
        for battery in sorted((root / "class" / "power_supply").glob("BAT*")):
            try:
                _battery_watts(battery)
                self._batteries.append(battery)
            except MeterError as error:
                reasons.append(str(error))
        if not self._batteries:
            raise MeterError(reasons[0] if reasons else "no battery")
        self.name = f"battery ({', '.join(b.name for b in self._batteries)}: the whole machine)"

    def watts(self) -> float:
        """Power at the moment. Raises `MeterError`: a battery does not discharge, or cannot be read."""
        return sum(map(_battery_watts, self._batteries))

    def measure(self, work: Callable[[], object]) -> Reading:
        """Run `work` and tell its energy: the mean of the samples times the time.

        Raises:
            MeterError: a battery stopped discharging, or cannot be read.
        """
        samples, done = [self.watts()], threading.Event()

        def sample() -> None:
            while not done.wait(SAMPLE_SECONDS):
                samples.append(self.watts())

        with ThreadPoolExecutor(1, "battery") as pool:
            sampling = pool.submit(sample)
            start = time.perf_counter_ns()
            try:
                work()
                seconds = (time.perf_counter_ns() - start) / 1e9
            finally:
                done.set()
        sampling.result()
        samples.append(self.watts())
        return Reading(sum(samples) / len(samples) * seconds, seconds)


def find_meter(root: Path = SYSFS) -> Rapl | Battery:
    """The best meter that works here: RAPL, else a discharging battery. Raises `MeterError`: why there is none."""
    reasons = []
    for kind in (Rapl, Battery):
        try:
            return kind(root)
        except MeterError as error:
            reasons.append(str(error))
    raise MeterError("; ".join(reasons))


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
