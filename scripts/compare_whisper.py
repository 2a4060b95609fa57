"""Tilescribe beside openai-whisper, utterance by utterance: WER, identical transcripts, real-time factor.

    python scripts/compare_whisper.py --data-dir LibriSpeech/test-clean --model tiny.en

All decode greedily without fallback and with timestamps, and are scored by openai-whisper's English normaliser.
`transcribe` reads window after window as openai-whisper does, each prompted with the text before it. `evaluate` reads
pieces of up to 30 s that know nothing of each other, several recordings at once, so that a record does not depend on
what came before: where a recording takes a second window (it is longer, or the model left its end), a word may differ,
and with it the WER in the tables of `evaluate`: on 103 utterances of test-clean, tiny.en has 4.48 % in openai-whisper
and in `transcribe`, whose texts are the same, and 4.43 % in `evaluate`, where three texts differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import figures
import jiwer
import torch
from tqdm import tqdm
from whisper.normalizers import EnglishTextNormalizer

from app import DecodeOptions
from app.audio.reading import load_audio
from app.output.tables import aligned, percent
from datasets.librispeech import utterances

PEER = "openai-whisper"


def main() -> None:
    parser = figures.options(__doc__)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--differences", action="store_true", help="print the transcripts that differ")
    given, ours = figures.configured(parser, "cpu")
    chosen = list(utterances(given.data_dir))[: given.limit]
    options = DecodeOptions(temperature=0.0, language="en")
    plain = ours.weights.model.whisper
    ways: dict[str, Callable[[Any], str]] = {
        PEER: lambda s: plain.transcribe(s, temperature=0.0, language="en", fp16=False)["text"],
        "transcribe": lambda s: ours.transcribe(s, options).text,
        "evaluate": lambda s: ours.transcribe(s, options, batch_size=8).text,
    }
    texts: dict[str, list[str]] = {name: [] for name in ways}
    seconds = dict.fromkeys(ways, 0.0)
    total = 0.0
    for utterance in tqdm(chosen, unit="utterance"):
        samples = load_audio(utterance.audio)
        total += len(samples) / 16000
        for name, way in ways.items():
            start = time.perf_counter()
            texts[name].append(way(samples).strip())
            seconds[name] += time.perf_counter() - start
        said = {name: its[-1] for name, its in texts.items()}
        if given.differences and len(set(said.values())) > 1:
            tqdm.write("\n".join([utterance.id, *(f"  {name:14} {text}" for name, text in said.items())]))
    normalise = EnglishTextNormalizer()
    references = [normalise(utterance.text) for utterance in chosen]
    columns = ["", "model", "WER", f"as {PEER}", "real-time factor"]
    rows = []
    for name, hypotheses in texts.items():
        wer = jiwer.wer(references, [normalise(text) for text in hypotheses])
        same = sum(a == b for a, b in zip(hypotheses, texts[PEER], strict=True))
        shown = name if name == PEER else f"{name}, {given.backend}"
        rows.append(
            [shown, given.model, percent(wer), f"{same} of {len(chosen)}", f"{seconds[name] / total:.3f}"]
        )
    print(f"{given.model}, {given.backend}: {len(chosen)} utterances, {total:.0f} s of {given.data_dir}")
    print("\n".join(aligned([columns, *rows])))
    figures.write(given.json, columns, rows, torch.get_num_threads())


if __name__ == "__main__":
    main()
