from __future__ import annotations

import math

import pytest
from material.evidence_records import aligned, references, spoil

from app.evaluation.alignment import align
from app.evaluation.mapsswe import ErrorSegment, MatchedPairs, mapsswe, segments

SCTK_TEST_1A = (
    ("Is.", ""),
    (
        "=yeah Dhow Sdo/but =we Shandle/have Show/not Sdo/had =we =ha Daddress =that Is. Ia.",
        "=yeah Dhow Sdo/but =we Shandle/have Show/not Sdo/and =we =ha Saddress/that's Sthat/right",
    ),
)
"""The two utterances of SCTK's own test of sc_stats -t mapsswe (src/sclite/testdata, test 1a). Its published output: 3
segments, 13 reference words, 9 and 7 errors, mean 0.667, standard deviation 0.577, Z 2.000."""

SCTK_RANDOM = (
    ("Se/z =b Sg/w", "=e =b =g"),
    (
        "=c Iw =b Iw =b Iu =a Iu =g Di =e Sa/z =d =i Di =f De =c",
        "=c =b =b Iv =a Iv Iv =g =i =e Sa/v Dd =i =i =f =e =c Iw",
    ),
    ("Iu =e Iw", "De"),
    ("=a =e Iy Se/w", "=a =e =e"),
    ("Sc/z =e Se/w", "=c =e De"),
    ("Iu =b =j Df =g =i =d =c =d Sh/w", "=b =j =f =g =i =d =c =d =h"),
)
"""Random alignments, on which sc_stats 1.3 says: 8 segments, 34 reference words, 19 and 8 errors, mean 1.375, standard
deviation 0.518, Z 7.514."""


@pytest.mark.parametrize(
    ("utterances", "words", "errors", "mean", "deviation", "z"),
    [
        (SCTK_TEST_1A, 13, (9, 7), 0.667, 0.577, 2.000),
        (SCTK_RANDOM, 34, (19, 8), 1.375, 0.518, 7.514),
    ],
    ids=["SCTK's own test", "random"],
)
def test_equals_scstats(
    utterances: tuple[tuple[str, str], ...],
    words: int,
    errors: tuple[int, int],
    mean: float,
    deviation: float,
    z: float,
) -> None:
    pairs = [(aligned(a), aligned(b)) for a, b in utterances]
    found = [s for a, b in pairs for s in segments(a, b)]
    assert sum(s.words for s in found) == words
    assert (sum(s.first_errors for s in found), sum(s.second_errors for s in found)) == errors
    result = mapsswe(pairs)
    assert result.segments == len(found)
    assert round(result.mean, 3) == mean
    assert result.variance is not None
    assert result.z is not None
    assert round(math.sqrt(result.variance), 3) == deviation
    assert round(result.z, 3) == z
    swapped = mapsswe([(b, a) for a, b in pairs])
    assert (swapped.mean, swapped.z, swapped.p) == (-result.mean, -result.z, result.p)


def test_segments_and_statistic_by_hand() -> None:
    """Differences 2, -1, -1, 1: mean 1/4, variance 2.25, Z = 0.25 / (1.5 / 2) = 1/3, p = 0.7389."""
    first = aligned("Sit/its Dwas =the =best =of =times =it Swas/is =the =worst =of =times Ior =it =was")
    second = aligned("=it =was =the =best Dof =times =it Swas/won =the Sworst/test =of =times =it =was")
    assert segments(first, second) == [
        ErrorSegment(4, 2, 0),
        ErrorSegment(5, 0, 1),
        ErrorSegment(7, 1, 2),
        ErrorSegment(4, 1, 0),
    ]
    result = mapsswe([(first, second)])
    assert (result.segments, result.mean, result.variance) == (4, 0.25, 2.25)
    assert result.z == pytest.approx(1 / 3)
    assert result.p == pytest.approx(0.7389, abs=5e-5)
    assert result.level is None
    assert not result.enough


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("=a =b =c", "=a =b =c", []),
        ("", "", []),
        ("Ix", "", [ErrorSegment(0, 1, 0)]),
        ("Da =b =c =d", "=a =b =c =d", [ErrorSegment(3, 1, 0)]),
        # One right word between errors does not bound a segment, two do.
        ("Da =b Dc =d", "=a =b =c =d", [ErrorSegment(4, 2, 0)]),
        ("Da =b =c Dd", "=a =b =c =d", [ErrorSegment(3, 1, 0), ErrorSegment(3, 1, 0)]),
        # Words that only one of the two has right bound nothing.
        ("Da =b =c Dd", "=a Db =c =d", [ErrorSegment(4, 2, 1)]),
        # Inserted words break a run of right ones, and count once, whichever segment's end they stand at.
        ("Da =b Ix =c =d", "=a =b =c =d", [ErrorSegment(4, 2, 0)]),
        ("=a Ix =b =c Iy", "=a =b =c", [ErrorSegment(3, 1, 0), ErrorSegment(2, 1, 0)]),
        ("Ix =a =b Dc", "=a =b =c", [ErrorSegment(2, 1, 0), ErrorSegment(3, 1, 0)]),
    ],
)
def test_where_segments_end(first: str, second: str, expected: list[ErrorSegment]) -> None:
    assert segments(aligned(first), aligned(second)) == expected


def test_every_error_is_in_one_segment() -> None:
    said = references(150)
    heard = [
        spoil(
            said,
            lambda words, chance: [
                w
                for word in words
                for w in chance.choices(([word], [], ["x"], [word, "y"], ["y", word]), (9, 1, 1, 1, 1))[0]
            ],
            seed=seed,
        )
        for seed in (1, 2)
    ]
    first, second = (list(map(align, said, texts)) for texts in heard)
    found = [s for pair in zip(first, second, strict=True) for s in segments(*pair)]
    assert sum(s.first_errors for s in found) == sum(a.errors for a in first)
    assert sum(s.second_errors for s in found) == sum(a.errors for a in second)
    assert all(s.first_errors + s.second_errors > 0 for s in found)


def test_the_ends_of_the_scale() -> None:
    right, off = aligned("=a =b =c"), aligned("=a Db =c")
    assert mapsswe([]) == MatchedPairs(0, 0.0, None, 0.0, 1.0, None, False)
    assert mapsswe([(right, right)]) == MatchedPairs(0, 0.0, None, 0.0, 1.0, None, False)
    same = mapsswe([(off, off)] * 60)
    assert (same.segments, same.z, same.p, same.enough) == (60, 0.0, 1.0, True)
    always = mapsswe([(off, right)] * 60)
    assert (always.mean, always.variance, always.z, always.p) == (1.0, 0.0, None, None)
    assert mapsswe([(off, right)]).z is None
    mostly = mapsswe([(off, right)] * 60 + [(right, off)] * 20)
    assert mostly.level == 0.001
    # 60 and 40 of 100: mean 0.2, variance 0.96 * 100 / 99, Z = 2.031.
    barely = mapsswe([(off, right)] * 60 + [(right, off)] * 40)
    assert barely.z == pytest.approx(0.2 / math.sqrt(0.96 / 99))
    assert barely.level == 0.05


def test_different_references_are_refused() -> None:
    with pytest.raises(ValueError, match="different references"):
        segments(aligned("=a"), aligned("=b"))
