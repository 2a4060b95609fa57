"""Each kernel on the founding report's tile as one SVG: where it errs, how it follows FP32, what INT8 clips.

Colours are ColorBrewer's RdBu and Blues, and Okabe and Ito's blue and orange: all can be told apart by colour-blind
readers. The picture has its own light background, and stands alone: no fonts or scripts are fetched.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.evaluation.validation.text import ran_on
from app.output import tables as t
from app.output.svg import Chart
from kernels.arrays import Doubles
from kernels.backends import find
from kernels.validation import TileResult, Validation

SIDE = 224
GAP = 56
LEFT, TOP = 92, 118
ROW = SIDE + 88
HISTOGRAM = 150
BINS = 50
DIVERGING = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))
SEQUENTIAL = ((255, 255, 255), (158, 202, 225), (66, 146, 198), (8, 48, 107))
CSS = """
text { font: 13px "DejaVu Sans", Verdana, Helvetica, Arial, sans-serif; fill: #222222 }
.paper { fill: #ffffff } .frame { fill: none; stroke: #222222 } .tick { font-size: 12px }
.title { font-size: 18px; font-weight: bold } .kernel { font-size: 15px; font-weight: bold }
.faint { fill: #767676 } .kept { fill: #0072b2 } .clipped { fill: #e69f00 } .clips { fill: #8a5a00 }
.equal { stroke: #e69f00; stroke-width: 1.2; stroke-dasharray: 5 4 } image { image-rendering: pixelated }
"""
ENLARGED = 4
"""Pixels of a cell's side, so that a viewer which smooths pictures leaves the cells their edges."""


def render(validation: Validation) -> str:
    """The SVG, as text. Every kernel is drawn with the documented shift."""
    tiles = [tile for tile in validation.tiles if tile.label == tile.kernel]
    chart = Chart(
        "kernels",
        "Attention kernels on one tile of 64 x 64 random integers, against FP32",
        [f"{tile.kernel}: {_accuracy(tile)}" for tile in tiles],
        width=_left(len(tiles)) + 40,
        css=CSS,
    )
    height = TOP + 2 * ROW + HISTOGRAM + 100
    chart.bar(0, _left(len(tiles)) + 40, 0, height, "paper")
    chart.text(LEFT, 34, chart.title, "title")
    line = f"{ran_on(validation)}; the legacy kernels are emulated. "
    chart.text(LEFT, 56, line + "One tile is no evidence about words.", "faint")
    _error_maps(chart, tiles)
    _scatters(chart, tiles)
    _histograms(chart, tiles)
    return chart.render(height) + "\n"


def _accuracy(tile: TileResult) -> str:
    return f"correlation {t.correlation(tile.accuracy.correlation)}, max error {tile.accuracy.max_error:.2f}"


def _left(i: int) -> int:
    return LEFT + i * (SIDE + GAP)


def _error_maps(chart: Chart, tiles: Sequence[TileResult]) -> None:
    """Rows of Q downwards, channels of V to the right, the signed error as colour on one scale for all."""
    errors = [tile.output - tile.reference for tile in tiles]
    limit = max(10, 10 * math.ceil(max(float(np.abs(e).max()) for e in errors) / 10))
    ticks = ("0", "32", "64")
    for i, (tile, error) in enumerate(zip(tiles, errors, strict=True)):
        x = _left(i)
        chart.text(x, TOP - 26, tile.label, "kernel")
        chart.text(x, TOP - 8, _accuracy(tile))
        _image(chart, x, TOP, _colours(error / (2 * limit) + 0.5, DIVERGING))
        _frame(chart, x, TOP, SIDE, ticks, ticks, "channel of V")
    _upright(chart, LEFT - 46, TOP + SIDE / 2, "row of Q")
    x = _left(len(tiles)) - GAP + 14
    _image(chart, x, TOP, _colours(np.linspace(1, 0, SIDE // 4)[:, None], DIVERGING), width=12)
    chart.bar(x, x + 12, TOP, SIDE, "frame")
    for place, label in enumerate((f"+{limit}", "0", f"-{limit}")):
        chart.text(x + 17, TOP + 5 + place * SIDE / 2, label, "tick")
    _upright(chart, x + 34, TOP + SIDE / 4, "error")


def _scatters(chart: Chart, tiles: Sequence[TileResult]) -> None:
    """Each cell's darkness is the number of outputs there (logarithmic); exact outputs lie on the line."""
    top = TOP + ROW
    limit = max(8, 8 * math.ceil(max(float(np.abs([x.output, x.reference]).max()) for x in tiles) / 8))
    edges = np.linspace(-limit - 0.5, limit + 0.5, 65)
    ticks = (f"-{limit}", "0", f"{limit}")
    for i, tile in enumerate(tiles):
        x = _left(i)
        counts, _, _ = np.histogram2d(tile.output.ravel(), tile.reference.ravel(), bins=[edges, edges])
        shade = np.log1p(counts[::-1]) / math.log1p(float(counts.max()))
        # The least count has to be seen beside none.
        _image(chart, x, top, _colours(np.where(counts[::-1] > 0, 0.25 + 0.75 * shade, 0), SEQUENTIAL))
        chart.line(x, top + SIDE, x + SIDE, top, "equal")
        _frame(chart, x, top, SIDE, ticks, ticks[::-1], "FP32 output")
    _upright(chart, LEFT - 46, top + SIDE / 2, "kernel's output, INT8")
    for line, word in enumerate(("dashed:", "equal")):
        chart.text(_left(len(tiles)) - GAP + 10, top + 14 + 17 * line, word, "tick faint")


def _histograms(chart: Chart, tiles: Sequence[TileResult]) -> None:
    """Scores before INT8 clips them: what is clipped in another colour."""
    top = TOP + 2 * ROW
    extent = max(max(-tile.scores.least, tile.scores.largest) for tile in tiles)
    unit = 10 ** math.floor(math.log10(max(extent, 1)))
    limit = unit * math.ceil(extent / unit)
    edges = np.linspace(-limit, limit, BINS + 1)
    everything = [np.histogram(tile.natural_scores, edges)[0] for tile in tiles]
    highest = max(int(counts.max()) for counts in everything)
    for i, (tile, counts) in enumerate(zip(tiles, everything, strict=True)):
        x, held, scores = _left(i), tile.scores.held, tile.natural_scores
        kept = counts
        if held is not None:
            half_step = (held[1] - held[0]) / 510
            within = (scores > held[0] - half_step) & (scores < held[1] + half_step)
            kept = np.histogram(scores[within], edges)[0]
        for bars, classes in ((counts, "clipped"), (kept, "kept")):
            for j in np.flatnonzero(bars):
                start, height = x + j * SIDE / BINS, HISTOGRAM * bars[j] / highest
                chart.bar(start, start + SIDE / BINS - 0.4, top + HISTOGRAM - height, height, classes)
        across, down = (f"-{limit}", "0", f"{limit}"), (str(highest), "0") if i == 0 else ()
        _frame(chart, x, top, HISTOGRAM, across, down, "score, in units of QKᵀ / 8")
        words, classes = "holds every score", "kept"
        if held is not None:
            words, classes = f"holds {t.span(*held)}, clips {t.share(tile.scores.clipped)}", "clips"
        chart.text(x, top - 10, f"{(find(tile.kernel).scores or '').upper()} {words}", classes)
    _upright(chart, LEFT - 46, top + HISTOGRAM / 2, "scores")
    y = top + HISTOGRAM + 66
    for at, classes, label in ((0, "kept", "held as it is"), (150, "clipped", "clipped by INT8")):
        chart.bar(LEFT + at, LEFT + at + 13, y, 13, classes)
        chart.text(LEFT + at + 19, y + 11, label)


def _frame(
    chart: Chart, x: float, y: float, height: float, across: Sequence[str], down: Sequence[str], below: str
) -> None:
    """A panel's edge, with tick labels at even distances."""
    chart.bar(x, x + SIDE, y, height, "frame")
    for label, part in zip(across, np.linspace(0, 1, len(across)), strict=True):
        chart.text(x + part * SIDE, y + height + 18, label, "tick", "middle")
    for label, part in zip(down, np.linspace(0, 1, len(down)), strict=True):
        chart.text(x - 6, y + part * height + 4, label, "tick", "end")
    chart.text(x + SIDE / 2, y + height + 38, below, "", "middle")


def _upright(chart: Chart, x: float, y: float, text: str) -> None:
    chart.add("text", text, transform=f"translate({x:g} {y:g}) rotate(-90)", text_anchor="middle")


def _image(chart: Chart, x: float, y: float, rgb: npt.NDArray[np.uint8], width: float = SIDE) -> None:
    """Coloured cells as a PNG: thousands of rectangles would weigh far more."""
    uri = "data:image/png;base64," + base64.b64encode(png(rgb)).decode()
    chart.add("image", x=x, y=y, width=width, height=SIDE, preserveAspectRatio="none", href=uri)


def _colours(parts: Doubles, palette: Sequence[tuple[int, int, int]]) -> npt.NDArray[np.uint8]:
    """Shares of 0..1 to colours between those of the palette: (rows, columns, 3)."""
    stops = np.linspace(0, 1, len(palette))
    channels = [np.interp(parts, stops, [colour[i] for colour in palette]) for i in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def png(rgb: npt.NDArray[np.uint8]) -> bytes:
    """A PNG of coloured cells: uint8, shape (rows, columns, 3), the first row on top."""
    pixels = rgb.repeat(ENLARGED, 0).repeat(ENLARGED, 1)
    height, width, _ = pixels.shape
    lines = np.pad(pixels.reshape(height, -1), ((0, 0), (1, 0)))  # each line begins with 0: without a filter
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    body = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)
