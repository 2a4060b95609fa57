"""What is measured: pairs in turn, so that both sides see the same load of the machine, and ratios pair by pair."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers.first_word import commands, seconds_to
from peers.process import Worker
from peers.racers import RACERS
from peers.ratios import Figures, Ratio

if TYPE_CHECKING:
    from peers.material import Material

QUICK_SECONDS = 120

Work = tuple[Any, ...]
"""A side's method, and its arguments."""


@dataclass(frozen=True)
class Row:
    """A row of the race.

    Attributes:
        name: as `--only` takes it.
        measure: gives its ratios.
        racer: the peer's name in `RACERS`; None where Tilescribe is held against itself.
        goals: the ratio that is to be reached, and the one that is hoped for.
        ways: of Tilescribe, each of which makes a ratio: backends, or compute types.
        title: what to add to the peer's.
        first_model: whether it is measured with the first model alone.
    """

    name: str
    measure: Callable[[Bench, Row], Iterator[Ratio]]
    racer: str | None
    goals: tuple[float, float]
    ways: tuple[str, ...] = ()
    title: str = ""
    first_model: bool = False

    @property
    def peer(self) -> str:
        """The peer, as tables have it."""
        return " ".join(filter(None, (RACERS[self.racer].title if self.racer else "", self.title)))


@dataclass(frozen=True)
class Bench:
    """One model, to be measured beside others; `asked` are the command's options, `scratch` a folder for files."""

    model: str
    asked: Namespace
    material: Material
    scratch: Path

    @property
    def pairs(self) -> int:
        """Measured of each row, but of peak memory one."""
        return self.asked.pairs or (2 if self.asked.quick else 5)

    @property
    def singles(self) -> list[tuple[Path, float]]:
        """Recordings of the rows with single utterances, and their seconds."""
        return [(u.audio, seconds) for u, seconds in self.material.some(5 if self.asked.quick else 20)]

    @property
    def grouped(self) -> list[tuple[Path, float]]:
        """Recordings of the rows of `evaluate`, the longest first as it takes them, and their seconds."""
        some = self.material.some(8 if self.asked.quick else 40)
        return [(u.audio, s) for u, s in sorted(some, key=lambda pair: (-pair[1], pair[0].id))]

    def ours(self, **how: str) -> Worker:
        """Tilescribe."""
        return Worker("Tilescribe", self.model, self.asked.threads, **how)

    def theirs(self, racer: str) -> Worker:
        """A peer, by its name in `RACERS`."""
        return RACERS[racer].start(self.model, self.asked.threads, self.scratch)

    def beside(
        self, row: Row, what: str, audio: float, work: Work, their_work: Work | None = None, **how: str
    ) -> Ratio:
        """Time Tilescribe, opened as `how` says, beside a row's peer.

        Args:
            row: whose ratio it is.
            what: is done.
            audio: seconds that are transcribed.
            work: of both.
            their_work: the peer's, where that is another one.
            how: Tilescribe is opened.
        """
        assert row.racer is not None
        with self.theirs(row.racer) as theirs, self.ours(**how) as ours:
            measured = warm(ours, theirs, self.pairs, audio, work, their_work)
        return Ratio(row.name, what, row.peer, self.model, *row.goals, "s", **measured)


def interleave(
    ours: Callable[[], float], theirs: Callable[[], float], pairs: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure both in turn, each first in every other pair."""
    figures: dict[Callable[[], float], list[float]] = {ours: [], theirs: []}
    for i in range(pairs):
        for side in (theirs, ours) if i % 2 else (ours, theirs):
            figures[side].append(side())
    return tuple(figures[ours]), tuple(figures[theirs])


def warm(
    ours: Worker, theirs: Worker, pairs: int, audio: float, work: Work, their_work: Work | None = None
) -> dict[str, Any]:
    """Let both sides do their work once, then time it: the fields of a `Ratio`; `audio` are the seconds of it."""
    works = {ours: work, theirs: their_work or work}
    cpu: dict[Worker, list[float]] = {ours: [], theirs: []}

    def timed(side: Worker) -> float:
        done = side.call(*works[side])
        cpu[side].append(done.cpu)
        return done.seconds

    def figures(side: Worker) -> Figures:
        megabytes = float(side.call("megabytes").result)
        return Figures(side.load, megabytes, min(cpu[side]) * 60 / audio, side.said)

    texts = [side.call(*its).result for side, its in works.items()]
    words = tuple(sum(len(text.split()) for text in its) for its in texts) if texts[0] else None
    measured = interleave(partial(timed, ours), partial(timed, theirs), pairs)
    sides = figures(ours), figures(theirs)
    return {"ours": measured[0], "theirs": measured[1], "words": words, "sides": sides}


def _singles(bench: Bench, row: Row) -> Iterator[Ratio]:
    paths, seconds = zip(*bench.singles, strict=True)
    for backend in row.ways:
        what = f"`transcribe --backend {backend}`, {len(paths)} single utterances"
        yield bench.beside(row, what, sum(seconds), ("singles", paths), backend=backend)


def _long(bench: Bench, row: Row) -> Iterator[Ratio]:
    size = bench.asked.batch_size
    pieces = bench.material.pieces if row.name == "long" else None
    work = ("long", bench.material.long, size, pieces)
    for backend in row.ways:
        what = f"one long file, `{backend}`, batches of {size}"
        yield bench.beside(row, what, bench.material.long_seconds, work, backend=backend)


def _encoder(bench: Bench, row: Row) -> Iterator[Ratio]:
    for compute_type in row.ways:
        with (
            bench.ours(backend="int32", compute_type=compute_type) as ours,
            bench.ours(backend="cpu", compute_type=compute_type) as theirs,
        ):
            measured = warm(ours, theirs, bench.pairs, 30.0, ("encode", bench.material.long))
        what, beside = f"encoder, `int32` emulated, {compute_type}", f"`cpu`, {compute_type}"
        yield Ratio(row.name, what, beside, bench.model, *row.goals, "s", **measured)


def _evaluate(bench: Bench, row: Row) -> Iterator[Ratio]:
    paths, seconds = zip(*bench.grouped, strict=True)
    work = ("group", paths, bench.asked.batch_size)
    theirs = work if row.title == "batched" else ("singles", paths)
    for compute_type in row.ways:
        what = f"`evaluate`, `cpu`, {compute_type}, {len(paths)} utterances"
        yield bench.beside(row, what, sum(seconds), work, theirs, compute_type=compute_type)


def _memory(bench: Bench, row: Row) -> Iterator[Ratio]:
    quick = bench.asked.quick

    def peak(side: Worker) -> float:
        limit = QUICK_SECONDS if quick else float("inf")
        return float(side.call("peak", bench.material.hour, limit).result)

    what = "peak memory, 1 hour of audio" + (f", stopped after {QUICK_SECONDS} s of it" if quick else "")
    yield _apart(bench, row, what, "MB", peak, pairs=1)


def _load(bench: Bench, row: Row) -> Iterator[Ratio]:
    for start in (bench.ours, partial(bench.theirs, row.racer)):
        start().__exit__()
    yield _apart(bench, row, "load of a model", "s", lambda side: side.load, bench.pairs)


def _apart(
    bench: Bench, row: Row, what: str, unit: str, figure: Callable[[Worker], float], pairs: int
) -> Ratio:
    """A figure of processes that are started for it, one at a time."""

    def started(start: Callable[[], Worker]) -> float:
        with start() as side:
            return figure(side)

    measured = interleave(
        partial(started, bench.ours), partial(started, partial(bench.theirs, row.racer)), pairs
    )
    return Ratio(row.name, what, row.peer, bench.model, *row.goals, unit, *measured)


def _start(bench: Bench, row: Row) -> Iterator[Ratio]:
    assert row.racer is not None
    ours, theirs, peer = commands(row.racer, bench.model, bench.asked.threads, bench.material)
    for command in (ours, theirs):
        seconds_to(*command)
    measured = interleave(partial(seconds_to, *ours), partial(seconds_to, *theirs), bench.pairs)
    what = "process start to first word, 10 s of audio"
    yield Ratio(row.name, what, peer, bench.model, *row.goals, "s", *measured)


HALF, EVEN, NEAR, FASTER = (0.5, 0.3), (1.0, 0.7), (1.2, 1.0), (0.8, 0.6)
BOTH, CPU = ("cpu", "int32"), ("cpu",)
SAME, OWN = "batched, same pieces and timestamps", "batched, its own pieces, no timestamps"
ROWS = {
    row.name: row
    for row in (
        Row("singles", _singles, "faster-whisper", EVEN, BOTH),
        Row("singles-openvino", _singles, "openvino", (1.0, 0.8), BOTH),
        Row("singles-openvino-16", _singles, "openvino-16", EVEN, CPU),
        Row("singles-whisper.cpp", _singles, "whisper.cpp", EVEN, CPU),
        Row("singles-openai", _singles, "openai", HALF, CPU),
        Row("long", _long, "faster-whisper", EVEN, BOTH, SAME),
        Row("long-default", _long, "faster-whisper", EVEN, CPU, OWN),
        Row("long-openvino", _long, "openvino", FASTER, BOTH),
        Row("long-openvino-16", _long, "openvino-16", EVEN, CPU),
        Row("long-whisper.cpp", _long, "whisper.cpp", EVEN, CPU),
        Row("long-openai", _long, "openai", HALF, CPU),
        Row("encoder", _encoder, None, (1.05, 1.0), ("float32", "auto")),
        Row("evaluate", _evaluate, "faster-whisper", EVEN, ("float32", "auto"), "batched"),
        Row("evaluate-openvino", _evaluate, "openvino", FASTER, ("auto",), "one by one"),
        Row("memory", _memory, "faster-whisper", EVEN, first_model=True),
        Row("memory-openvino", _memory, "openvino", NEAR, first_model=True),
        Row("load-openvino", _load, "openvino", NEAR),
        Row("start", _start, "openai", HALF, first_model=True),
        Row("start-openvino", _start, "openvino", NEAR, first_model=True),
    )
}
"""By name, in the order of the table."""
