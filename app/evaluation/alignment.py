"""Reference and hypothesis word by word: jiwer's minimal edits, and what the statistics read from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import jiwer
import numpy as np
import numpy.typing as npt

Operation = tuple[Literal["=", "S", "D", "I"], str, str]
"""Equal, substituted, deleted or inserted; the reference's word and the hypothesis's, empty where there is none."""

MARKS: dict[str, Literal["=", "S", "D", "I"]] = {
    "equal": "=",
    "substitute": "S",
    "delete": "D",
    "insert": "I",
}
"""By jiwer's names."""


@dataclass(frozen=True)
class Alignment:
    """The edits that turn one utterance's reference into the hypothesis.

    Attributes:
        reference: n normalised words, as the hypothesis's are.
        correct: bool, shape (n,): reference words that the hypothesis has.
        inserted: int64, shape (n + 1,): words inserted before each reference word, and after the last.
        character_errors: least number of character edits, spaces among them, as among `characters`.
    """

    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]
    operations: tuple[Operation, ...]
    correct: npt.NDArray[np.bool_]
    inserted: npt.NDArray[np.int64]
    substitutions: int
    deletions: int
    insertions: int
    character_errors: int
    characters: int

    @property
    def words(self) -> int:
        """Words in the reference."""
        return len(self.reference)

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def hits(self) -> int:
        """Reference words that the hypothesis has."""
        return self.words - self.substitutions - self.deletions


def align(references: Sequence[str], hypotheses: Sequence[str]) -> list[Alignment]:
    """Align normalised texts pairwise, with jiwer.

    All edits cost one. NIST's sclite weighs substitutions 4 and deletions and insertions 3, so that the split into the
    three kinds may differ from it. A reference without words makes every hypothesis word an insertion.
    """
    if not references:
        return []
    words = jiwer.process_words(list(references), list(hypotheses))
    characters = jiwer.process_characters(list(references), list(hypotheses))
    return [
        from_operations(
            _operations(reference, hypothesis, chunks),
            character_errors=sum(
                max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx)
                for c in letter_chunks
                if c.type != "equal"
            ),
            characters=len(letters),
        )
        for reference, hypothesis, chunks, letter_chunks, letters in zip(
            words.references,
            words.hypotheses,
            words.alignments,
            characters.alignments,
            characters.references,
            strict=True,
        )
    ]


def from_operations(
    operations: Sequence[Operation], *, character_errors: int = 0, characters: int = 0
) -> Alignment:
    """An alignment from its edits, word by word, in order."""
    reference = tuple(lost for kind, lost, _ in operations if kind != "I")
    inserted = np.zeros(len(reference) + 1, np.int64)
    position = 0
    for kind, _, _ in operations:
        if kind == "I":
            inserted[position] += 1
        else:
            position += 1
    kinds = [kind for kind, _, _ in operations]
    return Alignment(
        reference=reference,
        hypothesis=tuple(got for kind, _, got in operations if kind != "D"),
        operations=tuple(operations),
        correct=np.array([kind == "=" for kind in kinds if kind != "I"], np.bool_),
        inserted=inserted,
        substitutions=kinds.count("S"),
        deletions=kinds.count("D"),
        insertions=kinds.count("I"),
        character_errors=character_errors,
        characters=characters,
    )


def _operations(
    reference: list[str], hypothesis: list[str], chunks: list[jiwer.AlignmentChunk]
) -> list[Operation]:
    return [
        (MARKS[chunk.type], lost, got)
        for chunk in chunks
        for lost, got in zip_longest(
            reference[chunk.ref_start_idx : chunk.ref_end_idx],
            hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx],
            fillvalue="",
        )
    ]
