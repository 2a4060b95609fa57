"""One long recording from a chapter's utterances: WER, the longest lost and doubled stretch, peak memory.

python scripts/long_form.py --data-dir LibriSpeech/train-clean-100/19/198 --model tiny.en --repeat 7
"""

from __future__ import annotations

import resource
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import av
import figures
import jiwer
import numpy as np
import torch
from whisper.normalizers import EnglishTextNormalizer

from app import DecodeOptions
from app.audio.reading import load_audio
from app.output.tables import aligned, percent
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


def longest(result: jiwer.WordOutput, kind: str) -> int:
    """The most words in one run of deletions (`delete`) or insertions (`insert`)."""
    runs = (
        max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        for chunk in result.alignments[0]
        if chunk.type == kind
    )
    return max(runs, default=0)


def peak() -> str:
    """Memory of this process at its highest so far."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"


def main() -> None:
    parser = figures.options(__doc__, data="a chapter: SPEAKER/CHAPTER")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    given, model = figures.configured(parser, "int32")
    folder = given.data_dir.resolve()
    chapter = [u for u in utterances(folder.parents[1]) if u.audio.parent == folder]
    normalise = EnglishTextNormalizer()
    with tempfile.TemporaryDirectory() as scratch:
        recording = Path(scratch) / "joined.flac"
        join(chapter, given.repeat, recording)
        loaded = peak()
        start = time.perf_counter()
        transcript = model.transcribe(recording, DecodeOptions(language="en"), batch_size=given.batch_size)
        seconds = time.perf_counter() - start
    reference = " ".join([normalise(" ".join(u.text for u in chapter))] * given.repeat)
    result = jiwer.process_words(reference, normalise(transcript.text))
    errors = f"{result.substitutions} substituted, {result.deletions} deleted, {result.insertions} inserted"
    shown = {
        "audio": f"{transcript.duration / 60:.1f} minutes",
        "model": given.model,
        "backend": given.backend,
        "batch": str(given.batch_size),
        "WER": percent(result.wer),
        "errors": errors,
        "words": str(len(result.references[0])),
        "longest run of deleted words": str(longest(result, "delete")),
        "longest run of inserted words": str(longest(result, "insert")),
        "segments": str(len(transcript.segments)),
        "overlaps": str(sum(b.start < a.end - 0.021 for a, b in pairwise(transcript.segments))),
        "last segment ends": f"{max(segment.end for segment in transcript.segments):.1f} s",
        "peak memory": peak(),
        "with the model loaded": loaded,
        "real-time factor": f"{seconds / transcript.duration:.3f}",
    }
    print("\n".join(aligned(shown.items(), left=2)))
    figures.write(given.json, list(shown), [list(shown.values())], torch.get_num_threads())


if __name__ == "__main__":
    main()
