"""DEPLOY, HOLD or INCONCLUSIVE for a candidate backend: what follows from the rules, and in which words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from app.evaluation.records import RunDescription
from app.evaluation.rules import RULES, Candidate, Limits, Rule
from app.evaluation.summaries import Comparison
from kernels.backends import find

Outcome = Literal["DEPLOY", "HOLD", "INCONCLUSIVE"]

EXIT_CODES: dict[Outcome, int] = {"DEPLOY": 0, "HOLD": 3, "INCONCLUSIVE": 4}
"""Of a command that is a gate."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the evidence says of a candidate.

    Attributes:
        outcome: HOLD if a rule failed, else INCONCLUSIVE if one is undecided, else DEPLOY.
        rules: those that do not apply among them.
        reasons: of a HOLD the rules that failed, of an INCONCLUSIVE those undecided, in words; empty for DEPLOY.
        settled_by: of an INCONCLUSIVE: utterances that would decide all its rules; None where that is not known, or
            where it takes something else (a validation, a cpu run).
        settled: the same in words, whatever it takes; None unless INCONCLUSIVE. The rules' own figures are each of one
            rule.
        device_statement: what the device means for accuracy, latency and energy.
        notes: what does not change the outcome but whoever deploys should know.
        exit_code: of a gate.
    """

    backend: str
    outcome: Outcome
    rules: tuple[Rule, ...]
    reasons: tuple[str, ...]
    settled_by: int | None
    settled: str | None
    device: str
    device_statement: str
    not_measured: tuple[str, ...]
    notes: tuple[str, ...]
    exit_code: int


def judge(candidate: Candidate, limits: Limits) -> Verdict:
    """Apply the rules to one candidate."""
    applied = tuple(found for rule in RULES if (found := rule(candidate, limits)))
    failing = [rule for rule in applied if rule.applies and rule.passed is False]
    undecided = [rule for rule in applied if rule.applies and rule.passed is None]
    outcome: Outcome = "HOLD" if failing else "INCONCLUSIVE" if undecided else "DEPLOY"
    settled_by, settled = None, None
    if outcome == "INCONCLUSIVE":
        settled_by, settled = _settled(undecided, candidate.run.dataset.expected)
    statement, missing = _device(candidate.run, candidate.summary.speed is not None)
    return Verdict(
        backend=candidate.run.backend,
        outcome=outcome,
        rules=applied,
        reasons=tuple(f"{rule.name}: {rule.sentence}" for rule in failing or undecided),
        settled_by=settled_by,
        settled=settled,
        device=candidate.run.device,
        device_statement=statement,
        not_measured=missing,
        notes=_notes(candidate.against_cpu, limits),
        exit_code=EXIT_CODES[outcome],
    )


def _settled(undecided: Sequence[Rule], expected: int | None) -> tuple[int | None, str]:
    """Of all undecided rules together: the rule that needs most utterances says how many."""
    other = [rule.name for rule in undecided if rule.settled_by is None]
    if other:
        return None, f"more utterances alone do not decide it: {', '.join(other)}"
    most = max(undecided, key=lambda rule: rule.settled_by or 0)
    needed = most.settled_by or 0
    if needed == expected:
        return needed, f"the whole data set, {needed:,} utterances, would decide it"
    text = f"about {needed:,} utterances like these would decide it ({most.name})"
    return needed, f"{text}, more than the set's {expected:,}" if expected and needed > expected else text


def _device(run: RunDescription, timed: bool) -> tuple[str, tuple[str, ...]]:
    """What the device means, in words, and what nobody measured."""
    missing: tuple[str, ...] = ("latency on the NPU", "energy")
    if run.device == "npu":
        speed = "so is its latency" if timed else "its latency was not measured"
        text = f"ran on the NPU: the accuracy is the device's, and {speed}; energy was not"
        missing = missing[1:] if timed else missing
    elif find(run.backend).legacy:
        text = "exists as an emulation on the CPU alone: its arithmetic was measured, no device's latency or energy"
    else:
        where = "emulator on the CPU" if run.device == "emulator" else run.device
        text = (
            f"ran on the {where}, not on an NPU: a device that keeps to the kernel's contract gives the same bits, so "
            "the accuracy carries over; latency and energy do not, and were not measured on an NPU"
        )
    return f"{run.backend} {text}", missing


def _notes(comparison: Comparison | None, limits: Limits) -> tuple[str, ...]:
    if comparison is None or comparison.utterance_interval is None:
        return ()
    notes = []
    by_utterance, by_speaker = comparison.utterance_interval.high, comparison.speaker_interval
    if by_speaker and (100 * by_utterance < limits.margin) != (100 * by_speaker.high < limits.margin):
        notes.append(
            f"the upper end is {100 * by_utterance:+.2f} points with utterances drawn and "
            f"{100 * by_speaker.high:+.2f} with speakers drawn, on either side of the margin; the rule reads "
            f"{limits.resampling}"
        )
    if comparison.utterance_interval.low > 0 and 100 * by_utterance < limits.margin:
        notes.append("worse than cpu by more than chance, though within the margin")
    return tuple(notes)
