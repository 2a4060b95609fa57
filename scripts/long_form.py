"""One long recording from a chapter's utterances: WER, the longest lost and doubled stretch, peak memory.

python scripts/long_form.py --data-dir LibriSpeech/train-clean-100/19/198 --model tiny.en --repeat 7
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import av
import jiwer
import numpy as np
from whisper.normalizers import EnglishTextNormalizer

from app import DecodeOptions, load_model
from app.audio.reading import load_audio
from datasets.librispeech import utterances
from datasets.utterance import Utterance


def join(chapter: list[Utterance], repeat: int, target: Path) -> None:
    """Write the utterances one after another as a 16 kHz FLAC file."""
    with av.open(str(target), "w") as out:
        track = out.add_stream("flac", rate=16000, layout="mono")
        for utterance in chapter * repeat:
            samples = (load_audio(utterance.audio) * 32768).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
            frame.sample_rate = 16000
            out.mux(track.encode(frame))
        out.mux(track.encode(None))


def longest(runs: list[tuple[str, int]], kind: str) -> int:
    """The most words in one run of a kind of error."""
    return max((words for name, words in runs if name == kind), default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="a chapter: SPEAKER/CHAPTER")
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--backend", default="int32")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--compute-type", default="float32", help="auto, float32, bfloat16 or int8")
    arguments = parser.parse_args()
    root = arguments.data_dir.resolve().parents[1]
    chapter = [u for u in utterances(root) if u.audio.parent == arguments.data_dir.resolve()]
    transcriber = load_model(
        arguments.model, arguments.backend, threads=arguments.threads, compute_type=arguments.compute_type
    )
    normalise = EnglishTextNormalizer()
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "joined.flac"
        join(chapter, arguments.repeat, recording)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        transcript = transcriber.transcribe(
            recording, DecodeOptions(language="en"), batch_size=arguments.batch_size
        )
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    reference = " ".join([normalise(" ".join(u.text for u in chapter))] * arguments.repeat)
    result = jiwer.process_words(reference, normalise(transcript.text))
    runs = [
        (chunk.type, max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx))
        for chunk in result.alignments[0]
    ]
    words = sum(len(reference) for reference in result.references)
    errors = f"{result.substitutions} substituted, {result.deletions} deleted, {result.insertions} inserted"
    print(
        f"{arguments.model} {arguments.backend}, batch {arguments.batch_size}, {transcript.duration:.0f} s of audio"
    )
    print(f"WER {result.wer:.2%} ({errors} of {words} words)")
    lost, doubled = longest(runs, "delete"), longest(runs, "insert")
    print(f"longest run of deleted words {lost}, of inserted words {doubled}")
    overlaps = sum(b.start < a.end - 0.021 for a, b in pairwise(transcript.segments))
    end = max(segment.end for segment in transcript.segments)
    print(f"{len(transcript.segments)} segments, {overlaps} overlaps, last ends at {end:.1f} s")
    rtf = seconds / transcript.duration
    print(f"peak memory {peak:.0f} MB, {before:.0f} MB with the model loaded; real-time factor {rtf:.3f}")


if __name__ == "__main__":
    main()
