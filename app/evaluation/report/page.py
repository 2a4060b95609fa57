"""From an evaluation to the page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from app.evaluation.errors import EvidenceError
from app.evaluation.evaluation import SCHEMA_VERSION, Evaluation
from app.evaluation.report import figures, layer_charts, rate_charts, share_charts, svg, utterances
from app.evaluation.report.extras import Extras, read_extras

REFERENCE = "cpu"
SHOWN_BROKEN = 8
"""Broken utterances that are named for each backend; the list of differing utterances has all."""


def render_page(
    evaluation: Evaluation | Mapping[str, Any],
    *,
    extras: Mapping[str, Any] | None = None,
    audio: Mapping[str, str] | None = None,
) -> str:
    """The report as one HTML page that needs nothing else: no network, no other file, no script for what it says.

    The same input gives the same page, byte for byte.

    Args:
        evaluation: or its `to_dict()`, which report.json holds.
        extras: what else was measured; see `app.evaluation.report.extras`. Sections without data say
            so or are left out.
        audio: by utterance a path relative to the page, or a URL, of its recording. Nothing is embedded.

    Raises:
        EvidenceError: the mapping is not of this version's report.json.
    """
    data = evaluation.to_dict() if isinstance(evaluation, Evaluation) else evaluation
    if data.get("schema_version") != SCHEMA_VERSION:
        found = data.get("schema_version")
        raise EvidenceError(f"report: schema_version is {found!r}, this version reads {SCHEMA_VERSION}")
    links = {key: utterances.audio_url(path) for key, path in (audio or {}).items()}
    page = _environment().get_template("page.html.j2").render(_context(data, read_extras(extras), links))
    # Half of a surrogate pair is no text that a file could hold.
    return page.encode("utf-8", "replace").decode("utf-8")


def _context(data: Mapping[str, Any], extras: Extras, audio: Mapping[str, str]) -> dict[str, Any]:
    backends: Sequence[Mapping[str, Any]] = data["backends"]
    names = [b["backend"] for b in backends]
    measured = [*(extras.encoder_error or {}), *(extras.score_ranges or {})]
    style = svg.styles([*names, *(name for name in dict.fromkeys(measured) if name not in names)])
    against_cpu = [c for c in data["comparisons"] if c["baseline"] == REFERENCE]
    script = _text("script.js")
    return {
        **data,
        "names": names,
        "style": style,
        "candidates": [_candidate(verdict, data) for verdict in data["verdicts"]],
        "extras": extras,
        "audio": audio,
        "shown_broken": SHOWN_BROKEN,
        "settings": share_charts.settings(backends),
        "groups": {key: _groups(backends, key) for key in ("by_length", "by_speaker")},
        "charts": {
            "wer": rate_charts.word_error_rates(backends, style),
            "difference": rate_charts.differences(against_cpu, data["limits"]["margin"], style),
            "kinds": rate_charts.kinds_of_error(backends, style),
            "speakers": rate_charts.by_group(
                "speakers-chart", "Word error rate by speaker", backends, "by_speaker", style, sort=True
            ),
            "lengths": rate_charts.by_group(
                "lengths-chart",
                "Word error rate by length of audio",
                backends,
                "by_length",
                style,
                sort=False,
            ),
            "same": share_charts.unchanged_transcripts(against_cpu, style),
            "speed": share_charts.real_time_factors(backends, style),
            "layers": layer_charts.encoder_error(extras.encoder_error or {}, style),
            "scores": layer_charts.score_ranges(extras.score_ranges or {}),
        },
        "first_few": utterances.first_few(data["differing"]),
        "json": utterances.as_json(data["differing"], names, audio),
        "styles": Markup(_text("styles.css")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def _candidate(verdict: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict with the backend's own figures."""
    name = verdict["backend"]
    return {
        "verdict": verdict,
        "summary": next(b for b in data["backends"] if b["backend"] == name),
        "comparison": next(
            (c for c in data["comparisons"] if (c["backend"], c["baseline"]) == (name, REFERENCE)), None
        ),
        "old": name.startswith("legacy-"),
    }


def _groups(backends: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    """A table's rows: a speaker or a class of length, and each backend's rate."""
    names = dict.fromkeys(group for b in backends for group in b[key])
    rows = []
    for name in names:
        rates = [b[key].get(name) for b in backends]
        known = next(rate for rate in rates if rate)
        wers = [rate["wer"] if rate else None for rate in rates]
        rows.append({"name": name, "utterances": known["utterances"], "words": known["words"], "wers": wers})
    return rows


def _text(name: str) -> str:
    return files("app.evaluation.report").joinpath(name).read_text(encoding="utf-8")


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
    for function in (
        figures.number, figures.short, figures.count, figures.percent, figures.points, figures.percent_interval,
        figures.points_interval, figures.share, figures.probability, figures.duration, figures.plain,
        svg.mark, share_charts.where,
    ):  # fmt: skip
        environment.globals[function.__name__] = function
    return environment
