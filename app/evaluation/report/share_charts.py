"""Charts of shares and times: transcripts that stay the same, and time over audio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from app.evaluation.report.figures import NONE, count, duration, number, share
from app.evaluation.report.svg import Chart, Scale

Summary = Mapping[str, Any]

ROW = 42


def unchanged_transcripts(comparisons: Sequence[Summary], style: Mapping[str, int]) -> Markup | None:
    """For each backend a bar of the transcripts that equal the cpu's once normalised; a tick where the raw ones do."""
    if not comparisons:
        return None
    said = (
        f"{c['backend']}: {count(c['identical_normalised'])} of {count(c['utterances'])}, "
        f"as printed {count(c['identical_raw'])}"
        for c in comparisons
    )
    chart = Chart("same-chart", "Transcripts that are the same as the cpu's", "; ".join(said) + ".")
    scale = Scale(0, 1, 0, 100)
    for place, c in enumerate(comparisons):
        y, n = ROW * place, c["utterances"]
        chart.text(0, y + 16, c["backend"], "strong")
        words = f"{share(c['identical_normalised'], n)}  {count(c['identical_normalised'])} of {count(n)}"
        chart.text(100, y + 16, words, "value", "end")
        chart.bar(0, 100, y + 24, 9, "track")
        chart.bar(0, scale.at(c["identical_normalised"] / n), y + 24, 9, f"fill s{style[c['backend']]}")
        x = scale.at(c["identical_raw"] / n)
        chart.line(x, y + 22, x, y + 36, "needle")
    chart.height = ROW * len(comparisons) + 2
    return chart.render()


def real_time_factors(backends: Sequence[Summary], style: Mapping[str, int]) -> Markup | None:
    """Time over length of audio, the encoder's part set off by a gap where it is known."""
    rows = [b for b in backends if b["speed"]]
    if not rows:
        return None
    scale = Scale(0, max(b["speed"]["real_time_factor"] for b in rows) or 1.0, 0, 100)
    said = (f"{b['backend']} on the {where(b)}: {number(b['speed']['real_time_factor'], 3)}" for b in rows)
    chart = Chart("speed-chart", "Time over length of audio of each backend", "; ".join(said) + ".")
    for place, b in enumerate(rows):
        y, speed = ROW * place, b["speed"]
        chart.text(0, y + 16, f"{b['backend']}, {where(b)}", "strong")
        chart.text(100, y + 16, number(speed["real_time_factor"], 3), "value", "end")
        chart.bar(0, scale.at(speed["real_time_factor"]), y + 24, 9, f"fill s{style[b['backend']]}")
        if speed["encode_seconds"] is not None:
            x = scale.at(speed["encode_seconds"] / speed["audio_seconds"])
            chart.line(x, y + 22, x, y + 36, "needle")
    chart.height = ROW * len(rows) + 2
    return chart.render()


def settings(backends: Sequence[Summary]) -> list[tuple[str, list[str]]]:
    """What was timed and with what, each with the backends that it holds for."""
    found: dict[str, list[str]] = {}
    for b in backends:
        if b["speed"]:
            run, speed = b["run"], b["speed"]
            parts = [f"{count(speed['utterances'])} utterances, {duration(speed['audio_seconds'])} of audio"]
            parts += [run["processor"]] if run["processor"] else []
            parts += (
                [f"{run['threads']} thread{'s' if run['threads'] != 1 else ''}"] if run["threads"] else []
            )
            found.setdefault(", ".join(parts), []).append(b["backend"])
    return list(found.items())


def where(backend: Summary) -> str:
    """What a backend ran on, as a label of its times: an emulator's are never an NPU's."""
    return {"cpu": "CPU", "emulator": "emulator on the CPU", "npu": "NPU"}.get(
        backend["run"]["device"], backend["run"]["device"] or NONE
    )
