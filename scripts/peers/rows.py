"""What is measured: pairs in turn, so that both sides see the same load of the machine, and ratios pair by pair."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.output import tables as t
from peers.environments import OPENVINO
from peers.process import MeasureError, Worker
from peers.racers import RACERS

if TYPE_CHECKING:
    from peers.material import Material

QUICK_SECONDS = 120

Goals = tuple[float, float]
"""A ratio that is to be reached, and the one that is hoped for."""


@dataclass(frozen=True)
class Figures:
    """What else is known of a side.

    Attributes:
        load: seconds from the start of its process until the model was ready.
        megabytes: that its process took at most.
        cpu: seconds of all its threads per minute of audio, the least; None where the work is no recording.
        said: version and instructions, as it tells them.
    """

    load: float
    megabytes: float
    cpu: float | None
    said: dict[str, str]


@dataclass(frozen=True)
class Ratio:
    """What was measured of one row for one model.

    Attributes:
        row: its name, as `--only` takes it.
        what: was done.
        goal: the ratio that is to be reached.
        aim: the one that is hoped for.
        unit: of `ours` and `theirs`, which have a figure per pair: seconds or MB.
        words: in what each side gave, as a check that both did the same work; None where nothing is transcribed.
        sides: ours and the peer's; None where no warm process was timed.
    """

    row: str
    what: str
    peer: str
    model: str
    goal: float
    aim: float
    unit: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    words: tuple[int, int] | None = None
    sides: tuple[Figures, Figures] | None = None

    @property
    def cells(self) -> list[str]:
        """The row of the table: the ratios, and of both sides CPU, memory and loading."""
        said = ["-"] * 3
        if self.sides is not None:
            figures = [
                (t.number(one.cpu, 1), t.count(one.megabytes), t.number(one.load)) for one in self.sides
            ]
            said = [" / ".join(pair) for pair in zip(*figures, strict=True)]
        return [self.what, self.peer, self.model, *(f"{ratio:.2f}" for ratio in self.ratios), *said]

    @property
    def ratios(self) -> tuple[float, float, float]:
        """The least, the median and the greatest."""
        each = [a / b for a, b in zip(self.ours, self.theirs, strict=True)]
        return min(each), statistics.median(each), max(each)

    @property
    def spread(self) -> str:
        """The ratios as the table has them."""
        return " ".join(f"{ratio:.2f}" for ratio in self.ratios)

    @property
    def line(self) -> str:
        """The row with its medians, for standard error."""
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        words = "" if self.words is None else f"; {self.words[0]} and {self.words[1]} words"
        return (
            f"{self.model}: {self.what} / {self.peer}: {self.spread} "
            f"({ours:.2f} and {theirs:.2f} {self.unit}{words})"
        )


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
        self,
        row: str,
        what: str,
        racer: str,
        goals: Goals,
        audio: float | None,
        *work: Any,
        theirs: tuple[Any, ...] | None = None,
        title: str = "",
        **how: str,
    ) -> Iterator[Ratio]:
        """Time Tilescribe, opened as `how` says, beside a peer.

        Args:
            row: its name.
            what: is done.
            racer: the peer's name.
            goals: the ratio to reach, and the one hoped for.
            audio: seconds that are transcribed.
            work: a method and its arguments.
            theirs: the peer's, where that is another one.
            title: what to add to the peer's.
            how: Tilescribe is opened.
        """
        with self.theirs(racer) as peer, self.ours(**how) as ours:
            measured = warm((ours, work), (peer, theirs or work), self.pairs, audio)
            name = " ".join(filter(None, (RACERS[racer].title, title)))
            yield Ratio(row, what, name, self.model, *goals, "s", **measured)


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
    ours: tuple[Worker, Sequence[Any]],
    theirs: tuple[Worker, Sequence[Any]],
    pairs: int,
    audio: float | None = None,
) -> dict[str, Any]:
    """Let both sides do their work once, then time it: the fields of a `Ratio`; `audio` are the seconds of it."""
    cpu: dict[Worker, list[float]] = {ours[0]: [], theirs[0]: []}

    def timed(side: Worker, work: Sequence[Any]) -> float:
        done = side.call(*work)
        cpu[side].append(done.cpu)
        return done.seconds

    texts = [side.call(*work).result for side, work in (ours, theirs)]
    measured = interleave(partial(timed, *ours), partial(timed, *theirs), pairs)
    words = tuple(sum(len(text.split()) for text in its) for its in texts) if texts[0] else None
    sides = tuple(
        Figures(
            side.load,
            float(side.call("megabytes").result),
            min(cpu[side]) * 60 / audio if audio else None,
            side.said,
        )
        for side, _ in (ours, theirs)
    )
    return {"ours": measured[0], "theirs": measured[1], "words": words, "sides": sides}


def _singles(row: str, racer: str, goals: Goals, backends: Sequence[str], bench: Bench) -> Iterator[Ratio]:
    paths, seconds = zip(*bench.singles, strict=True)
    for backend in backends:
        what = f"`transcribe --backend {backend}`, {len(paths)} single utterances"
        yield from bench.beside(row, what, racer, goals, sum(seconds), "singles", paths, backend=backend)


def _long(
    row: str, racer: str, goals: Goals, title: str, backends: Sequence[str], bench: Bench
) -> Iterator[Ratio]:
    size = bench.asked.batch_size
    pieces = bench.material.pieces if row == "long" else None
    work = ("long", bench.material.long, size, pieces)
    for backend in backends:
        what = f"one long file, `{backend}`, batches of {size}"
        seconds = bench.material.long_seconds
        yield from bench.beside(row, what, racer, goals, seconds, *work, title=title, backend=backend)


def _encoder(bench: Bench) -> Iterator[Ratio]:
    for compute_type in ("float32", "auto"):
        with (
            bench.ours(backend="int32", compute_type=compute_type) as ours,
            bench.ours(backend="cpu", compute_type=compute_type) as theirs,
        ):
            what, beside = f"encoder, `int32` emulated, {compute_type}", f"`cpu`, {compute_type}"
            work = ("encode", bench.material.long)
            measured = warm((ours, work), (theirs, work), bench.pairs, 30.0)
            yield Ratio("encoder", what, beside, bench.model, 1.05, 1.0, "s", **measured)


def _evaluate(row: str, racer: str, goals: Goals, types: Sequence[str], bench: Bench) -> Iterator[Ratio]:
    paths, seconds = zip(*bench.grouped, strict=True)
    work = ("group", paths, bench.asked.batch_size)
    theirs = work if racer == "faster-whisper" else ("singles", paths)
    title = "batched" if racer == "faster-whisper" else "one by one"
    for compute_type in types:
        what = f"`evaluate`, `cpu`, {compute_type}, {len(paths)} utterances"
        yield from bench.beside(
            row,
            what,
            racer,
            goals,
            sum(seconds),
            *work,
            theirs=theirs,
            title=title,
            compute_type=compute_type,
        )


def _memory(row: str, racer: str, goals: Goals, bench: Bench) -> Iterator[Ratio]:
    quick = bench.asked.quick

    def peak(start: Callable[[], Worker]) -> float:
        with start() as side:
            limit = QUICK_SECONDS if quick else float("inf")
            return float(side.call("peak", bench.material.hour, limit).result)

    measured = interleave(partial(peak, bench.ours), partial(peak, partial(bench.theirs, racer)), 1)
    what = "peak memory, 1 hour of audio" + (f", stopped after {QUICK_SECONDS} s of it" if quick else "")
    yield Ratio(row, what, RACERS[racer].title, bench.model, *goals, "MB", *measured)


def _load(row: str, racer: str, goals: Goals, bench: Bench) -> Iterator[Ratio]:
    def load(start: Callable[[], Worker]) -> float:
        with start() as side:
            return side.load

    starts = (partial(load, bench.ours), partial(load, partial(bench.theirs, racer)))
    for start in starts:
        start()
    measured = interleave(*starts, bench.pairs)
    yield Ratio(row, "load of a model", RACERS[racer].title, bench.model, *goals, "s", *measured)


def _start(row: str, racer: str, goals: Goals, bench: Bench) -> Iterator[Ratio]:
    folder = bench.material.long.parent
    audio, threads = str(bench.material.ten_seconds), str(bench.asked.threads)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | ffmpeg(folder)
    scripts = Path(sys.executable).parent
    common = [audio, "--language", "en", "--threads", threads]
    ours = [str(scripts / "transcribe"), *common, "--model", bench.model, "--backend", "cpu"]
    with bench.theirs(racer) as side:
        if racer == "openai":
            checkpoint, peer = folder / f"{bench.model}.pt", "openai-whisper's command"
            side.call("write_checkpoint", checkpoint)
            theirs = [str(scripts / "whisper"), *common, "--model", str(checkpoint), "--fp16", "False"]
            # Greedy and without fallback: what it does unless asked, five beams, takes longer.
            theirs += [
                "--beam_size",
                "None",
                "--output_dir",
                str(folder / "whisper"),
                "--output_format",
                "txt",
            ]
        else:
            peer = "a script of OpenVINO GenAI INT8"
            given = (RACERS[racer].model(bench.model, folder), int(threads), not bench.model.endswith(".en"))
            code = (
                f"from sides import OpenVINO; print(*OpenVINO(*{given!r}).singles([{audio!r}]), flush=True)"
            )
            theirs = [str(OPENVINO.python), "-c", code]
    # Where a script of OpenVINO's finds its side.
    beside = environment if racer == "openai" else environment | {"PYTHONPATH": str(Path(__file__).parent)}
    starts = partial(first_word, ours, environment), partial(first_word, theirs, beside)
    for start in starts:
        start()
    what = "process start to first word, 10 s of audio"
    yield Ratio(row, what, peer, bench.model, *goals, "s", *interleave(*starts, bench.pairs))


def first_word(command: list[str], environment: dict[str, str]) -> float:
    """Seconds from starting a command to the first text on its standard output.

    Raises:
        MeasureError: it wrote none.
    """
    start = time.perf_counter()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, bufsize=0) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        seconds = time.perf_counter() - start
        _, errors = process.communicate()
    if not first:
        raise MeasureError(f"{command[0]} wrote no text: {errors.decode(errors='replace')}")
    return seconds


def ffmpeg(folder: Path) -> dict[str, str]:
    """FFmpeg's program, which openai-whisper reads audio with; where there is none, what hands over a WAV file."""
    if shutil.which("ffmpeg"):
        return {}
    stand_in = folder / "bin" / "ffmpeg"
    stand_in.parent.mkdir(exist_ok=True)
    # openai-whisper runs `ffmpeg -nostdin -threads 0 -i FILE ...` for 16 kHz mono samples: they follow the header.
    stand_in.write_text('#!/bin/sh\nexec tail -c +45 "$5"\n')
    stand_in.chmod(0o755)
    return {"PATH": f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"}


HALF, EVEN, NEAR = (0.5, 0.3), (1.0, 0.7), (1.2, 1.0)
BOTH = ("cpu", "int32")
ROWS: dict[str, Callable[[Bench], Iterator[Ratio]]] = {
    "singles": partial(_singles, "singles", "faster-whisper", EVEN, BOTH),
    "singles-openvino": partial(_singles, "singles-openvino", "openvino", (1.0, 0.8), BOTH),
    "singles-openvino-16": partial(_singles, "singles-openvino-16", "openvino-16", EVEN, BOTH[:1]),
    "singles-whisper.cpp": partial(_singles, "singles-whisper.cpp", "whisper.cpp", EVEN, BOTH[:1]),
    "singles-openai": partial(_singles, "singles-openai", "openai", HALF, BOTH[:1]),
    "long": partial(_long, "long", "faster-whisper", EVEN, "batched, same pieces and timestamps", BOTH),
    "long-default": partial(
        _long, "long-default", "faster-whisper", EVEN, "batched, its own pieces, no timestamps", BOTH[:1]
    ),
    "long-openvino": partial(_long, "long-openvino", "openvino", (0.8, 0.6), "", BOTH),
    "long-openvino-16": partial(_long, "long-openvino-16", "openvino-16", EVEN, "", BOTH[:1]),
    "long-whisper.cpp": partial(_long, "long-whisper.cpp", "whisper.cpp", EVEN, "", BOTH[:1]),
    "long-openai": partial(_long, "long-openai", "openai", HALF, "", BOTH[:1]),
    "encoder": _encoder,
    "evaluate": partial(_evaluate, "evaluate", "faster-whisper", EVEN, ("float32", "auto")),
    "evaluate-openvino": partial(_evaluate, "evaluate-openvino", "openvino", (0.8, 0.6), ("auto",)),
    "memory": partial(_memory, "memory", "faster-whisper", EVEN),
    "memory-openvino": partial(_memory, "memory-openvino", "openvino", NEAR),
    "load-openvino": partial(_load, "load-openvino", "openvino", NEAR),
    "start": partial(_start, "start", "openai", HALF),
    "start-openvino": partial(_start, "start-openvino", "openvino", NEAR),
}


def racer_of(row: str) -> str | None:
    """The name of the peer in a row; None where there is none."""
    return next(iter(getattr(ROWS[row], "args", ())[1:]), None)


FIRST_MODEL_ROWS = ("memory", "memory-openvino", "start", "start-openvino")
"""Measured with the first model alone."""
