"""From an evaluation to the page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from app.evaluation.evaluation import BackendSummary, Evaluation
from app.evaluation.report import charts, encoder_charts, metrics, transcripts
from app.output import tables as t
from app.output.svg import legend_mark
from kernels.backends import find

SHOWN_BROKEN = 8
"""Broken utterances that are named for each backend; the list of differing utterances has all."""


def render_page(
    evaluation: Evaluation, *, extras: Mapping[str, Any] | None = None, audio: Mapping[str, str] | None = None
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

    Raises:
        kernels.backends.UnknownBackendError: the evaluation has a backend that there is not.
    """
    links = {key: transcripts.audio_url(path) for key, path in (audio or {}).items()}
    page = _environment().get_template("page.html.j2").render(_context(evaluation, extras or {}, links))
    # Half of a surrogate pair is no text that a file could hold.
    return page.encode("utf-8", "replace").decode("utf-8")


def _context(evaluation: Evaluation, extras: Mapping[str, Any], audio: Mapping[str, str]) -> dict[str, Any]:
    backends, differing = evaluation.backends, evaluation.differing
    names = [b.backend for b in backends]
    bench, errors = extras.get("latency") or {}, extras.get("encoder_error") or {}
    ranges: dict[str, list[Mapping[str, Any]]] = {}
    for layer in sorted(extras.get("score_ranges") or (), key=lambda row: row["layer"]):
        ranges.setdefault(layer["kernel"], []).append(layer)
    first = transcripts.ordered(differing)[: transcripts.WITHOUT_SCRIPT]
    script = _text("script.js")
    return {
        "evaluation": evaluation,
        "backends": backends,
        "names": names,
        "candidates": [
            (v, evaluation.backend(v.backend), evaluation.comparison(v.backend)) for v in evaluation.verdicts
        ],
        "bench": bench,
        "notes": extras.get("notes") or {},
        "audio": audio,
        "shown_broken": SHOWN_BROKEN,
        "settings": _settings(backends),
        "encoder_error": errors,
        "score_ranges": ranges,
        "tables": metrics.tables(evaluation, extras.get("validation") or (), errors, bench),
        "charts": {
            **charts.draw(evaluation),
            "layers": encoder_charts.encoder_error(errors),
            "scores": encoder_charts.score_ranges(ranges),
        },
        "first_few": [(utterance, transcripts.lay_out(utterance.transcripts)) for utterance in first],
        "json": transcripts.as_json(differing, names, audio),
        "styles": Markup(_text("styles.css")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def _settings(backends: tuple[BackendSummary, ...]) -> dict[str, list[str]]:
    """What was timed and with what, each with the backends that it holds for."""
    found: dict[str, list[str]] = {}
    for b in backends:
        if b.speed:
            audio, threads = t.duration(b.speed.audio_seconds), b.run.threads
            parts = [f"{t.count(b.speed.utterances)} utterances, {audio} of audio", b.run.processor]
            parts += [f"{threads} thread{'s' if threads != 1 else ''}"] if threads else []
            found.setdefault(", ".join(filter(None, parts)), []).append(b.backend)
    return found


def _text(name: str) -> str:
    return files("app.evaluation.report").joinpath(name).read_text(encoding="utf-8")


def _typeset(write: Callable[..., str], *arguments: Any) -> str:
    return t.typeset(write(*arguments))


def _mark(name: str, hollow: bool = False) -> Markup:
    return legend_mark(charts.style(name), hollow)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("app.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for write in (t.short, t.count, t.percent, t.points, t.points_interval, t.share, t.duration):
        environment.globals[write.__name__] = partial(_typeset, write)
    environment.globals |= {
        "plain": metrics.plain,
        "typeset": t.typeset,
        "mark": _mark,
        "legacy": lambda name: find(name).legacy,
    }
    return environment
