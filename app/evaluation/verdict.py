"""DEPLOY, HOLD or INCONCLUSIVE for a candidate backend, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from app.evaluation import rules
from app.evaluation.comparing import Comparison
from app.evaluation.limits import Limits
from app.evaluation.records import RunDescription
from app.evaluation.rules import Rule
from app.evaluation.validation import KernelValidation

Outcome = Literal["DEPLOY", "HOLD", "INCONCLUSIVE"]

EXIT_CODES: dict[Outcome, int] = {"DEPLOY": 0, "HOLD": 3, "INCONCLUSIVE": 4}
"""Of a command that is a gate."""


@dataclass(frozen=True)
class Verdict:
    """What the evidence says of a candidate.

    Attributes:
        backend: the candidate.
        outcome: HOLD if a rule failed, else INCONCLUSIVE if one is undecided, else DEPLOY.
        rules: how each came out, those that do not apply among them.
        reasons: of a HOLD the rules that failed, of an INCONCLUSIVE those undecided, in words; empty for DEPLOY.
        settled_by: of an INCONCLUSIVE: utterances that would decide all its rules; None where that is not known, or
            where it takes something else (a validation, a cpu run).
        device: where the candidate ran.
        device_statement: what that means for accuracy, latency and energy.
        not_measured: what nobody measured.
        notes: what does not change the outcome but whoever deploys should know.
    """

    backend: str
    outcome: Outcome
    rules: tuple[Rule, ...]
    reasons: tuple[str, ...]
    settled_by: int | None
    device: str
    device_statement: str
    not_measured: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 for DEPLOY, 3 for HOLD, 4 for INCONCLUSIVE."""
        return EXIT_CODES[self.outcome]


def judge(
    run: RunDescription,
    against_cpu: Comparison | None,
    against_int8: Comparison | None,
    *,
    broken: int | None,
    utterances: int,
    failed: int,
    limits: Limits,
    validation: KernelValidation | None = None,
    timed: bool = False,
) -> Verdict:
    """Apply the rules to one candidate.

    Args:
        run: the candidate's.
        against_cpu: on the utterances that both have.
        against_int8: the same with int8; None where int8 did not run or is the candidate.
        broken: utterances that the candidate broke and the cpu did not; None without a cpu run.
        utterances: that the candidate and the cpu both have.
        failed: that failed on either.
        limits: what to hold it to.
        validation: of the candidate's kernel.
        timed: whether the run has times.
    """
    expected = run.dataset.expected
    applied = (
        rules.kernel_validation(run, validation),
        rules.against_cpu(against_cpu, limits, expected),
        rules.against_int8(run.backend, against_int8, limits, expected),
        rules.broken_utterances(broken, limits, expected, utterances),
        rules.whole_set(utterances, failed, expected, run.dataset.complete),
        rules.sample_size(utterances, limits),
    )
    counting = [rule for rule in applied if rule.applies]
    failing = [rule for rule in counting if rule.passed is False]
    undecided = [rule for rule in counting if rule.passed is None]
    outcome: Outcome = "HOLD" if failing else "INCONCLUSIVE" if undecided else "DEPLOY"
    statement, missing = _device(run, timed)
    return Verdict(
        run.backend,
        outcome,
        applied,
        tuple(f"{rule.name}: {rule.sentence}" for rule in failing or undecided),
        _settled_by(undecided) if outcome == "INCONCLUSIVE" else None,
        run.device,
        statement,
        missing,
        _notes(against_cpu, limits),
    )


def gate_exit_code(verdicts: Iterable[Verdict], candidates: Sequence[str] | None = None) -> int:
    """The exit code of a gate over some candidates (all unless named): HOLD before INCONCLUSIVE before DEPLOY.

    Raises:
        ValueError: there is no verdict on a candidate, or none at all.
    """
    outcomes = {verdict.backend: verdict.outcome for verdict in verdicts}
    chosen = list(outcomes) if candidates is None else list(candidates)
    unknown = [name for name in chosen if name not in outcomes]
    if unknown or not chosen:
        raise ValueError(f"no verdict on {', '.join(unknown) or 'any backend'}")
    order: tuple[Outcome, ...] = ("HOLD", "INCONCLUSIVE", "DEPLOY")
    return EXIT_CODES[min((outcomes[name] for name in chosen), key=order.index)]


def _settled_by(undecided: Sequence[Rule]) -> int | None:
    numbers = [rule.settled_by for rule in undecided]
    known = [number for number in numbers if number is not None]
    return max(known) if known and len(known) == len(numbers) else None


def _device(run: RunDescription, timed: bool) -> tuple[str, tuple[str, ...]]:
    if run.device == "npu":
        missing = ("energy",) if timed else ("latency on the NPU", "energy")
        speed = "so is its latency" if timed else "its latency was not measured"
        return (
            f"{run.backend} ran on the NPU: the accuracy is the device's, and {speed}; energy was not",
            missing,
        )
    if run.backend.startswith("legacy-"):
        return (
            f"{run.backend} exists as an emulation on the CPU alone: its arithmetic was measured, no device's latency "
            "or energy"
        ), ("latency on the NPU", "energy")
    where = "emulator on the CPU" if run.device == "emulator" else run.device
    return (
        f"{run.backend} ran on the {where}, not on an NPU: a device that keeps to the kernel's contract gives the same "
        "bits, so the accuracy carries over; latency and energy do not, and were not measured on an NPU"
    ), ("latency on the NPU", "energy")


def _notes(comparison: Comparison | None, limits: Limits) -> tuple[str, ...]:
    if comparison is None or comparison.utterance_interval is None:
        return ()
    notes = []
    by_utterance, by_speaker = comparison.utterance_interval.high, None
    if comparison.speaker_interval is not None:
        by_speaker = comparison.speaker_interval.high
    if by_speaker is not None and (100 * by_utterance < limits.margin) != (100 * by_speaker < limits.margin):
        notes.append(
            f"the upper end is {100 * by_utterance:+.2f} points with utterances drawn and {100 * by_speaker:+.2f} with "
            f"speakers drawn, on either side of the margin; the rule reads {limits.resampling}"
        )
    if by_utterance > 0 and comparison.utterance_interval.low > 0 and 100 * by_utterance < limits.margin:
        notes.append("worse than cpu by more than chance, though within the margin")
    return tuple(notes)
