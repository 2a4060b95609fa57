"""Two texts word by word: normalised, then aligned with the fewest edits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import zip_longest
from typing import Literal

import jiwer
import numpy as np
import numpy.typing as npt

Mark = Literal["=", "S", "D", "I"]
Operation = tuple[Mark, str, str]
"""Equal, substituted, deleted or inserted; the reference's word and the hypothesis's, empty where there is none."""

MARKS: dict[str, Mark] = {"equal": "=", "substitute": "S", "delete": "D", "insert": "I"}
"""By jiwer's names."""

WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my"})
"""Languages written without spaces between words: each letter counts as a word, so that WER is CER, as in Radford et
al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section 4.4."""


def normaliser(language: str | None) -> tuple[str, Callable[[str], str]]:
    """The normaliser for a language's code: its name in openai-whisper, and a function of a text.

    English has its own (numbers, contractions, spelling, fillers); every other language and None take the basic one.
    The function gives words separated by single spaces; nothing where no word is left (`um` and `hmm` are no words in
    English). It remembers each text, since most backends give the same one.
    """
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

    letters = language in WITHOUT_SPACES
    name = "BasicTextNormalizer(split_letters=True)" if letters else "BasicTextNormalizer"
    apply = BasicTextNormalizer(split_letters=letters)
    if language == "en":
        name, apply = "EnglishTextNormalizer", EnglishTextNormalizer()
    return name, cache(lambda text: " ".join(apply(text).split()))


@dataclass(frozen=True)
class Alignment:
    """The edits that turn one utterance's normalised reference into the hypothesis, word by word, in order.

    Attributes:
        character_errors: least number of character edits, spaces among them, as among `characters`.
    """

    operations: tuple[Operation, ...]
    character_errors: int = 0
    characters: int = 0

    @cached_property
    def reference(self) -> tuple[str, ...]:
        """Its n words."""
        return tuple(lost for kind, lost, _ in self.operations if kind != "I")

    @cached_property
    def hypothesis(self) -> tuple[str, ...]:
        """Its words."""
        return tuple(got for kind, _, got in self.operations if kind != "D")

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Reference words that the hypothesis has, bool, shape (n,)."""
        return np.array([kind == "=" for kind, _, _ in self.operations if kind != "I"], np.bool_)

    @cached_property
    def inserted(self) -> npt.NDArray[np.int64]:
        """Words inserted before each reference word, and after the last, int64, shape (n + 1,)."""
        inserted = np.zeros(len(self.reference) + 1, np.int64)
        position = 0
        for kind, _, _ in self.operations:
            if kind == "I":
                inserted[position] += 1
            else:
                position += 1
        return inserted

    @cached_property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return sum(kind != "=" for kind, _, _ in self.operations)


def align(reference: str, hypothesis: str) -> Alignment:
    """Align two normalised texts, with jiwer.

    All edits cost one. NIST's sclite weighs substitutions 4 and deletions and insertions 3, so that the split into the
    three kinds may differ from it. A reference without words makes every hypothesis word an insertion.
    """
    words = jiwer.process_words(reference, hypothesis)
    letters = jiwer.process_characters(reference, hypothesis)
    (said,), (heard,) = words.references, words.hypotheses
    operations = (
        (MARKS[chunk.type], lost, got)
        for chunk in words.alignments[0]
        for lost, got in zip_longest(
            said[chunk.ref_start_idx : chunk.ref_end_idx],
            heard[chunk.hyp_start_idx : chunk.hyp_end_idx],
            fillvalue="",
        )
    )
    errors = letters.substitutions + letters.deletions + letters.insertions
    return Alignment(tuple(operations), errors, len(letters.references[0]))
