"""What a candidate backend is held to: the limits, and the rules, one function each.

A rule passes, fails, or is undecided by this evidence.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from app.evaluation.records import EvidenceError, RunDescription, reading
from app.evaluation.summaries import BackendSummary, Comparison
from kernels.backends import REFERENCE, RIVAL

ENOUGH_FOR_INTERVAL = 20
"""Utterances from which an interval may decide. Percentile intervals of few draws are too narrow, by a tenth at 20."""

SHOWN_IDS = 5
"""Utterances that a sentence names; report.json has all."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of the rules.

    Attributes:
        margin: points of WER; the upper end of the interval of WER(candidate) - WER(cpu) must be under it. Half a point
            is what a word error rate of 5 % changes by when one error in ten is new.
        broken_per_thousand: utterances that may be broken, per thousand of the whole set, rounded down. Not 0: greedy
            decoding turns on near-ties, so that any change of arithmetic breaks (and mends) one now and then.
        minimum_utterances: below so many no candidate is deployed. If none of 300 is broken, up to 1 % may be (the rule
            of three: 3 / 300 at 95 %).
        streaming_margin: points of WER that streaming may lose against the same backend on whole recordings, judged as
            `margin` is; where it was not tried, it decides nothing.
        resampling: which interval the rules read: of utterances drawn, or of speakers drawn, which is wider.
    """

    margin: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.5
    broken_per_thousand: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 1.0
    minimum_utterances: Annotated[int, msgspec.Meta(ge=0)] = 300
    streaming_margin: Annotated[float, msgspec.Meta(ge=0, le=100)] = 2.0
    resampling: Literal["utterances", "speakers"] = "utterances"

    def allowed_broken(self, utterances: int) -> int:
        """Broken utterances that are allowed in a whole set of so many."""
        return math.floor(self.broken_per_thousand * utterances / 1000 + 1e-9)


def read_limits(path: Path | None = None, **overrides: Any) -> Limits:
    """Limits from a TOML file of `Limits`' fields where there is one, then from options that are not None.

    Raises:
        app.evaluation.records.EvidenceError: the file cannot be read or is not TOML; a key is unknown, a value has the
            wrong type or is out of range. The text names file and key.
    """
    limits = Limits()
    if path is not None:
        with reading(path):
            data = path.read_bytes()
            try:
                table = tomllib.loads(data.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise EvidenceError(f"{path}: not TOML: {error}") from None
            limits = msgspec.convert(table, Limits)
    given = {name: value for name, value in overrides.items() if value is not None}
    with reading("limits"):
        return msgspec.convert({**msgspec.structs.asdict(limits), **given}, Limits)


@dataclass(frozen=True)
class Candidate:
    """All that is known of a backend that may be deployed.

    Attributes:
        against_rival: its comparison with int8; None where int8 did not run or is the candidate.
        against_batch: streaming's comparison with the candidate on whole recordings; None where it was not tried.
        unheard: utterances whose recording is silent though their reference has words.
        utterances: that it and the cpu both have.
        failed: that failed on either.
    """

    summary: BackendSummary
    against_cpu: Comparison | None
    against_rival: Comparison | None
    against_batch: Comparison | None
    unheard: Sequence[str]
    utterances: int
    failed: int

    @property
    def run(self) -> RunDescription:
        """What ran."""
        return self.summary.run


class Rule(msgspec.Struct, frozen=True):
    """How one rule came out.

    Attributes:
        figure: what was found; None where nothing was.
        limit: what it was held to; None where the rule has no number.
        unit: of both: `points` of WER, `utterances`, or empty.
        passed: None where this evidence does not decide.
        applies: False where the rule is not for this candidate; it then counts for nothing.
        settled_by: about how many utterances would decide an undecided rule; None where that is not known, or where it
            takes something else.
    """

    name: str
    figure: float | None
    limit: float | None
    unit: str
    passed: bool | None
    sentence: str
    applies: bool = True
    settled_by: int | None = None


def kernel_validation(candidate: Candidate, limits: Limits) -> Rule:
    """The kernel computes what its contract says, on the device and with the tile size of the run."""
    run, validation = candidate.run, candidate.summary.validation
    tile_size, passed = run.kernel.get("tile_size"), None
    if validation is None:
        text = f"not done: run `tilescribe validate` for {run.backend}"
    elif not validation.passed:
        passed, text = False, f"failed on the {validation.device}: {validation.detail}"
    elif validation.device != run.device:
        text = f"passed on the {validation.device}, but the run was on the {run.device}: validate there"
    elif None not in (tile_size, validation.tile_size) and tile_size != validation.tile_size:
        text = f"passed with tiles of {validation.tile_size}, but the run had {tile_size}: validate those"
    else:
        passed, text = True, f"passed on the {validation.device}: {validation.detail}"
    return Rule("kernel validation", None, None, "", passed, text)


def against_cpu(candidate: Candidate, limits: Limits) -> Rule:
    """The upper end of the interval of WER(candidate) - WER(cpu) is under the margin.

    It fails where the lower end is above it: then more data of this kind would hardly bring it under.
    """
    return _within_margin(f"WER against {REFERENCE}", candidate.against_cpu, REFERENCE, limits.margin, limits)


def streaming(candidate: Candidate, limits: Limits) -> Rule | None:
    """The same of WER(streamed) - WER(on whole recordings), where recordings were streamed as well."""
    comparison, backend = candidate.against_batch, candidate.run.backend
    if comparison is None:
        return None
    return _within_margin("WER of streaming", comparison, backend, limits.streaming_margin, limits)


def _within_margin(
    name: str, comparison: Comparison | None, baseline: str, margin: float, limits: Limits
) -> Rule:
    passed, needed = None, None
    found = _points(comparison, baseline, limits)
    if isinstance(found, str):
        return Rule(name, None, margin, "points", None, found)
    utterances, difference, low, high, text = found
    if utterances < ENOUGH_FOR_INTERVAL:
        needed = ENOUGH_FOR_INTERVAL
        text += f"; {utterances} utterances are too few to trust it: at least {needed}"
    elif high < margin:
        passed = True
        text += f"; the upper end is under the margin of {margin:g} by {margin - high:.2f}"
    elif low > margin:
        passed = False
        text += f"; even the lower end is over the margin of {margin:g}, by {low - margin:.2f}"
    else:
        half = high - difference if difference < margin else difference - low
        needed = _needed(utterances, half, abs(margin - difference))
        text += f" straddles the margin of {margin:g}"
        if needed is None:
            text += "; it is at the margin itself, where no number of utterances settles it"
    return Rule(name, high, margin, "points", passed, text, settled_by=needed)


def against_rival(candidate: Candidate, limits: Limits) -> Rule:
    """WER(candidate) is no worse than WER(int8).

    By the figures themselves it passes; it fails only where the paired interval is wholly above 0. Worse by less than
    chance makes is undecided: it is no ground for preferring the candidate, nor one against it.
    """
    name, passed, needed = f"WER against {RIVAL}", None, None
    if candidate.run.backend == RIVAL:
        text = f"does not apply: {RIVAL} is the candidate itself"
        return Rule(name, None, 0.0, "points", None, text, applies=False)
    found = _points(candidate.against_rival, RIVAL, limits)
    if isinstance(found, str):
        return Rule(name, None, 0.0, "points", None, found)
    utterances, difference, low, _, text = found
    if difference <= 0:
        passed, text = True, f"{difference:+.2f} points: no worse"
    elif low > 0 and utterances >= ENOUGH_FOR_INTERVAL:
        passed, text = False, f"{text}: worse, by more than chance"
    else:
        needed = max(_needed(utterances, difference - low, difference) or 0, ENOUGH_FOR_INTERVAL)
        text += ": worse, but by no more than chance may make"
    return Rule(name, difference, 0.0, "points", passed, text, settled_by=needed)


def broken_utterances(candidate: Candidate, limits: Limits) -> Rule:
    """No more broken utterances than are allowed for the whole set; their number can only grow with more data."""
    broken, expected, utterances = (
        candidate.summary.broken,
        candidate.run.dataset.expected,
        candidate.utterances,
    )
    allowed = limits.allowed_broken(expected or utterances)
    if broken is None:
        text = "not known: the cpu did not run on them"
        return Rule("broken utterances", None, allowed, "utterances", None, text)
    count = len(broken)
    text = f"{count:,} of {utterances:,} broken that the cpu did not break, {allowed:,} allowed"
    if expected and expected > utterances:
        text += f" in the whole set of {expected:,}"
    if count > allowed:
        text += f": {count - allowed:,} too many"
    return Rule("broken utterances", count, allowed, "utterances", count <= allowed, text)


def audible_recordings(candidate: Candidate, limits: Limits) -> Rule:
    """No recording is silent where its reference has words: by such data no kernel can be judged."""
    unheard = candidate.unheard
    text = unheard_words(unheard) if unheard else "no recording is silent where words are expected"
    return Rule("audible recordings", len(unheard), 0, "utterances", None if unheard else True, text)


def whole_set(candidate: Candidate, limits: Limits) -> Rule:
    """Every utterance of the data set was transcribed, by candidate and cpu."""
    utterances, dataset, passed = candidate.utterances, candidate.run.dataset, None
    expected = dataset.expected
    if expected is None:
        text = f"{utterances:,} utterances, of a set whose size is not known"
    elif utterances == expected:
        passed, text = dataset.complete or None, f"all {expected:,} utterances"
        text += "" if passed else " of a set that is itself not whole"
    else:
        text = f"{utterances:,} of {expected:,} utterances: a part is never deployed on"
        text += f"; {candidate.failed:,} failed" if candidate.failed else ""
    needed = None if passed else expected
    return Rule("whole data set", utterances, expected, "utterances", passed, text, settled_by=needed)


def sample_size(candidate: Candidate, limits: Limits) -> Rule:
    """Enough utterances to see what is rare."""
    utterances, least = candidate.utterances, limits.minimum_utterances
    if utterances >= least:
        text = f"{utterances:,}, at least {least:,}"
        return Rule("sample size", utterances, least, "utterances", True, text)
    text = f"{utterances:,} utterances; at least {least:,} are needed to see what is rare"
    return Rule("sample size", utterances, least, "utterances", None, text, settled_by=least)


RULES: tuple[Callable[[Candidate, Limits], Rule | None], ...] = (
    kernel_validation,
    against_cpu,
    against_rival,
    streaming,
    broken_utterances,
    audible_recordings,
    whole_set,
    sample_size,
)
"""In the order of reports; None is a rule of what was not tried."""


def unheard_words(ids: Sequence[str]) -> str:
    """How many recordings are silent though words are expected, and which."""
    names = ", ".join(ids[:SHOWN_IDS]) + (", ..." if len(ids) > SHOWN_IDS else "")
    those = "recording is silent though its reference has words"
    if len(ids) != 1:
        those = "recordings are silent though their references have words"
    return f"{len(ids):,} {those} ({names}): all of them count as deleted, by every backend"


def _points(
    comparison: Comparison | None, baseline: str, limits: Limits
) -> tuple[int, float, float, float, str] | str:
    """Utterances, difference, low and high end in points, and these in words; or why they are not known."""
    if comparison is None:
        return f"not known: there is no {baseline} run on these utterances; add {baseline} to --backends"
    if comparison.difference is None:
        return "not known: the references have no words"
    by_speaker = limits.resampling == "speakers"
    interval = comparison.speaker_interval if by_speaker else comparison.utterance_interval
    if interval is None:
        return f"not known: drawing {limits.resampling} needs at least two, known for every utterance"
    difference, low, high = (100 * x for x in (comparison.difference, interval.low, interval.high))
    words = f"{difference:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"
    return comparison.utterances, difference, low, high, words


def _needed(utterances: int, half_width: float, distance: float) -> int | None:
    """Utterances whose interval would not reach so far, rounded up to two figures.

    An interval's half width falls with the square root of the number of utterances; the difference is taken to stay.
    """
    if distance <= 1e-9:
        return None
    needed = max(utterances * (half_width / distance) ** 2, 1.0)
    unit = int(10 ** max(math.floor(math.log10(needed)) - 1, 0))
    return math.ceil(needed / unit) * unit
