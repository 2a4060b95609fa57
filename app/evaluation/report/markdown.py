"""report.md: the evaluation in a page, for a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.evaluation.evaluation import BackendSummary, Evaluation
from app.evaluation.statistics.bootstrap import Interval
from app.evaluation.statistics.mapsswe import MatchedPairs
from app.evaluation.verdict import Verdict

SHOWN_BROKEN = 5
"""Broken utterances that are named for each backend; report.json has all."""


def report_markdown(evaluation: Evaluation) -> str:
    """GitHub-flavoured Markdown, ending in a newline."""
    dataset, statistics = evaluation.dataset, evaluation.statistics
    run = evaluation.backends[0].run
    lines = [f"# {_escape(run.model)} on {_escape(dataset.title)}", ""]
    if not dataset.complete:
        lines += [f"**This is not the {_escape(dataset.name)} WER**: not all of the set was transcribed.", ""]
    for verdict in evaluation.verdicts:
        lines += _verdict(verdict)
    lines += ["## Error rates", ""]
    head = ["", "WER", "95 % interval", "CER", "S / D / I", "utterances", "broken", "time / audio"]
    lines += _table(head, [_rates(backend) for backend in evaluation.backends])
    lines += ["", *_speed_notes([backend for backend in evaluation.backends if backend.speed])]
    if evaluation.comparisons:
        lines += ["", "## Differences, in points of WER", ""]
        head = [
            "",
            "difference",
            "95 % interval",
            "speakers drawn",
            "MAPSSWE",
            "same transcript",
            "better / worse",
        ]
        lines += _table(head, [_comparison(evaluation, i) for i in range(len(evaluation.comparisons))])
    lines += _broken(evaluation.backends)
    lines += [
        "",
        f"{statistics.normaliser}; intervals: {statistics.interval_method}, {statistics.replications:,} replications, "
        f"seed {statistics.seed}; test: {statistics.test_method}.",
    ]
    lines += ["", *(f"- {_escape(note)}" for note in evaluation.notes)] if evaluation.notes else []
    return "\n".join(lines) + "\n"


def _verdict(verdict: Verdict) -> list[str]:
    marks = {True: "yes", False: "**no**", None: "undecided"}
    lines = [f"## {verdict.backend}: {verdict.outcome}", ""]
    rows = [
        [rule.name, marks[rule.passed] if rule.applies else "-", _escape(rule.sentence)]
        for rule in verdict.rules
    ]
    lines += _table(["rule", "passed", ""], rows)
    lines += ["", f"{_escape(verdict.device_statement)}. Not measured: {', '.join(verdict.not_measured)}."]
    if verdict.settled_by is not None:
        lines[-1] += f" About {verdict.settled_by:,} utterances would decide it."
    lines += [f"Note: {_escape(note)}." for note in verdict.notes]
    return [*lines, ""]


def _rates(backend: BackendSummary) -> list[str]:
    rates, speed = backend.rates, backend.speed
    return [
        f"`{backend.backend}`",
        _percent(rates.wer),
        _interval(backend.utterance_interval, "{:.2f}"),
        _percent(rates.cer),
        f"{rates.substitutions:,} / {rates.deletions:,} / {rates.insertions:,}",
        f"{rates.utterances:,}" + (f" ({len(backend.failures):,} failed)" if backend.failures else ""),
        "-" if backend.broken is None else f"{len(backend.broken):,}",
        "not measured" if speed is None else f"{speed.real_time_factor:.3f}",
    ]


def _speed_notes(backends: Iterable[BackendSummary]) -> list[str]:
    names: dict[str, list[str]] = {}
    for backend in backends:
        run = backend.run
        where = "the NPU and" if run.device == "npu" else ""
        kind = "" if run.device in ("npu", "cpu") else ": the emulator's time, not an NPU's"
        threads = f", {run.threads} threads" if run.threads else ""
        note = f"on {where} the processor ({_escape(run.processor or 'unknown')}{threads}){kind}"
        names.setdefault(" ".join(note.split()), []).append(f"`{backend.backend}`")
    return [f"Time / audio of {', '.join(those)} was measured {note}.  " for note, those in names.items()]


def _comparison(evaluation: Evaluation, index: int) -> list[str]:
    comparison = evaluation.comparisons[index]
    same = f"{comparison.identical_normalised:,} of {comparison.utterances:,}"
    return [
        f"`{comparison.backend}` - `{comparison.baseline}`",
        "-" if comparison.difference is None else f"{100 * comparison.difference:+.2f}",
        _interval(comparison.utterance_interval, "{:+.2f}"),
        _interval(comparison.speaker_interval, "{:+.2f}"),
        _test(comparison.mapsswe),
        same,
        f"{comparison.improved:,} / {comparison.worsened:,}",
    ]


def _test(test: MatchedPairs) -> str:
    segments = f"{test.segments:,} segments"
    if test.p is None:
        return f"undefined ({segments})"
    text = "p < 0.001" if test.p < 0.001 else f"p = {test.p:.3f}"
    return f"{text} ({segments}{'' if test.enough else ', too few'})"


def _broken(backends: Iterable[BackendSummary]) -> list[str]:
    lines = []
    for backend in backends:
        for one in (backend.broken or ())[:SHOWN_BROKEN]:
            lines.append(f"- `{backend.backend}`, {_escape(one.id)}: {_escape(one.detail)}")
        rest = len(backend.broken or ()) - SHOWN_BROKEN
        if rest > 0:
            lines.append(f"- `{backend.backend}`: {rest:,} more in report.json")
    return ["", "## Broken utterances", "", *lines] if lines else []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _interval(interval: Interval | None, form: str) -> str:
    if interval is None:
        return "-"
    return f"{form.format(100 * interval.low)} to {form.format(100 * interval.high)}"


def _escape(text: str) -> str:
    """Text from outside in one line of Markdown: no table cell, tag or emphasis of its own."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    for mark in ("\\", "`", "*", "_", "|", "[", "]"):
        flat = flat.replace(mark, "\\" + mark)
    return flat
