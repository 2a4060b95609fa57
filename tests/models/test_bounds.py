"""Times of segments and words that whisper would leave out of the recording, out of order or empty."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from models.decoding.bounds import in_bounds
from models.decoding.segments import Segment, Word


def segment(start: float, end: float, *words: tuple[float, float], text: str = " a") -> Segment:
    said = tuple(Word(" a", first, last, 0.9) for first, last in words)
    return Segment(0, 0, start, end, text, (1,), 0.0, -0.1, 1.0, 0.0, said)


def test_what_is_in_bounds_stays_as_it_is() -> None:
    given = [segment(0.0, 1.5, (0.1, 0.7), (0.7, 1.5)), segment(2.0, 3.0, (2.0, 3.0))]
    assert in_bounds(given, 0.0, 3.0) == given


def test_words_without_length_take_it_from_their_neighbour() -> None:
    (found,) = in_bounds([segment(1.0, 2.0, (1.0, 1.3), (1.3, 1.3), (1.3, 2.0))], 0.0, 5.0)
    assert [(w.start, w.end) for w in found.words or ()] == [(1.0, 1.3), (1.3, 1.32), (1.32, 2.0)]


def test_an_end_past_the_recording_is_its_end() -> None:
    found = in_bounds([segment(0.0, 1.0), segment(1.0, 2.0), segment(2.0, 2.0, text="")], 0.0, 1.15)
    assert [(s.start, s.end) for s in found] == [(0.0, 1.0), (1.0, 1.15), (1.15, 1.15)]


@pytest.mark.parametrize("trial", range(40))
def test_anything_comes_to_be_in_order_and_within(trial: int) -> None:
    rng = np.random.default_rng(trial)
    given = [
        segment(*rng.uniform(-1, 6, 2), *(tuple(rng.uniform(-1, 6, 2)) for _ in range(rng.integers(0, 30))))
        for _ in range(rng.integers(1, 8))
    ]
    found = in_bounds(given, 0.5, 3.0)
    spans = [(s.start, s.end) for s in found]
    assert all(0.499999 <= start < end <= 3.000001 for start, end in spans)
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
    for s in found:
        words = [(w.start, w.end) for w in s.words or ()]
        assert all(s.start <= start < end <= s.end for start, end in words)
        assert all(one[1] <= other[0] for one, other in pairwise(words))
