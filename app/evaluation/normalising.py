"""Text before it is compared: openai-whisper's own normalisers, by language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my"})
"""Languages written without spaces between words: each letter counts as a word, so that WER is CER, as in Radford et
al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section 4.4."""


@dataclass(frozen=True)
class Normaliser:
    """A normaliser and its name; remembers each text, since most backends give the same one.

    Attributes:
        name: as in openai-whisper.
    """

    name: str
    _apply: Callable[[str], str]
    _known: dict[str, str]

    def __call__(self, text: str) -> str:
        """Words separated by single spaces; empty where no word is left (`um` and `hmm` are no words in English)."""
        if text not in self._known:
            self._known[text] = " ".join(self._apply(text).split())
        return self._known[text]


def normaliser(language: str | None) -> Normaliser:
    """The normaliser for a language's code.

    English has its own (numbers, contractions, spelling, fillers); every other language and None take the basic one.
    Importing openai-whisper takes a second, so it is done here.
    """
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

    if language == "en":
        return Normaliser("EnglishTextNormalizer", EnglishTextNormalizer(), {})
    if language in WITHOUT_SPACES:
        return Normaliser(
            "BasicTextNormalizer(split_letters=True)", BasicTextNormalizer(split_letters=True), {}
        )
    return Normaliser("BasicTextNormalizer", BasicTextNormalizer(), {})
