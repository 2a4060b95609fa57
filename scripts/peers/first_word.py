"""From the start of a process to the first word of ten seconds of audio: Tilescribe's command beside a peer's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from peers.environments import OPENVINO
from peers.process import MeasureError
from peers.racers import RACERS

if TYPE_CHECKING:
    from peers.material import Material

Command = tuple[list[str], dict[str, str]]
"""A command, and the variables that it is run with."""


def commands(racer: str, model: str, threads: int, material: Material) -> tuple[Command, Command, str]:
    """Ours, the peer's, and what the peer's is called."""
    folder, audio = material.ten_seconds.parent, str(material.ten_seconds)
    scripts = Path(sys.executable).parent
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | ffmpeg(folder)
    common = [audio, "--language", "en", "--threads", str(threads)]
    ours = [str(scripts / "transcribe"), *common, "--model", model, "--backend", "cpu"]
    if racer == "openai":
        checkpoint = folder / f"{model}.pt"
        with RACERS[racer].start(model, threads, folder) as side:
            side.call("write_checkpoint", checkpoint)
        theirs = [str(scripts / "whisper"), *common, "--model", str(checkpoint), "--fp16", "False"]
        # Greedy and without fallback: what it does unless asked, five beams, takes longer.
        theirs += ["--beam_size", "None", "--output_dir", str(folder / "whisper"), "--output_format", "txt"]
        return (ours, environment), (theirs, environment), "openai-whisper's command"
    exported = RACERS[racer].model(model, folder)
    code = f"from sides import OpenVINO; print(*OpenVINO({exported!r}, {threads}).singles([{audio!r}]), flush=True)"
    found = {"PYTHONPATH": str(Path(__file__).parent)}  # where a script of OpenVINO's finds its side
    script = [str(OPENVINO.python), "-c", code]
    return (ours, environment), (script, environment | found), "a script of OpenVINO GenAI INT8"


def seconds_to(command: list[str], environment: dict[str, str]) -> float:
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
