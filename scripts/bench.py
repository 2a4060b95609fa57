"""Time and memory beside peers in the same run: pairs in turn, ratios pair by pair (minimum, median, maximum).

    python scripts/bench.py --data-dir LibriSpeech/test-clean --chapter LibriSpeech/train-clean-100/19/198

Absolute times mean little on a shared machine; the ratios hold where both sides saw the same load. Every side runs in
a process of its own, warm, with the same number of threads and the same decoding: greedy, English, one temperature.

faster-whisper (INT8) is given the same weights; for the long file it is given the pieces that Tilescribe cuts, so
that it needs no voice activity detection, and writes timestamps as Tilescribe does; `long-default` lets it do as it
does by itself. For `evaluate` it gets the recordings joined, each as a clip of its own, in batches of the same size
and order: its batched pipeline at its best. openai-whisper (FP32) is given recordings that are in memory already.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peers.ratios import Ratio

ROWS = (
    "singles",
    "singles-openai",
    "long",
    "long-default",
    "long-openai",
    "encoder",
    "evaluate",
    "memory",
    "start",
)
FASTER_WHISPER_ROWS = frozenset({"singles", "long", "long-default", "evaluate", "memory"})
TINY_ROWS = frozenset({"memory", "start"})
"""Measured with the first model alone."""
PACKAGES = ("torch", "openai-whisper", "faster-whisper", "ctranslate2", "onnxruntime", "numpy")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME", help=str(ROWS))
    parser.add_argument("--models", nargs="+", choices=("tiny.en", "base"), default=["tiny.en", "base"])
    parser.add_argument("--data-dir", type=Path, help="LibriSpeech's layout; the sample unless given")
    parser.add_argument("--chapter", type=Path, help="FLAC files to join; the sample repeated unless given")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every side")
    parser.add_argument("--pairs", type=int, help="5 unless given, 2 with --quick")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="5 utterances, 2 minutes, 8 to evaluate")
    parser.add_argument("--json", type=Path, help="write every figure there, after each row")
    return parser.parse_args(given)


def missing(only: list[str]) -> tuple[list[str], str | None]:
    """The rows that can be measured, and how to get the peer that others need."""
    if importlib.util.find_spec("faster_whisper") is not None:
        return only, None
    left = [row for row in only if row not in FASTER_WHISPER_ROWS]
    if left == only:
        return only, None
    out = ", ".join(row for row in only if row in FASTER_WHISPER_ROWS)
    remedy = f"{sys.executable} -m pip install -c constraints.txt '.[bench]'"
    return left, f"faster-whisper is not installed, so these rows are left out: {out}; `{remedy}` installs it"


def table(ratios: list[Ratio]) -> str:
    """The figures in Markdown: a row for each comparison, a column for each model."""
    models = list(dict.fromkeys(ratio.model for ratio in ratios))
    lines = [f"| | against | at most | aim | {' | '.join(models)} |", f"|{'---|' * (4 + len(models))}"]
    rows = dict.fromkeys((ratio.what, ratio.peer, ratio.goal, ratio.aim) for ratio in ratios)
    for what, peer, goal, aim in rows:
        cells = [
            next((r.spread for r in ratios if (r.what, r.peer, r.model) == (what, peer, model)), "")
            for model in models
        ]
        lines.append(f"| {what} | {peer} | {goal} | {aim} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(given: argparse.Namespace, only: list[str], folder: Path, ratios: list[Ratio]) -> list[str]:
    """Measure the rows one after the other into `ratios`, and say each on standard error.

    Returns what was wrong with the rows that could not be measured.
    """
    from peers.conversion import write_ctranslate2_folder
    from peers.fresh import FRESH, FreshFailed
    from peers.material import gather
    from peers.warm import WARM, Bench
    from peers.worker import WorkerFailed

    failures = []
    material = gather(given.data_dir, given.chapter, 2 if given.quick else 10, folder)
    say(material.description)
    # The longest first, as `evaluate` does.
    grouped = sorted(material.some(8 if given.quick else 40), key=lambda pair: (-pair[1], pair[0].id))
    peer = importlib.util.find_spec("faster_whisper") is not None
    for number, model in enumerate(given.models):
        bench = Bench(
            model=model,
            threads=given.threads,
            pairs=given.pairs or (2 if given.quick else 5),
            batch_size=given.batch_size,
            material=material,
            singles=tuple(u.audio for u, _ in material.some(5 if given.quick else 20)),
            grouped=tuple(u.audio for u, _ in grouped),
            folder=write_ctranslate2_folder(model, folder / model) if peer else None,
            quick=given.quick,
        )
        for row in only:
            if number and row in TINY_ROWS:
                continue
            try:
                for ratio in (WARM | FRESH)[row](bench):
                    say(ratio.line)
                    ratios.append(ratio)
                    if given.json:
                        write(given.json, ratios, given, material.description)
            except (WorkerFailed, FreshFailed) as error:
                failures.append(f"{model}, {row}: {error}")
                say(f"error: {failures[-1]}")
    return failures


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def write(path: Path, ratios: list[Ratio], given: argparse.Namespace, material: str) -> None:
    """Write every figure as JSON."""
    report = {
        "schema_version": 1,
        "machine": platform.platform(),
        "threads": given.threads,
        "quick": given.quick,
        "audio": material,
        "versions": _versions(),
        "rows": [
            asdict(r) | dict(zip(("minimum", "median", "maximum"), r.ratios, strict=True)) for r in ratios
        ],
    }
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(json.dumps(report, indent=1), encoding="utf-8")
    scratch.replace(path)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError

    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> int:
    from datasets.utterance import DatasetError

    given = arguments()
    only, problem = missing(given.only)
    if problem:
        say(problem)
    # Before any library starts its threads; processes that are started inherit it.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(given.threads)
    ratios: list[Ratio] = []
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="tilescribe-bench-") as scratch:
        try:
            failures = measure(given, only, Path(scratch), ratios)
        except DatasetError as error:
            say(f"error: {error}")
            return 2
        except KeyboardInterrupt:
            say("interrupted: the rows so far")
            failures = ["interrupted"]
    say(", ".join(f"{name} {number}" for name, number in _versions().items()))
    if ratios:
        print(f"Ratios: minimum, median, maximum over pairs; {given.threads} threads.\n\n{table(ratios)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
