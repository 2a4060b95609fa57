"""Time and memory beside peers in the same run: pairs in turn, ratios pair by pair (minimum, median, maximum).

    python scripts/bench.py --data-dir LibriSpeech/test-clean --chapter LibriSpeech/train-clean-100/19/198

Absolute times mean little on a shared machine; the ratios hold where both sides saw the same load. Every side runs in
a process of its own, warm, with the same number of threads and the same decoding: greedy, English, one temperature.

Peers live in environments of their own (`peers.environments`), made at the first use: faster-whisper, OpenVINO GenAI
with INT8 and with 16-bit weights, whisper.cpp compiled for this processor. One that cannot be had is named. All get the
same weights.

faster-whisper (INT8) is given the pieces of the long file that Tilescribe cuts, so that it needs no voice activity
detection, and writes timestamps as Tilescribe does; `long-default` lets it do as it does by itself. For `evaluate` it
gets the recordings joined, each as a clip of its own, in batches of the same size and order: its batched pipeline at
its best. OpenVINO GenAI and whisper.cpp have no batches; openai-whisper (FP32) gets recordings that are in memory.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from peers.environments import PeerError
from peers.process import MeasureError
from peers.racers import RACERS
from peers.ratios import RATIOS, Ratio
from peers.rows import ROWS, Bench

from app.output.tables import markdown, markdown_table, written


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = list(ROWS)
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names)
    )
    parser.add_argument("--models", nargs="+", choices=("tiny.en", "base"), default=["tiny.en", "base"])
    parser.add_argument("--data-dir", type=Path, help="LibriSpeech's layout; the sample unless given")
    parser.add_argument("--chapter", type=Path, help="FLAC files to join; the sample repeated unless given")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every side")
    parser.add_argument("--pairs", type=int, help="5 unless given, 2 with --quick")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="5 utterances, 2 minutes, 8 to evaluate")
    parser.add_argument("--json", type=Path, help="write every figure there, after each row")
    return parser.parse_args(given)


def installed(only: list[str]) -> tuple[list[str], dict[str, str]]:
    """The rows that can be measured, once their peers are installed; and by the title of the others why not."""
    missing: dict[str, str] = {}
    lacking = set()
    for name, racer in RACERS.items():
        wanted = any(ROWS[row].racer == name for row in only)
        try:
            if wanted and racer.environment is not None:
                racer.environment.install()
        except PeerError as error:
            missing[racer.title] = str(error)
            lacking.add(name)
    return [row for row in only if ROWS[row].racer not in lacking], missing


def table(ratios: list[Ratio]) -> str:
    """The figures in Markdown: a row for each comparison, a column for each model."""
    models = dict.fromkeys(ratio.model for ratio in ratios)
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for r in ratios:
        row = rows.setdefault((r.what, r.peer, str(r.goal), str(r.aim)), dict.fromkeys(models, ""))
        row[r.model] = r.spread
    heading = ("", "against", "at most", "aim", *models)
    return "\n".join(markdown_table(heading, [(*row, *cells.values()) for row, cells in rows.items()]))


def measure(
    given: argparse.Namespace, only: list[str], folder: Path, ratios: list[Ratio], missing: dict[str, str]
) -> list[str]:
    """Measure the rows one after the other into `ratios`, and say each on standard error.

    Returns what was wrong with the rows that could not be measured.
    """
    from peers.material import gather

    failures = []
    material = gather(given.data_dir, given.chapter, 2 if given.quick else 10, folder)
    say(material.description)
    for model in given.models:
        bench = Bench(model, given, material, folder)
        for row in only:
            if ROWS[row].first_model and model != given.models[0]:
                continue
            try:
                for ratio in ROWS[row].measure(bench, ROWS[row]):
                    say(ratio.line)
                    ratios.append(ratio)
                    write(ratios, given, material.description, missing)
            except (MeasureError, PeerError) as error:
                failures.append(f"{model}, {row}: {error}")
                say(f"error: {failures[-1]}")
    return failures


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def said(ratios: list[Ratio]) -> dict[str, str]:
    """By side, its version and the instructions that it uses, as it tells them."""
    found = {}
    for ratio in ratios:
        for name, side in zip(("Tilescribe", ratio.peer), ratio.sides or (), strict=False):
            title = next((r.title for r in RACERS.values() if name.startswith(r.title)), "Tilescribe")
            found[title] = f"{side.said['version']} ({side.said['instructions']})"
    return found


def write(ratios: list[Ratio], given: argparse.Namespace, audio: str, missing: dict[str, str]) -> None:
    """Write a row for each ratio as JSON, and under `measured` the figures that they are of, pair by pair."""
    import figures

    more = {"sides": said(ratios), "missing": missing, "measured": [asdict(ratio) for ratio in ratios]}
    table = written(RATIOS, ratios, "console")
    columns = [column.heading for column in table.columns]
    figures.write(given.json, columns, table.rows, given.threads, audio=audio, quick=given.quick, **more)


def main() -> int:
    given = arguments()
    # Before any library starts its threads; processes that are started inherit it.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(given.threads)
    from app.machine import versions
    from datasets.utterance import DatasetError

    only, missing = installed(given.only)
    for title, reason in missing.items():
        say(f"{title} is not measured: {reason}")
    ratios: list[Ratio] = []
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="tilescribe-bench-") as scratch:
        try:
            failures = measure(given, only, Path(scratch), ratios, missing)
        except DatasetError as error:
            say(f"error: {error}")
            return 2
        except KeyboardInterrupt:
            say("interrupted: the rows so far")
            failures = ["interrupted"]
    say(", ".join(f"{name} {number}" for name, number in versions().items()))
    if ratios:
        print(f"Ratios: minimum, median, maximum over pairs; {given.threads} threads.\n\n{table(ratios)}\n")
        print("\n".join(markdown(RATIOS, ratios)) + "\n")
        print("\n".join(f"{name}: {text}" for name, text in said(ratios).items()))
        print("\n".join(f"not measured: {title}: {reason}" for title, reason in missing.items()), end="")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
