"""Utterances that a backend broke although the CPU did not.

A broken transcript is one that a reader would throw away, not one with another word wrong; WER averages it away.
Each kind is judged against reference and CPU together, so that neither a hard recording nor a repetition that was
really said counts against a backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from app.evaluation.alignment import Alignment
from app.evaluation.scoring import ScoredBackend

Kind = Literal["failed", "empty", "lost", "loop", "excess"]

LOST_RUN = 5
"""Reference words in a row that the CPU has right and the backend has not: a phrase is gone. Near-ties that decode
differently change one word, at times two or three (a number, a name written apart)."""

LOST_SHARE = 0.25
"""Or so large a part of the reference, at least LOST_RUN words, anywhere in it: loss that stray matches interrupt."""

LOOP_WORDS = 4
"""Words that only repeat what stood before them, beyond any such in the reference and from the CPU: `the` five times,
or a phrase of two words three times. Speech repeats a word once or twice (`no, no, no`: two)."""

LOOP_COPIES = 3
"""Copies in a row before words count as repeating: two are said often enough (`bye bye`)."""

LOOP_PHRASE = 50
"""Longest phrase, in words, whose repetition is looked for: a window's 224 tokens are some 150 words of English, and
no longer one comes three times in them."""

COMPRESSION_RATIO = 2.4
"""openai-whisper's own threshold for text that is too repetitive."""

EXCESS_RUN = 5
"""Inserted words in a row, beyond the CPU's longest such run: a phrase was made up or doubled."""


class Broken(msgspec.Struct, frozen=True):
    """An utterance that a backend broke.

    Attributes:
        kinds: `failed` (an error instead of a text), `empty` (no words), `lost` (words that the CPU has right),
            `loop` (repetition), `excess` (words that nobody said).
        detail: in words, with figures.
    """

    id: str
    kinds: tuple[Kind, ...]
    detail: str


def broken(backend: ScoredBackend, cpu: ScoredBackend) -> tuple[Broken, ...]:
    """Utterances that the backend broke though the CPU did not, by id; those that failed on it alone among them."""
    found = [
        Broken(key, ("failed",), f"failed: {record.error}")
        for key, record in backend.failed.items()
        if key in cpu.records
    ]
    for key, alignment in backend.alignments.items():
        if key in cpu.alignments:
            one = breakage(key, alignment, cpu.alignments[key], backend.text(key), cpu.text(key))
            found += [one] if one else []
    return tuple(sorted(found, key=lambda b: b.id))


def breakage(key: str, backend: Alignment, cpu: Alignment, backend_text: str, cpu_text: str) -> Broken | None:
    """Judge one utterance by its alignments with one reference, and by how far the raw texts compress."""
    if backend is cpu:
        return None
    found: list[tuple[Kind, str]] = []
    if cpu.correct.any() and not backend.hypothesis:
        found.append(("empty", f"no words, where the cpu has {len(cpu.hypothesis)}"))
    else:
        found += _lost(backend, cpu)
    found += _loop(backend, cpu, backend_text, cpu_text)
    excess = backend.inserted.max()
    if excess - cpu.inserted.max() >= EXCESS_RUN:
        found.append(("excess", f"{excess} words in a row that the reference has not"))
    if not found:
        return None
    return Broken(key, tuple(kind for kind, _ in found), "; ".join(text for _, text in found))


def repeated_words(words: Sequence[str]) -> int:
    """The most words in a row that only repeat the phrase before them, where it stands at least three times.

    A phrase of n words that stands k times in a row has n * (k - 1) of them.
    """
    most = 0
    for n in range(1, min(LOOP_PHRASE, len(words) // LOOP_COPIES) + 1):
        run = 0
        for position in range(n, len(words)):
            run = run + 1 if words[position] == words[position - n] else 0
            if run >= n * (LOOP_COPIES - 1):
                most = max(most, run)
    return most


def _lost(backend: Alignment, cpu: Alignment) -> list[tuple[Kind, str]]:
    lost = np.concatenate(([False], cpu.correct & ~backend.correct, [False]))
    edges = np.flatnonzero(np.diff(lost.astype(np.int8)))
    run = (edges[1::2] - edges[::2]).max(initial=0)
    if run >= LOST_RUN:
        return [("lost", f"{run} words in a row that the cpu has right are wrong or missing")]
    net = cpu.correct.sum() - backend.correct.sum()
    if net >= max(LOST_RUN, LOST_SHARE * len(backend.reference)):
        return [
            ("lost", f"{net} of {len(backend.reference)} words that the cpu has right are wrong or missing")
        ]
    return []


def _loop(backend: Alignment, cpu: Alignment, backend_text: str, cpu_text: str) -> list[tuple[Kind, str]]:
    most = repeated_words(backend.hypothesis)
    said = max(repeated_words(backend.reference), repeated_words(cpu.hypothesis)) if most else 0
    if most - said >= LOOP_WORDS:
        return [("loop", f"{most} words in a row repeat what stands before them")]
    from whisper.utils import compression_ratio

    ratio = compression_ratio(backend_text.strip())
    others = (cpu_text.strip(), " ".join(backend.reference))
    if ratio > COMPRESSION_RATIO >= max(compression_ratio(text) for text in others):
        return [("loop", f"the text compresses {ratio:.1f} times")]
    return []
