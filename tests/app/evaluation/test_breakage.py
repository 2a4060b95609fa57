from __future__ import annotations

import pytest

from app.evaluation.alignment import align
from app.evaluation.breakage import breakage, repeated_words

SAID = "the quiet harbour wakes before the sun and two boats leave for the open water"


def judged(heard: str, cpu: str = SAID, said: str = SAID) -> tuple[str, ...]:
    one, other = align(said, heard), align(said, cpu)
    found = breakage("u1", one, other, heard, cpu)
    return found.kinds if found else ()


@pytest.mark.parametrize(
    ("heard", "kinds"),
    [
        (SAID, ()),
        ("", ("empty",)),
        # Another word, two words run together, a name apart: wrong, not broken.
        ("the quiet harbor wakes before the sun and two boats leave for the open water", ()),
        ("the quiet harbour wakes before the sun and to boats leaves for open waters", ()),
        # Four words in a row are gone, then five.
        ("the quiet harbour wakes before leave for the open water", ("lost",)),
        ("the quiet harbour wakes before boats leave for the open water", ()),
        # As many words wrong as gone.
        ("a choir arbour shakes the door sun and two boats leave for the open water", ("lost",)),
        # A third of the words are gone, never five in a row.
        ("quiet wakes the sun two boats for open water", ("lost",)),
        # A loop at the end; said twice is not a loop, but eight words that nobody said are too many.
        (SAID + " the water the water the water", ("loop", "excess")),
        (SAID + " water water", ()),
        (SAID + " water water water water", ("loop",)),
        (SAID + " and two boats leave for the open water", ("excess",)),
        (SAID + " thank you for watching", ()),
        (SAID + " thank you all for watching", ("excess",)),
    ],
)
def test_what_is_broken(heard: str, kinds: tuple[str, ...]) -> None:
    assert judged(heard) == kinds


def test_what_the_cpu_breaks_too_is_not_the_backends() -> None:
    for heard in ("", "the quiet harbour wakes before leave for the open water", SAID + " water" * 9):
        assert judged(heard, cpu=heard) == ()
        assert judged(SAID, cpu=heard) == ()
    # The cpu loses those words as well, and others.
    assert judged("the quiet harbour wakes before leave for the open water", cpu="the open water") == ()
    # Both loop, the backend far longer.
    assert "loop" in judged(SAID + " water" * 20, cpu=SAID + " water" * 5)


def test_what_was_said_is_not_a_loop() -> None:
    said = "no no no no no no no he said"
    assert judged(said, cpu="no he said", said=said) == ()
    assert judged("no no no no no no no he said", cpu="no he said", said="no he said") == ("loop", "excess")


def test_nothing_said_and_a_phrase_made_up() -> None:
    assert judged("thank you very much for watching", cpu="", said="") == ("excess",)
    assert judged("", cpu="", said="") == ()
    assert judged("", cpu="thank you", said="") == ()


def test_text_that_compresses_too_well_is_a_loop() -> None:
    """Near-repetition that no phrase of words repeats exactly."""
    said = " ".join(f"boat {i} left the quiet harbour" for i in range(3))
    heard = said + "".join(f" boat {i} left the quiet harbour" for i in range(3, 20))
    assert repeated_words(heard.split()) == 0
    assert "loop" in judged(heard, cpu=said, said=said)


def test_one_text_needs_no_judging() -> None:
    one = align("a b", "c")
    assert breakage("u1", one, one, "c", "c") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("a b c a b c", 0),
        ("a a", 0),
        ("a a a", 2),
        ("x a a a a y", 3),
        ("a b a b a b", 4),
        ("z a b c a b c a b c a", 7),
        (" ".join(["a b c d e f g h i j"] * 4), 30),
    ],
)
def test_repeated_words(text: str, expected: int) -> None:
    assert repeated_words(text.split()) == expected
