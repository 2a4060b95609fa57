"""report.md, the evaluation in a page for a pull request, and the few lines that a run prints."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from app.evaluation.evaluation import BackendSummary, Evaluation
from app.evaluation.report.metrics import BACKENDS, COMPARISONS
from app.evaluation.verdict import Rule, Verdict
from app.output import tables
from app.output.tables import Metric

SHOWN_BROKEN = 5
"""Broken utterances that are named for each backend; report.json has all."""
PASSED = {True: "yes", False: "**no**", None: "undecided"}
RULES: tuple[Metric[Rule], ...] = (
    Metric("rule", lambda rule: rule.name),
    Metric("passed", lambda rule: PASSED[rule.passed] if rule.applies else tables.NONE),
    Metric("", lambda rule: _escape(rule.sentence)),
)


def report_markdown(evaluation: Evaluation) -> str:
    """GitHub-flavoured Markdown, ending in a newline."""
    dataset, statistics = evaluation.dataset, evaluation.statistics
    lines = [f"# {_escape(evaluation.backends[0].run.model)} on {_escape(dataset.title)}", ""]
    if not dataset.complete:
        lines += [f"**This is not the {_escape(dataset.name)} WER**: not all of the set was transcribed.", ""]
    for verdict in evaluation.verdicts:
        lines += _verdict(verdict)
    lines += ["## Error rates", "", *tables.markdown(BACKENDS, evaluation.backends), ""]
    lines += _speed_notes(backend for backend in evaluation.backends if backend.speed)
    if evaluation.comparisons:
        lines += ["", "## Differences", "", *tables.markdown(COMPARISONS, evaluation.comparisons)]
    broken = [line for backend in evaluation.backends for line in _broken(backend)]
    lines += ["", "## Broken utterances", "", *broken] if broken else []
    lines += [
        "",
        f"{statistics.normaliser}; intervals: {statistics.interval_method}, {statistics.replications:,} replications, "
        f"seed {statistics.seed}; test: {statistics.test_method}.",
    ]
    lines += ["", *(f"- {_escape(note)}" for note in evaluation.notes)] if evaluation.notes else []
    return "\n".join(lines) + "\n"


def print_summary(evaluation: Evaluation, folder: Path) -> None:
    """What came out, on standard output."""
    print(evaluation.dataset.title)
    print("\n".join(tables.console(BACKENDS, evaluation.backends)))
    for verdict in evaluation.verdicts:
        reasons = "; ".join(verdict.reasons)
        print(f"{verdict.backend:12} {verdict.outcome}{': ' + reasons if reasons else ''}")
    print(f"report: {folder / 'report.html'}")


def _verdict(verdict: Verdict) -> list[str]:
    told = f"{_escape(verdict.device_statement)}. Not measured: {', '.join(verdict.not_measured)}."
    if verdict.settled is not None:
        told += f" {verdict.settled[0].upper()}{verdict.settled[1:]}."
    notes = [f"Note: {_escape(note)}." for note in verdict.notes]
    table = tables.markdown(RULES, verdict.rules)
    return [f"## {verdict.backend}: {verdict.outcome}", "", *table, "", told, *notes, ""]


def _speed_notes(backends: Iterable[BackendSummary]) -> list[str]:
    names: dict[str, list[str]] = {}
    for backend in backends:
        run = backend.run
        where = "the NPU and " if run.device == "npu" else ""
        kind = "" if run.device in ("npu", "cpu") else ": the emulator's time, not an NPU's"
        threads = f", {run.threads} threads" if run.threads else ""
        note = f"on {where}the processor ({_escape(run.processor or 'unknown')}{threads}){kind}"
        names.setdefault(note, []).append(f"`{backend.backend}`")
    return [f"Time / audio of {', '.join(those)} was measured {note}.  " for note, those in names.items()]


def _broken(backend: BackendSummary) -> list[str]:
    broken = backend.broken or ()
    lines = [f"- `{backend.backend}`, {_escape(b.id)}: {_escape(b.detail)}" for b in broken[:SHOWN_BROKEN]]
    rest = len(broken) - SHOWN_BROKEN
    return [*lines, f"- `{backend.backend}`: {rest:,} more in report.json"] if rest > 0 else lines


def _escape(text: str) -> str:
    """Text from outside in one line of Markdown: no table cell, tag or emphasis of its own."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"[\\`*_|\[\]]", r"\\\g<0>", flat)
