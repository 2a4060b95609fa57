"""Each kernel on the report's tile, side by side, as one SVG: where it errs, how it follows FP32, what INT8 clips.

Colours are ColorBrewer's RdBu and Blues, and Okabe and Ito's blue and orange: all can be told apart by colour-blind
readers. The picture has its own light background, and stands alone: no fonts or scripts are fetched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from app.evaluation.validate.png import data_uri
from app.evaluation.validate.text import correlation, percent, where

if TYPE_CHECKING:
    from kernels.validation import TileResult, Validation

_SIDE = 224
_GAP = 56
_LEFT, _TOP = 92, 118
_ROW = _SIDE + 88
_HISTOGRAM = 150
_BINS = 50
_INK, _FAINT = "#222222", "#767676"
_KEPT, _CLIPPED = "#0072b2", "#e69f00"
_DIVERGING = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))
_SEQUENTIAL = ((255, 255, 255), (158, 202, 225), (66, 146, 198), (8, 48, 107))

Array = npt.NDArray[np.float64]


def render(validation: Validation) -> str:
    """The SVG, as text. Every kernel is drawn with the documented shift."""
    tiles = [tile for tile in validation.tiles if tile.label == tile.kernel]
    width = _LEFT + len(tiles) * (_SIDE + _GAP) + 40
    height = _TOP + 2 * _ROW + _HISTOGRAM + 100
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" '
            f'font-family="DejaVu Sans, Verdana, Helvetica, Arial, sans-serif" font-size="13" fill="{_INK}">',
            "<title>Attention kernels on one tile of random integers, against FP32</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *_heading(validation, width),
            *_error_maps(tiles),
            *_scatters(tiles),
            *_histograms(tiles),
            "</svg>",
            "",
        ]
    )


def _heading(validation: Validation, width: int) -> Iterator[str]:
    yield _text(
        _LEFT,
        34,
        "Attention kernels on one tile of 64 x 64 random integers, against FP32",
        size=18,
        bold=True,
    )
    line = f"int32 and int8 on {where(validation)}; the legacy kernels are emulated. "
    line += "One tile is no evidence about words."
    yield _text(_LEFT, 56, line, colour=_FAINT)


def _left(i: int) -> int:
    return _LEFT + i * (_SIDE + _GAP)


def _error_maps(tiles: Sequence[TileResult]) -> Iterator[str]:
    """Rows of Q downwards, channels of V to the right, the signed error as colour on one scale for all."""
    errors = [tile.output - tile.reference for tile in tiles]
    limit = max(10, 10 * math.ceil(max(float(np.abs(e).max()) for e in errors) / 10))
    for i, (tile, error) in enumerate(zip(tiles, errors, strict=True)):
        x, y = _left(i), _TOP
        yield _text(x, y - 26, tile.label, size=15, bold=True)
        found = f"correlation {correlation(tile.accuracy)}, max error {tile.accuracy.max_error:.2f}"
        yield _text(x, y - 8, found)
        yield _image(x, y, _colours(error / (2 * limit) + 0.5, _DIVERGING))
        yield from _frame(x, y, _SIDE, [(0, "0"), (0.5, "32"), (1, "64")], [(0, "0"), (0.5, "32"), (1, "64")])
        yield _text(x + _SIDE / 2, y + _SIDE + 38, "channel of V", anchor="middle")
    yield _upright(_LEFT - 46, _TOP + _SIDE / 2, "row of Q")
    yield from _scale(_left(len(tiles)) - _GAP + 14, _TOP, limit)


def _scale(x: float, y: float, limit: int) -> Iterator[str]:
    """The colours of the error maps, with their values."""
    ramp = np.linspace(1, 0, _SIDE // 4)[:, None]
    yield _image(x, y, _colours(ramp, _DIVERGING), width=12)
    yield f'<rect x="{x}" y="{y}" width="12" height="{_SIDE}" fill="none" stroke="{_INK}"/>'
    for share, label in ((0.0, f"+{limit}"), (0.5, "0"), (1.0, f"-{limit}")):
        yield _text(x + 17, y + 5 + share * _SIDE, label, size=12)
    yield _upright(x + 34, y + _SIDE / 4, "error")


def _scatters(tiles: Sequence[TileResult]) -> Iterator[str]:
    """Each cell's darkness is the number of outputs there (logarithmic); exact outputs lie on the line."""
    top = _TOP + _ROW
    limit = max(8, 8 * math.ceil(max(float(np.abs([t.output, t.reference]).max()) for t in tiles) / 8))
    ends = [(0.0, f"-{limit}"), (0.5, "0"), (1.0, f"{limit}")]
    for i, tile in enumerate(tiles):
        x = _left(i)
        edges = np.linspace(-limit - 0.5, limit + 0.5, 65)
        counts, _, _ = np.histogram2d(tile.output.ravel(), tile.reference.ravel(), bins=[edges, edges])
        shade = np.log1p(counts[::-1]) / math.log1p(float(counts.max()))
        # The least count has to be seen beside none.
        yield _image(x, top, _colours(np.where(counts[::-1] > 0, 0.25 + 0.75 * shade, 0), _SEQUENTIAL))
        yield (
            f'<line x1="{x}" y1="{top + _SIDE}" x2="{x + _SIDE}" y2="{top}" stroke="{_CLIPPED}" '
            f'stroke-width="1.2" stroke-dasharray="5 4"/>'
        )
        yield from _frame(x, top, _SIDE, ends, [(1 - share, label) for share, label in ends])
        yield _text(x + _SIDE / 2, top + _SIDE + 38, "FP32 output", anchor="middle")
    yield _upright(_LEFT - 46, top + _SIDE / 2, "kernel's output, INT8")
    yield from _note(_left(len(tiles)) - _GAP + 14, top, ("dashed:", "equal"))


def _histograms(tiles: Sequence[TileResult]) -> Iterator[str]:
    """Scores before INT8 clips them: what is clipped in another colour."""
    top = _TOP + 2 * _ROW
    extent = max(max(-tile.scores.least, tile.scores.largest) for tile in tiles)
    unit = 10 ** math.floor(math.log10(max(extent, 1)))
    limit = unit * math.ceil(extent / unit)
    edges = np.linspace(-limit, limit, _BINS + 1)
    everything = [np.histogram(tile.natural_scores, edges)[0] for tile in tiles]
    highest = max(int(counts.max()) for counts in everything)
    ends = [(0.0, f"-{limit}"), (0.5, "0"), (1.0, f"{limit}")]
    for i, (tile, counts) in enumerate(zip(tiles, everything, strict=True)):
        x, held = _left(i), tile.scores.held
        kept = counts if held is None else np.histogram(_within(tile.natural_scores, held), edges)[0]
        for j, (of_all, of_kept) in enumerate(zip(counts, kept, strict=True)):
            yield from _bar(x, top, j, int(of_all), highest, _CLIPPED)
            yield from _bar(x, top, j, int(of_kept), highest, _KEPT)
        levels = [(0.0, str(highest)), (1.0, "0")] if i == 0 else []
        yield from _frame(x, top, _HISTOGRAM, ends, levels)
        yield _text(x + _SIDE / 2, top + _HISTOGRAM + 38, "score, in units of QKᵀ / 8", anchor="middle")
        if held is None:
            yield _text(x, top - 10, "INT32 holds every score", colour=_KEPT)
        else:
            share = percent(tile.scores.clipped)
            yield _text(
                x, top - 10, f"INT8 holds {held[0]:.0f}..{held[1]:.0f}, clips {share}", colour="#8a5a00"
            )
    yield _upright(_LEFT - 46, top + _HISTOGRAM / 2, "scores")
    key_y = top + _HISTOGRAM + 66
    for at, colour, label in ((0, _KEPT, "held as it is"), (150, _CLIPPED, "clipped by INT8")):
        yield f'<rect x="{_LEFT + at}" y="{key_y}" width="13" height="13" fill="{colour}"/>'
        yield _text(_LEFT + at + 19, key_y + 11, label)


def _within(scores: Array, held: tuple[float, float]) -> Array:
    step = (held[1] - held[0]) / 255
    return scores[(scores > held[0] - step / 2) & (scores < held[1] + step / 2)]


def _bar(x: float, top: float, j: int, count: int, highest: int, colour: str) -> Iterator[str]:
    if count:
        width, height = _SIDE / _BINS, _HISTOGRAM * count / highest
        yield (
            f'<rect x="{x + j * width:.2f}" y="{top + _HISTOGRAM - height:.2f}" width="{width - 0.4:.2f}" '
            f'height="{height:.2f}" fill="{colour}"/>'
        )


def _frame(
    x: float, y: float, height: float, across: Sequence[tuple[float, str]], down: Sequence[tuple[float, str]]
) -> Iterator[str]:
    """A panel's edge, with tick labels at shares of its width and height."""
    yield f'<rect x="{x}" y="{y}" width="{_SIDE}" height="{height}" fill="none" stroke="{_INK}"/>'
    for share, label in across:
        yield _text(x + share * _SIDE, y + height + 18, label, size=12, anchor="middle")
    for share, label in down:
        yield _text(x - 6, y + share * height + 4, label, size=12, anchor="end")


def _image(x: float, y: float, rgb: npt.NDArray[np.uint8], width: float = _SIDE) -> str:
    return (
        f'<image x="{x}" y="{y}" width="{width}" height="{_SIDE}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="{data_uri(rgb)}"/>'
    )


def _colours(shares: Array, palette: Sequence[tuple[int, int, int]]) -> npt.NDArray[np.uint8]:
    """Shares of 0..1 to colours between those of the palette: (rows, columns, 3)."""
    stops = np.linspace(0, 1, len(palette))
    channels = [np.interp(shares, stops, [colour[i] for colour in palette]) for i in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _note(x: float, y: float, lines: Sequence[str]) -> Iterator[str]:
    for i, line in enumerate(lines):
        yield _text(x - 4, y + 14 + 17 * i, line, size=12, colour=_FAINT)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 13,
    bold: bool = False,
    anchor: str = "start",
    colour: str = _INK,
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{weight}>'
        f"{escape(text)}</text>"
    )


def _upright(x: float, y: float, text: str) -> str:
    return f'<text transform="translate({x:g} {y:g}) rotate(-90)" text-anchor="middle">{escape(text)}</text>'
