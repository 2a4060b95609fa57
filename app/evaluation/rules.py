"""The rules of a verdict, one function each. A rule passes, fails, or is undecided by this evidence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from app.evaluation.comparing import Comparison
from app.evaluation.limits import Limits
from app.evaluation.records import RunDescription
from app.evaluation.statistics.bootstrap import Interval
from app.evaluation.validation import KernelValidation

ENOUGH_FOR_INTERVAL = 20
"""Utterances from which an interval may decide. Percentile intervals of few draws are too narrow, by a tenth at 20."""


@dataclass(frozen=True)
class Rule:
    """How one rule came out.

    Attributes:
        name: of the rule.
        figure: what was found; None where nothing was.
        limit: what it was held to; None where the rule has no number.
        unit: of both: `points` of WER, `utterances`, or empty.
        passed: None where this evidence does not decide.
        applies: False where the rule is not for this candidate; it then counts for nothing.
        settled_by: about how many utterances would decide an undecided rule; None where that is not known.
        sentence: all of it in words.
    """

    name: str
    figure: float | None
    limit: float | None
    unit: str
    passed: bool | None
    sentence: str
    applies: bool = True
    settled_by: int | None = None


def kernel_validation(run: RunDescription, validation: KernelValidation | None) -> Rule:
    """The kernel computes what its contract says, on the device and with the tile size of the run."""
    name = "kernel validation"
    if validation is None:
        text = f"not done: run `tilescribe validate` for {run.backend}"
        return Rule(name, None, None, "", None, text)
    if not validation.passed:
        return Rule(name, None, None, "", False, f"failed on the {validation.device}: {validation.detail}")
    if validation.device != run.device:
        text = f"passed on the {validation.device}, but the run was on the {run.device}: validate there"
        return Rule(name, None, None, "", None, text)
    tile_size = run.kernel.get("tile_size")
    if None not in (tile_size, validation.tile_size) and tile_size != validation.tile_size:
        text = f"passed with tiles of {validation.tile_size}, but the run had {tile_size}: validate those"
        return Rule(name, None, None, "", None, text)
    return Rule(name, None, None, "", True, f"passed on the {validation.device}: {validation.detail}")


def against_cpu(comparison: Comparison | None, limits: Limits, expected: int | None) -> Rule:
    """The upper end of the interval of WER(candidate) - WER(cpu) is under the margin.

    It fails where the lower end is above it: then more data of this kind would hardly bring it under.
    """
    name = "WER against cpu"
    margin = limits.margin
    found = _interval(comparison, limits)
    if comparison is None or comparison.difference is None or found is None:
        return Rule(name, None, margin, "points", None, _why_none(comparison, "cpu", limits))
    difference, low, high = (100 * x for x in (comparison.difference, found.low, found.high))
    figures = f"{difference:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"
    if comparison.utterances < ENOUGH_FOR_INTERVAL:
        text = f"{figures}; {comparison.utterances} utterances are too few to trust it: at least {ENOUGH_FOR_INTERVAL}"
        return Rule(name, high, margin, "points", None, text, settled_by=ENOUGH_FOR_INTERVAL)
    if high < margin:
        text = f"{figures}; the upper end is under the margin of {margin:g} by {margin - high:.2f}"
        return Rule(name, high, margin, "points", True, text)
    if low > margin:
        text = f"{figures}; even the lower end is over the margin of {margin:g}, by {low - margin:.2f}"
        return Rule(name, high, margin, "points", False, text)
    half = high - difference if difference < margin else difference - low
    needed = _needed(comparison.utterances, half, abs(margin - difference))
    text = f"{figures} straddles the margin of {margin:g}; {_more(needed, expected)}"
    return Rule(name, high, margin, "points", None, text, settled_by=needed)


def against_int8(candidate: str, comparison: Comparison | None, limits: Limits, expected: int | None) -> Rule:
    """WER(candidate) is no worse than WER(int8).

    By the figures themselves it passes; it fails only where the paired interval is wholly above 0. Worse by less than
    chance makes is undecided: it is no ground for preferring the candidate, nor one against it.
    """
    name = "WER against int8"
    if candidate == "int8":
        text = "does not apply: int8 is the candidate itself"
        return Rule(name, None, 0.0, "points", None, text, applies=False)
    found = _interval(comparison, limits)
    if comparison is None or comparison.difference is None or found is None:
        return Rule(name, None, 0.0, "points", None, _why_none(comparison, "int8", limits))
    difference, low, high = (100 * x for x in (comparison.difference, found.low, found.high))
    if comparison.difference <= 0:
        text = f"{difference:+.2f} points: no worse"
        return Rule(name, difference, 0.0, "points", True, text)
    figures = f"{difference:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"
    if low > 0 and comparison.utterances >= ENOUGH_FOR_INTERVAL:
        return Rule(name, difference, 0.0, "points", False, f"{figures}: worse, by more than chance")
    needed = max(_needed(comparison.utterances, difference - low, difference) or 0, ENOUGH_FOR_INTERVAL)
    text = f"{figures}: worse, but by no more than chance may make; {_more(needed, expected)}"
    return Rule(name, difference, 0.0, "points", None, text, settled_by=needed)


def broken_utterances(count: int | None, limits: Limits, expected: int | None, utterances: int) -> Rule:
    """No more broken utterances than are allowed for the whole set; their number can only grow with more data."""
    name = "broken utterances"
    allowed = limits.allowed_broken(expected or utterances)
    if count is None:
        return Rule(name, None, allowed, "utterances", None, "not known: the cpu did not run on them")
    figures = f"{count:,} of {utterances:,} broken that the cpu did not break, {allowed:,} allowed"
    if expected and expected > utterances:
        figures += f" in the whole set of {expected:,}"
    if count > allowed:
        return Rule(name, count, allowed, "utterances", False, f"{figures}: {count - allowed:,} too many")
    return Rule(name, count, allowed, "utterances", True, figures)


def whole_set(utterances: int, failed: int, expected: int | None, at_hand: bool) -> Rule:
    """Every utterance of the data set was transcribed, by candidate and cpu."""
    name = "whole data set"
    if expected is None:
        text = f"{utterances:,} utterances, of a set whose size is not known"
        return Rule(name, utterances, None, "utterances", None, text)
    if utterances == expected and at_hand:
        return Rule(name, utterances, expected, "utterances", True, f"all {expected:,} utterances")
    text = f"{utterances:,} of {expected:,} utterances: a part is never deployed on"
    if failed:
        text += f"; {failed:,} failed"
    if utterances == expected:
        text = f"all {expected:,} utterances of a set that is itself not whole"
    return Rule(name, utterances, expected, "utterances", None, text, settled_by=expected)


def sample_size(utterances: int, limits: Limits) -> Rule:
    """Enough utterances to see what is rare."""
    least = limits.minimum_utterances
    if utterances >= least:
        return Rule(
            "sample size", utterances, least, "utterances", True, f"{utterances:,}, at least {least:,}"
        )
    text = f"{utterances:,} utterances; at least {least:,} are needed to see what is rare"
    return Rule("sample size", utterances, least, "utterances", None, text, settled_by=least)


def _interval(comparison: Comparison | None, limits: Limits) -> Interval | None:
    if comparison is None:
        return None
    by_speaker = limits.resampling == "speakers"
    return comparison.speaker_interval if by_speaker else comparison.utterance_interval


def _why_none(comparison: Comparison | None, baseline: str, limits: Limits) -> str:
    if comparison is None:
        return f"not known: there is no {baseline} run on these utterances; add {baseline} to --backends"
    if comparison.difference is None:
        return "not known: the references have no words"
    return f"not known: drawing {limits.resampling} needs at least two, known for every utterance"


def _needed(utterances: int, half_width: float, distance: float) -> int | None:
    """Utterances whose interval would not reach so far, rounded up to two figures.

    An interval's half width falls with the square root of the number of utterances; the difference is taken to stay.
    """
    if distance <= 1e-9:
        return None
    needed = max(utterances * (half_width / distance) ** 2, 1.0)
    unit = int(10 ** max(math.floor(math.log10(needed)) - 1, 0))
    return math.ceil(needed / unit) * unit


def _more(needed: int | None, expected: int | None) -> str:
    if needed is None:
        return "it is at the margin itself, where no number of utterances settles it"
    text = f"about {needed:,} utterances like these would settle it"
    return f"{text}, more than the set's {expected:,}" if expected and needed > expected else text
