"""WER of the backends on a LibriSpeech folder, beside plain openai-whisper's, and how many transcripts are the same.

    python scripts/compare_backends.py --data-dir LibriSpeech/test-clean --model tiny.en

All decode greedily without fallback and with timestamps, and are scored by openai-whisper's English normaliser.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import jiwer
from tqdm import tqdm
from whisper.normalizers import EnglishTextNormalizer

from app import DecodeOptions, load_model
from app.audio.reading import load_audio
from datasets.librispeech import utterances

PLAIN = "openai-whisper"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--backends", default="cpu,int32,int8")
    parser.add_argument("--limit", type=int)
    parser.add_argument(
        "--threads", type=int, help="of PyTorch and of the emulator; all processors unless given"
    )
    parser.add_argument("--compute-type", default="float32", help="auto, float32, bfloat16 or int8")
    arguments = parser.parse_args()
    chosen = list(utterances(arguments.data_dir))[: arguments.limit]
    normalise = EnglishTextNormalizer()
    references = [normalise(u.text) for u in chosen]
    backends = arguments.backends.split(",")
    transcribers = {
        name: load_model(
            arguments.model, name, threads=arguments.threads, compute_type=arguments.compute_type
        )
        for name in backends
    }
    options = DecodeOptions(temperature=0.0, language="en")
    texts: dict[str, list[str]] = {name: [] for name in [PLAIN, *backends]}
    seconds = dict.fromkeys(texts, 0.0)
    plain = transcribers[backends[0]].weights.model
    total = 0.0
    for utterance in tqdm(chosen, unit="utterance"):
        samples = load_audio(utterance.audio)
        total += len(samples) / 16000
        start = time.perf_counter()
        result = plain.transcribe(samples, temperature=0.0, language="en", fp16=False)
        seconds[PLAIN] += time.perf_counter() - start
        texts[PLAIN].append(result["text"])
        for name, transcriber in transcribers.items():
            start = time.perf_counter()
            texts[name].append(transcriber.transcribe(samples, options).text)
            seconds[name] += time.perf_counter() - start
    print(f"{arguments.model}, {len(chosen)} utterances, {total:.0f} s of {arguments.data_dir}")
    print(f"{'':15} {'WER':>7} {'same text as cpu':>17} {'real-time factor':>17}")
    for name, hypotheses in texts.items():
        wer = jiwer.wer(references, [normalise(text) for text in hypotheses])
        same = sum(a.strip() == b.strip() for a, b in zip(hypotheses, texts["cpu"], strict=True))
        print(f"{name:15} {wer:7.2%} {f'{same} of {len(chosen)}':>17} {seconds[name] / total:17.3f}")


if __name__ == "__main__":
    sys.exit(main())
