"""Records of runs that never ran: hypotheses made from references by rule."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from app.evaluation.alignment import Alignment
from app.evaluation.records import BackendRecords, DatasetDescription, RunDescription, UtteranceRecord

TEXT = (
    "the quiet village wakes before any sun and many boats leave for open water while a lighthouse turns its last "
    "slow circle above them by noon market stalls are full of voices every basket fish has been sold"
)
WORDS = TEXT.split()

Edit = Callable[[list[str], random.Random], list[str]]


def dataset(expected: int | None = 400, **fields: Any) -> DatasetDescription:
    return DatasetDescription(
        "librispeech-test-clean", "ab" * 32, expected, fields.pop("complete", True), "en"
    )


def run(backend: str = "cpu", expected: int | None = 400, **fields: Any) -> RunDescription:
    given = {
        "model": "tiny.en",
        "model_sha256": "cd" * 32,
        "device": "cpu" if backend == "cpu" else "emulator",
        "device_reason": "there is no NPU here",
        "dataset": dataset(expected),
        "kernel": {"tile_size": 64} if backend in ("int32", "int8") else {},
        "decoding": {"beam_size": None, "temperature": 0.0},
        "compute": {"encoder": "float32"},
        "versions": {"tilescribe": "0.1.0"},
        "processor": "a processor",
        "threads": 2,
        "started": "2025-01-01T00:00:00+00:00",
    }
    return RunDescription(backend=backend, **{**given, **fields})


def references(count: int, seed: int = 0) -> list[str]:
    """Sentences of 4 to 24 words, none beside itself."""
    chance = random.Random(seed)
    return [" ".join(chance.sample(WORDS, chance.randint(4, 24))) for _ in range(count)]


def records(backend: str, hypotheses: Sequence[str], said: Sequence[str], **fields: Any) -> BackendRecords:
    """One utterance for each hypothesis, of ten speakers in turn, ten seconds each."""
    utterances = tuple(
        UtteranceRecord(f"u{i:04d}", reference, hypothesis, f"s{i % 10}", 10.0, 1.0, 0.4, 0.6)
        for i, (reference, hypothesis) in enumerate(zip(said, hypotheses, strict=True))
    )
    return BackendRecords(run(backend, **fields), utterances)


def wrong(share: float) -> Edit:
    """Replace a share of the words, one by one."""
    return lambda words, chance: ["xylophone" if chance.random() < share else w for w in words]


def spoil(texts: Sequence[str], edit: Edit, *, share: float = 1.0, seed: int = 1) -> list[str]:
    """Edit a share of the texts."""
    chance = random.Random(seed)
    return [" ".join(edit(t.split(), chance)) if chance.random() < share else t for t in texts]


def aligned(text: str) -> Alignment:
    """An alignment from marks and words: `=same Swrong/got Dlost Iadded`."""
    operations = []
    for item in text.split():
        kind, word = item[0], item[1:]
        lost, _, got = word.partition("/")
        pair = {"=": (word, word), "S": (lost, got), "D": (word, ""), "I": ("", word)}[kind]
        operations.append((kind, *pair))
    return Alignment(tuple(operations))  # type: ignore[arg-type]
