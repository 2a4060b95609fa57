"""Text before it is compared: openai-whisper's own normalisers, by language."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my"})
"""Languages written without spaces between words: each letter counts as a word, so that WER is CER, as in Radford et
al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section 4.4."""


def normaliser(language: str | None) -> tuple[str, Callable[[str], str]]:
    """The normaliser for a language's code: its name in openai-whisper, and a function of a text.

    English has its own (numbers, contractions, spelling, fillers); every other language and None take the basic one.
    The function gives words separated by single spaces; nothing where no word is left (`um` and `hmm` are no words in
    English). It remembers each text, since most backends give the same one.
    """
    # Importing openai-whisper takes a second.
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

    letters = language in WITHOUT_SPACES
    name = "BasicTextNormalizer(split_letters=True)" if letters else "BasicTextNormalizer"
    apply = BasicTextNormalizer(split_letters=letters)
    if language == "en":
        name, apply = "EnglishTextNormalizer", EnglishTextNormalizer()
    return name, cache(lambda text: " ".join(apply(text).split()))
