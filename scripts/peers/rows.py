"""What is measured: pairs in turn, so that both sides see the same load of the machine, and ratios pair by pair."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers.sides import MeasureError, Worker

if TYPE_CHECKING:
    from peers.material import Material

FASTER_WHISPER, OPENAI_WHISPER = "faster-whisper INT8", "openai-whisper FP32"
QUICK_SECONDS = 120


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
    """One model, to be measured beside others.

    Attributes:
        asked: the command's options.
        folder: faster-whisper's model; None where it is not installed.
    """

    model: str
    asked: Namespace
    material: Material
    folder: Path | None

    @property
    def pairs(self) -> int:
        """Measured of each row, but of peak memory one."""
        return self.asked.pairs or (2 if self.asked.quick else 5)

    @property
    def singles(self) -> list[Path]:
        """Recordings of the rows with single utterances."""
        return [u.audio for u, _ in self.material.some(5 if self.asked.quick else 20)]

    @property
    def grouped(self) -> list[Path]:
        """Recordings of the rows of `evaluate`, the longest first as it takes them."""
        some = self.material.some(8 if self.asked.quick else 40)
        return [u.audio for u, _ in sorted(some, key=lambda pair: (-pair[1], pair[0].id))]

    def ours(self, **how: str) -> Worker:
        """Tilescribe."""
        return Worker("Tilescribe", self.model, self.asked.threads, **how)

    def theirs(self, peer: str) -> Worker:
        """A peer."""
        if peer.startswith(FASTER_WHISPER):
            return Worker("FasterWhisper", str(self.folder), self.asked.threads)
        return Worker("OpenAIWhisper", self.model, self.asked.threads)

    def ratio(self, row: str, what: str, peer: str, unit: str, *measured: Any, **more: Any) -> Ratio:
        """A row, with what is to be reached beside a peer."""
        goal, aim = (1.0, 0.7) if peer.startswith(FASTER_WHISPER) else (0.5, 0.3)
        return Ratio(row, what, peer, self.model, goal, aim, unit, *measured, **more)

    def beside(self, row: str, what: str, peer: str, *work: Any, **how: str) -> Iterator[Ratio]:
        """Time Tilescribe, opened as `how` says, beside a peer at a method and its arguments."""
        with self.ours(**how) as ours, self.theirs(peer) as theirs:
            yield self.ratio(row, what, peer, "s", **warm(ours, theirs, self.pairs, *work))


def interleave(
    ours: Callable[[], float], theirs: Callable[[], float], pairs: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure both in turn, each first in every other pair."""
    figures: dict[Callable[[], float], list[float]] = {ours: [], theirs: []}
    for i in range(pairs):
        for side in (theirs, ours) if i % 2 else (ours, theirs):
            figures[side].append(side())
    return tuple(figures[ours]), tuple(figures[theirs])


def warm(ours: Worker, theirs: Worker, pairs: int, *work: Any) -> dict[str, Any]:
    """Let both do their work once, then time it: the fields of a `Ratio`."""
    texts = [side.call(*work)[1] for side in (ours, theirs)]
    measured = interleave(lambda: ours.call(*work)[0], lambda: theirs.call(*work)[0], pairs)
    words = tuple(sum(len(text.split()) for text in its) for its in texts) if texts[0] else None
    return {"ours": measured[0], "theirs": measured[1], "words": words}


def _singles(row: str, peer: str, bench: Bench) -> Iterator[Ratio]:
    what = f"`transcribe --backend cpu`, {len(bench.singles)} single utterances"
    return bench.beside(row, what, peer, "singles", bench.singles)


def _long(row: str, peer: str, bench: Bench) -> Iterator[Ratio]:
    size = bench.asked.batch_size
    pieces = bench.material.pieces if row == "long" else None
    work = ("long", bench.material.long, size, pieces)
    return bench.beside(row, f"one long file, batches of {size}", peer, *work)


def _encoder(bench: Bench) -> Iterator[Ratio]:
    for compute_type in ("float32", "auto"):
        with (
            bench.ours(backend="int32", compute_type=compute_type) as ours,
            bench.ours(backend="cpu", compute_type=compute_type) as theirs,
        ):
            what, beside = f"encoder, `int32` emulated, {compute_type}", f"`cpu`, {compute_type}"
            measured = warm(ours, theirs, bench.pairs, "encode", bench.material.long)
            yield Ratio("encoder", what, beside, bench.model, goal=1.3, aim=1.0, unit="s", **measured)


def _evaluate(bench: Bench) -> Iterator[Ratio]:
    work = ("group", bench.grouped, bench.asked.batch_size)
    for compute_type in ("float32", "auto"):
        what = f"`evaluate`, `cpu`, {compute_type}, {len(bench.grouped)} utterances"
        peer = f"{FASTER_WHISPER} batched"
        yield from bench.beside("evaluate", what, peer, *work, compute_type=compute_type)


def _memory(bench: Bench) -> Iterator[Ratio]:
    quick = bench.asked.quick

    def peak(start: Callable[[], Worker]) -> float:
        with start() as side:
            limit = QUICK_SECONDS if quick else float("inf")
            return float(side.call("peak", bench.material.hour, limit)[1])

    measured = interleave(partial(peak, bench.ours), partial(peak, partial(bench.theirs, FASTER_WHISPER)), 1)
    what = "peak memory, 1 hour of audio" + (f", stopped after {QUICK_SECONDS} s of it" if quick else "")
    yield bench.ratio("memory", what, FASTER_WHISPER, "MB", *measured)


def _start(bench: Bench) -> Iterator[Ratio]:
    folder = bench.material.long.parent
    checkpoint = folder / f"{bench.model}.pt"
    with bench.theirs(OPENAI_WHISPER) as side:
        side.call("write_checkpoint", checkpoint)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | ffmpeg(folder)
    scripts = Path(sys.executable).parent
    common = [str(bench.material.ten_seconds), "--language", "en", "--threads", str(bench.asked.threads)]
    ours = [str(scripts / "transcribe"), *common, "--model", bench.model, "--backend", "cpu"]
    theirs = [str(scripts / "whisper"), *common, "--model", str(checkpoint), "--fp16", "False"]
    # Greedy and without fallback: what it does unless asked, five beams, takes longer.
    theirs += ["--beam_size", "None", "--output_dir", str(folder / "whisper"), "--output_format", "txt"]
    starts = [partial(first_word, command, environment) for command in (ours, theirs)]
    for start in starts:
        start()
    what, peer = "process start to first word, 10 s of audio", "openai-whisper's command"
    yield bench.ratio("start", what, peer, "s", *interleave(*starts, bench.pairs))


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


ROWS: dict[str, Callable[[Bench], Iterator[Ratio]]] = {
    "singles": partial(_singles, "singles", FASTER_WHISPER),
    "singles-openai": partial(_singles, "singles-openai", OPENAI_WHISPER),
    "long": partial(_long, "long", f"{FASTER_WHISPER} batched, same pieces and timestamps"),
    "long-default": partial(
        _long, "long-default", f"{FASTER_WHISPER} batched, its own pieces, no timestamps"
    ),
    "long-openai": partial(_long, "long-openai", OPENAI_WHISPER),
    "encoder": _encoder,
    "evaluate": _evaluate,
    "memory": _memory,
    "start": _start,
}
FASTER_WHISPER_ROWS = ("singles", "long", "long-default", "evaluate", "memory")
FIRST_MODEL_ROWS = ("memory", "start")
"""Measured with the first model alone."""
