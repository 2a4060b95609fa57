"""Transcribe a recording in this process, and print the megabytes that it took at most.

    python scripts/peers/peak_memory.py tilescribe MODEL THREADS AUDIO [SECONDS]
    python scripts/peers/peak_memory.py faster-whisper FOLDER THREADS AUDIO [SECONDS]

Stops after SECONDS of the recording. The peak is the kernel's high-water mark of this program's own memory: that of
`getrusage` would count the process that started it.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def _peak() -> float:
    """Megabytes."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _segments(side: str, model: str, threads: int, audio: str) -> Iterator[Any]:
    if side == "tilescribe":
        from app import DecodeOptions, load_model

        options = DecodeOptions(temperature=0.0, language="en")
        return load_model(model, "cpu", threads=threads).stream(audio, options)
    from faster_whisper import WhisperModel

    peer = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=threads)
    return iter(peer.transcribe(audio, language="en", beam_size=1, temperature=0.0)[0])


def main() -> None:
    side, model, threads, audio = sys.argv[1:5]
    limit = float(sys.argv[5]) if len(sys.argv) > 5 else float("inf")
    for segment in _segments(side, model, int(threads), audio):
        if segment.end > limit:
            break
    print(f"{_peak():.1f}")


if __name__ == "__main__":
    main()
