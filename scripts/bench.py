"""How long things take beside a peer in the same run: pairs in turn, ratios pair by pair (min, median, max).

    python scripts/bench.py --model tiny.en

Absolute times mean little on a shared machine; the ratios hold where both sides saw the same load.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from app import DecodeOptions, load_model
from app.audio import load_audio
from datasets.sample import sample
from models.features import LogMelFeatures


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(what: str, ours: Callable[[], object], peer: Callable[[], object], runs: int) -> None:
    """Time both in turn after a warm-up, and print the ratios."""
    ours(), peer()
    pairs = [(seconds(ours), seconds(peer)) for _ in range(runs)]
    ratios = sorted(a / b for a, b in pairs)
    a, b = (statistics.median(times) for times in zip(*pairs, strict=True))
    spread = f"{ratios[0]:.2f} {statistics.median(ratios):.2f} {ratios[-1]:.2f}"
    print(f"{what:62} {spread:>16} {a * 1e3:8.0f} ms {b * 1e3:8.0f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    transcribers = {
        name: load_model(arguments.model, name, threads=arguments.threads) for name in ("cpu", "int32")
    }
    plain = transcribers["cpu"].weights.model
    samples = load_audio(sample().audio)
    mel = LogMelFeatures([samples], plain.dims.n_mels).window(0, 3000)[None]
    options = DecodeOptions(temperature=0.0, language="en")
    encoders = {name: transcriber.encoder for name, transcriber in transcribers.items()}

    def whisper_encoder() -> None:
        with torch.no_grad():
            plain.encoder(mel)

    def whisper_transcribe() -> None:
        plain.transcribe(samples, temperature=0.0, language="en", fp16=False)

    print(
        f"{arguments.model}, {torch.get_num_threads()} threads, {arguments.runs} pairs; ratio: min median max"
    )
    runs = arguments.runs
    compare("encoder, cpu / openai-whisper", lambda: encoders["cpu"](mel), whisper_encoder, runs)
    compare(
        "encoder, int32 emulated / cpu", lambda: encoders["int32"](mel), lambda: encoders["cpu"](mel), runs
    )
    for name, transcriber in transcribers.items():
        compare(
            f"14 s sample, greedy, {name} / openai-whisper",
            lambda transcriber=transcriber: transcriber.transcribe(samples, options),
            whisper_transcribe,
            runs,
        )


if __name__ == "__main__":
    main()
