"""The rows that are measured in fresh processes: peak memory over an hour of audio, and the time to the first word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from peers.material import hour
from peers.ratios import Ratio, interleave
from peers.warm import Bench

__all__ = ["FRESH", "FreshFailed"]

_MEMORY = Path(__file__).with_name("peak_memory.py")
_QUICK_SECONDS = 120


class FreshFailed(RuntimeError):  # noqa: N818
    """A process that was measured failed: what it wrote to standard error."""


def _memory(bench: Bench) -> Iterator[Ratio]:
    audio = str(hour(bench.material))

    def peak(*arguments: str) -> float:
        limit = [str(_QUICK_SECONDS)] if bench.quick else []
        command = [sys.executable, str(_MEMORY), *arguments, str(bench.threads), audio]
        run = subprocess.run([*command, *limit], capture_output=True, text=True)
        if run.returncode:
            raise FreshFailed(run.stderr)
        return float(run.stdout)

    ours, theirs = interleave(
        partial(peak, "tilescribe", bench.model), partial(peak, "faster-whisper", str(bench.folder)), 1
    )
    done = f", stopped after {_QUICK_SECONDS} s of it" if bench.quick else ""
    what = f"peak memory, 1 hour of audio{done}"
    yield Ratio("memory", what, "faster-whisper INT8", bench.model, 1.0, 0.7, "MB", ours, theirs)


def _start(bench: Bench) -> Iterator[Ratio]:
    folder = bench.material.long.parent
    scripts, audio, threads = Path(sys.executable).parent, str(bench.material.ten_seconds), str(bench.threads)
    checkpoint = folder / f"{bench.model}.pt"
    if not checkpoint.exists():
        subprocess.run(
            [sys.executable, "-c", _WRITE, bench.model, str(checkpoint)], check=True, cwd=_MEMORY.parents[1]
        )
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | _ffmpeg(folder)
    common = [audio, "--language", "en", "--threads", threads]
    ours = [str(scripts / "transcribe"), *common, "--model", bench.model, "--backend", "cpu"]
    theirs = [str(scripts / "whisper"), *common, "--model", str(checkpoint), "--fp16", "False"]
    # Greedy and without fallback: what it does unless asked, five beams, takes longer.
    theirs += ["--beam_size", "None", "--output_dir", str(folder / "whisper"), "--output_format", "txt"]
    for command in (ours, theirs):
        _first_word(command, environment)
    figures = interleave(
        partial(_first_word, ours, environment), partial(_first_word, theirs, environment), bench.pairs
    )
    what = "process start to first word, 10 s of audio"
    yield Ratio("start", what, "openai-whisper's command", bench.model, 0.5, 0.3, "s", *figures)


_WRITE = "import sys; from peers.conversion import write_checkpoint as w; w(*sys.argv[1:])"


def _first_word(command: list[str], environment: dict[str, str]) -> float:
    """Seconds from starting a command to the first text on its standard output."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.read(1)
        seconds = time.perf_counter() - start
        process.stdout.read()
        errors = process.stderr.read().decode(errors="replace")
    if not first:
        raise FreshFailed(f"{command[0]} wrote no text: {errors}")
    return seconds


def _ffmpeg(folder: Path) -> dict[str, str]:
    """FFmpeg's program, which openai-whisper reads audio with; where there is none, what hands over a WAV file."""
    if shutil.which("ffmpeg"):
        return {}
    stand_in = folder / "bin" / "ffmpeg"
    stand_in.parent.mkdir(exist_ok=True)
    # openai-whisper runs `ffmpeg -nostdin -threads 0 -i FILE ...` for 16 kHz mono samples: they follow the header.
    stand_in.write_text('#!/bin/sh\nexec tail -c +45 "$5"\n')
    stand_in.chmod(0o755)
    return {"PATH": f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"}


FRESH = {"memory": _memory, "start": _start}
"""Rows by name."""
