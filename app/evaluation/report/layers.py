"""The page's charts of the encoder, layer by layer: each kernel's error, and the scores that it holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from app.output import tables as t
from app.output.svg import MARKS, Chart, Scale
from kernels.backends import find

Layer = Mapping[str, Any]

LEFT = 13.0
"""Percent of the width that the labels of the layers and of the vertical axis take."""


def style(name: str) -> int:
    """The number of a backend's mark and colour: the same on every page. Raises `UnknownBackendError`."""
    return find(name).position % len(MARKS)


def encoder_error(errors: Mapping[str, Sequence[float]]) -> Markup | None:
    """Relative error of what each layer yields, on a logarithmic scale.

    Args:
        errors: by backend, fractions: one for each layer, and last that of the encoder's states.
    """
    known = {b: values for b, values in errors.items() if any(v and v > 0 for v in values)}
    if not known:
        return None
    found = [v for values in known.values() for v in values if v and v > 0]
    low = math.floor(math.log10(min(found)))
    high = max(math.log10(max(found)) + 0.05, low + 1.0)
    top, bottom = 10.0, 10.0 + max(60 * (high - low), 150)
    steps = max(len(values) for values in known.values())
    xs = Scale(0, max(steps - 1, 1), LEFT + 2, 97)

    def y(value: float) -> float:
        return bottom - (math.log10(value) - low) / (high - low) * (bottom - top)

    chart = Chart("layers-chart", "Relative error of the encoder after each layer")
    for power in range(low, math.floor(high) + 1):
        height = y(10.0**power)
        chart.line(LEFT, height, 100, height, "hair")
        chart.text(0, height + 4, f"{100 * 10.0**power:g} %", "tick")
    every = max(1, math.ceil(steps / 9))
    for place in range(steps):
        last = place == steps - 1
        if last or (place % every == 0 and steps - 1 - place >= every):
            label = "out" if last and steps > 1 else str(place + 1)
            chart.text(xs.at(place), bottom + 20, label, "tick", "middle")
    for backend, values in known.items():
        chart.said.append(f"{backend}: {', '.join(map(t.percent, values))}")
        points = {k: (xs.at(k), y(v)) for k, v in enumerate(values) if v and v > 0}
        for start, end in pairwise(points.values()):
            chart.line(*start, *end, f"thin s{style(backend)}")
        for place, (x, height) in points.items():
            chart.mark(x, height, style(backend), f"{backend}, layer {place + 1}: {t.percent(values[place])}")
    return chart.render(bottom + 28)


def score_ranges(kernels: Mapping[str, Sequence[Layer]]) -> dict[str, Markup]:
    """For each kernel and layer a line for each head, from its least score to its largest, over what INT8 holds.

    Args:
        kernels: by name, its layers as `models.capture.LayerResult.to_dict` gives them. All charts have one scale.
    """
    measured = {k: [layer for layer in layers if layer.get("heads")] for k, layers in kernels.items()}
    scores = [h["scores"] for layers in measured.values() for layer in layers for h in layer["heads"]]
    ends = [0.0, *(s["least"] for s in scores), *(s["largest"] for s in scores)]
    ends += [end for s in scores for end in s.get("held") or ()]
    pad = 0.04 * (max(ends) - min(ends)) or 1.0
    scale = Scale(min(ends) - pad, max(ends) + pad, LEFT, 84)
    return {kernel: _ranges(kernel, layers, scale) for kernel, layers in measured.items() if layers}


def _ranges(kernel: str, rows: Sequence[Layer], scale: Scale) -> Markup:
    title = f"Range of the attention scores by layer and head, and what {kernel} holds"
    chart = Chart(f"scores-chart-{kernel}", title)
    scores = [[head["scores"] for head in layer["heads"]] for layer in rows]
    heights = [max(3.0 * len(heads) + 9, 20) for heads in scores]
    top = 22.0
    bottom = top + sum(heights)
    if held := [one["held"] for heads in scores for one in heads if one.get("held")]:
        # What the worst head holds, which may be narrower than a pixel.
        least, largest = max(low for low, _ in held), min(high for _, high in held)
        x1, x2 = scale.at(least), scale.at(largest)
        chart.bar(x1, max(x2, x1 + 0.5), top, bottom - top, "held")
        words = t.typeset(f"holds {t.short(least)} to {t.short(largest)}")
        chart.text((x1 + x2) / 2, 14, words, "tick", "middle")
    chart.text(0, 14, "layer", "tick")
    chart.text(100, 14, "clipped", "tick", "end")
    chart.axis(scale, [(top, bottom)], bottom, [t.typeset(t.short(x)) for x in scale.ticks(5)], 5)
    y = top
    for layer, heads, height in zip(rows, scores, heights, strict=True):
        number, clipped, middle = layer["layer"] + 1, layer["clipped"], y + height / 2
        ends = min(one["least"] for one in heads), max(one["largest"] for one in heads)
        chart.said.append(f"layer {number}: {t.span(*ends, 1)}, clipped {t.percent(clipped, 3)}")
        chart.text(0, middle + 4, str(number), "tick")
        share = "none" if clipped == 0 else t.typeset(t.percent(clipped))
        if clipped and clipped < 0.0001:
            share = "< 0.01 %"
        chart.text(100, middle + 4, share, "value", "end")
        for place, one in enumerate(heads):
            line = middle + 3 * (place - (len(heads) - 1) / 2)
            classes = "score clips" if one.get("clipped") else "score"
            chart.line(scale.at(one["least"]), line, scale.at(one["largest"]), line, classes)
        y += height
    return chart.render(bottom + 24)
