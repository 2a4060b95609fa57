"""The rows that are measured warm: models are loaded, and everything has run once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from peers.material import Material
from peers.ratios import Ratio, interleave
from peers.worker import Worker

__all__ = ["WARM", "Bench"]


@dataclass(frozen=True)
class Bench:
    """What is common to the rows of one model.

    Attributes:
        model: its name.
        threads: of every side.
        pairs: measured of each row.
        batch_size: of the rows in batches.
        material: the audio.
        singles: recordings of the rows with single utterances.
        grouped: recordings of the rows of `evaluate`.
        folder: faster-whisper's model; None where it is not installed.
        quick: measure memory over a few minutes.
    """

    model: str
    threads: int
    pairs: int
    batch_size: int
    material: Material
    singles: tuple[Path, ...]
    grouped: tuple[Path, ...]
    folder: Path | None
    quick: bool

    def ours(self, **how: str) -> Worker:
        """Tilescribe."""
        return Worker("Tilescribe", self.model, self.threads, **how)

    def faster_whisper(self) -> Worker:
        """faster-whisper, INT8."""
        return Worker("FasterWhisper", str(self.folder), self.threads)

    def openai_whisper(self, paths: Sequence[Path]) -> Worker:
        """openai-whisper, FP32, with these recordings in memory."""
        worker = Worker("OpenAIWhisper", self.model, self.threads)
        worker.call("prepare", list(paths))
        return worker


def _pairs(ours: Worker, theirs: Worker, bench: Bench, method: str, *arguments: Any) -> dict[str, Any]:
    """Warm both up, then measure."""
    texts = [side.call(method, *arguments) for side in (ours, theirs)]
    first, second = interleave(
        partial(ours.seconds, method, *arguments), partial(theirs.seconds, method, *arguments), bench.pairs
    )
    counts = [sum(len(text.split()) for text in its) for its in texts] if texts[0] else None
    return {
        "unit": "s",
        "ours": first,
        "theirs": second,
        "words": None if counts is None else (counts[0], counts[1]),
    }


def _singles(bench: Bench) -> Iterator[Ratio]:
    with bench.ours() as ours, bench.faster_whisper() as theirs:
        what = f"`transcribe --backend cpu`, {len(bench.singles)} single utterances"
        figures = _pairs(ours, theirs, bench, "singles", list(bench.singles))
        yield Ratio("singles", what, "faster-whisper INT8", bench.model, 1.0, 0.7, **figures)


def _singles_openai(bench: Bench) -> Iterator[Ratio]:
    with bench.ours() as ours, bench.openai_whisper(bench.singles) as theirs:
        what = f"`transcribe --backend cpu`, {len(bench.singles)} single utterances"
        figures = _pairs(ours, theirs, bench, "singles", list(bench.singles))
        yield Ratio("singles-openai", what, "openai-whisper FP32", bench.model, 0.5, 0.3, **figures)


def _long(bench: Bench) -> Iterator[Ratio]:
    path = bench.material.long
    with bench.ours() as ours, bench.faster_whisper() as theirs:
        what = f"one long file, batches of {bench.batch_size}"
        pieces = ours.call("pieces", path)
        figures = _pairs(ours, theirs, bench, "long", path, bench.batch_size, pieces)
        peer = "faster-whisper INT8 batched, same pieces and timestamps"
        yield Ratio("long", what, peer, bench.model, 1.0, 0.7, **figures)


def _long_default(bench: Bench) -> Iterator[Ratio]:
    with bench.ours() as ours, bench.faster_whisper() as theirs:
        what = f"one long file, batches of {bench.batch_size}"
        figures = _pairs(ours, theirs, bench, "long", bench.material.long, bench.batch_size, None)
        peer = "faster-whisper INT8 batched, its own pieces, no timestamps"
        yield Ratio("long-default", what, peer, bench.model, 1.0, 0.7, **figures)


def _long_openai(bench: Bench) -> Iterator[Ratio]:
    path = bench.material.long
    with bench.ours() as ours, bench.openai_whisper([path]) as theirs:
        what = f"one long file, batches of {bench.batch_size}"
        figures = _pairs(ours, theirs, bench, "long", path, bench.batch_size, None)
        yield Ratio("long-openai", what, "openai-whisper FP32", bench.model, 0.5, 0.3, **figures)


def _encoder(bench: Bench) -> Iterator[Ratio]:
    for compute_type in ("float32", "auto"):
        with (
            bench.ours(backend="int32", compute_type=compute_type) as ours,
            bench.ours(backend="cpu", compute_type=compute_type) as theirs,
        ):
            for side in (ours, theirs):
                side.call("take_window", bench.material.long)
            figures = _pairs(ours, theirs, bench, "encode")
            what = f"encoder, `int32` emulated, {compute_type}"
            yield Ratio("encoder", what, f"`cpu`, {compute_type}", bench.model, 1.3, 1.0, **figures)


def _evaluate(bench: Bench) -> Iterator[Ratio]:
    for compute_type in ("float32", "auto"):
        with bench.ours(compute_type=compute_type) as ours, bench.faster_whisper() as theirs:
            what = f"`evaluate`, `cpu`, {compute_type}, {len(bench.grouped)} utterances"
            figures = _pairs(ours, theirs, bench, "group", list(bench.grouped), bench.batch_size)
            yield Ratio("evaluate", what, "faster-whisper INT8 batched", bench.model, 1.0, 0.7, **figures)


WARM = {
    "singles": _singles,
    "singles-openai": _singles_openai,
    "long": _long,
    "long-default": _long_default,
    "long-openai": _long_openai,
    "encoder": _encoder,
    "evaluate": _evaluate,
}
"""Rows by name."""
