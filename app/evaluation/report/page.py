"""From an evaluation to its pages: report.html, and report.md for a pull request."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from app.evaluation.evaluation import Evaluation
from app.evaluation.report import charts, layers, metrics, transcripts
from app.evaluation.report.strips import Strips
from app.output import tables as t
from app.output.page import house_style
from app.output.svg import legend_mark
from kernels.backends import find


def render_page(
    evaluation: Evaluation,
    *,
    extras: Mapping[str, Any] | None = None,
    audio: Mapping[str, str] | None = None,
    strips: Strips | None = None,
) -> str:
    """The report as one HTML page that needs nothing else: no network, no other file, no script for what it says.

    The same input gives the same page, byte for byte.

    Args:
        evaluation: what it is computed from.
        extras: what else was measured, all of it optional; sections without data say so or are left out:

            validation: a list of `kernels.validation.TileResult.to_dict()`.
            encoder_error: by backend `models.capture.layer_errors`: layer by layer, last the encoder's states.
            score_ranges: a list of `models.capture.LayerResult.to_dict()`.
            latency: what `tilescribe bench --json` wrote: its measurements, cost model and energy.
            notes: by any of these names a sentence on how it was measured.
        audio: by utterance a path relative to the page, or a URL, of its recording. Nothing is embedded.
        strips: pages beside this one, of utterances that were broken.

    Raises:
        kernels.backends.UnknownBackendError: the evaluation has a backend that there is not.
    """
    extras, backends, differing = extras or {}, evaluation.backends, evaluation.differing
    strips = strips or Strips()
    links = {key: transcripts.audio_url(path) for key, path in (audio or {}).items()}
    names = [b.backend for b in backends]
    bench, errors = extras.get("latency") or {}, extras.get("encoder_error") or {}
    ranges: dict[str, list[Mapping[str, Any]]] = {}
    for layer in sorted(extras.get("score_ranges") or (), key=lambda row: row["layer"]):
        ranges.setdefault(layer["kernel"], []).append(layer)
    settings: dict[str, list[str]] = {}
    for b in backends:
        if b.speed:
            length, threads = t.duration(b.speed.audio_seconds), b.run.threads
            parts = [f"{t.count(b.speed.utterances)} utterances, {length} of audio", b.run.processor]
            parts += [f"{threads} thread{'s' if threads != 1 else ''}"] if threads else []
            settings.setdefault(", ".join(filter(None, parts)), []).append(b.backend)
    first = transcripts.ordered(differing)[: transcripts.WITHOUT_SCRIPT]
    script = _text("script.js")
    context = {
        "evaluation": evaluation,
        "backends": backends,
        "names": names,
        "candidates": [
            (v, evaluation.backend(v.backend), evaluation.comparison(v.backend)) for v in evaluation.verdicts
        ],
        "bench": bench,
        "notes": extras.get("notes") or {},
        "audio": links,
        "strips": strips,
        "settings": settings,
        "cpu": [
            f"{b.backend} {t.number(b.speed.cpu_per_minute, 1)}"
            for b in backends
            if b.speed and b.speed.cpu_per_minute is not None
        ],
        "encoder_error": errors,
        "score_ranges": ranges,
        "tables": metrics.tables(evaluation, extras.get("validation") or (), errors, bench),
        "charts": charts.draw(evaluation, errors, ranges),
        "first_few": [(utterance, transcripts.lay_out(utterance.transcripts)) for utterance in first],
        "json": transcripts.as_json(differing, names, links, strips.paths),
        "styles": Markup(house_style() + _text("styles.css")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    page = _environment().get_template("page.html.j2").render(context)
    # Half of a surrogate pair is no text that a file could hold.
    return page.encode("utf-8", "replace").decode("utf-8")


def render_markdown(evaluation: Evaluation) -> str:
    """GitHub-flavoured Markdown, ending in a newline."""
    measured: dict[str, list[str]] = {}
    for b in evaluation.backends:
        if b.speed:
            where = "the NPU and " if b.run.device == "npu" else ""
            kind = "" if b.run.device in ("npu", "cpu") else ": the emulator's time, not an NPU's"
            threads = f", {b.run.threads} threads" if b.run.threads else ""
            processor = metrics.line(b.run.processor or "unknown")
            note = f"on {where}the processor ({processor}{threads}){kind}"
            measured.setdefault(note, []).append(f"`{b.backend}`")
    return _environment().get_template("report.md.j2").render(evaluation=evaluation, measured=measured)


def _text(name: str) -> str:
    return files("app.evaluation.report").joinpath(name).read_text(encoding="utf-8")


def _typeset(write: Callable[..., str], *arguments: Any) -> str:
    return t.typeset(write(*arguments))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("app.evaluation.report"),
        autoescape=lambda name: name != "report.md.j2",
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for write in (t.short, t.count, t.percent, t.points, metrics.points_interval, t.share, t.duration):
        environment.globals[write.__name__] = partial(_typeset, write)
    environment.globals |= {
        "plain": metrics.plain,
        "typeset": t.typeset,
        "mark": lambda name, hollow=False: legend_mark(layers.style(name), hollow),
        "legacy": lambda name: find(name).legacy,
        "markdown": lambda of, rows: "\n".join(t.markdown(getattr(metrics, of), rows)),
    }
    environment.filters["line"] = metrics.line
    return environment
