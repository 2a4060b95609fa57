"""Prints what `tilescribe validate` found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.evaluation.report.metrics import TILES
from app.evaluation.validation.measuring import Captured
from app.output import tables as t
from app.output.tables import Metric
from kernels.backends import DEFAULT, REFERENCE, TILE_BACKENDS, find
from kernels.validation import REPORTED, TileResult, Validation
from kernels.validation.batch import BatchResult
from models.capture import LayerResult

LAYERS: tuple[Metric[LayerResult], ...] = (
    Metric("kernel, layer", lambda x: f"{x.kernel}, {x.layer}"),
    Metric("correlation", lambda x: t.correlation(x.accuracy.correlation, 6)),
    Metric("error", lambda x: t.percent(x.accuracy.relative_error)),
    Metric("max error", lambda x: t.number(x.accuracy.max_error, 3)),
    Metric("scores", lambda x: t.span(*x.score_limits, 1)),
    Metric("INT8 clips", lambda x: t.share(x.clipped) if x.heads[0].scores.held else t.NONE),
    Metric("worst head", lambda x: str(x.worst.head)),
    Metric("its error", lambda x: t.percent(x.worst.accuracy.relative_error)),
)
"""Of a kernel in one layer of a real encoder."""


def text(validation: Validation, captured: Captured | None = None) -> str:
    """The tables, and at the end the verdict."""
    return "\n".join(_lines(validation, captured)) + "\n"


def ran_on(validation: Validation) -> str:
    """What ran where."""
    return f"{' and '.join(TILE_BACKENDS)} on the {t.DEVICES[validation.device]}"


def _lines(validation: Validation, captured: Captured | None) -> Iterator[str]:
    yield f"{ran_on(validation)}: {validation.device_reason}. The legacy kernels are emulated."
    yield ""
    yield "One tile of 64 x 64 random integers, the test data of the founding report, against FP32"
    yield "softmax(Q K^T / 8) V; scores in units of Q K^T / 8:"
    yield ""
    tiles = [{**tile.to_dict(), "kernel": tile.label, "shift": None} for tile in validation.tiles]
    yield from t.console(TILES, [*tiles, REPORTED])
    yield ""
    yield from _target_lines(validation.tiles)
    yield ""
    yield "One tile is no evidence about words."
    for tile in validation.tiles:
        if tile.legacy and tile.documented and tile.passed:
            name = tile.kernel
            yield f"{name} passes every target of the founding report here; what it does to the word error rate:"
            yield f"    evaluate --dataset librispeech-test-clean --backends {REFERENCE},{DEFAULT},{name}"
    yield ""
    if validation.batch:
        yield from _batch(validation.batch)
        yield ""
    if captured:
        heard = f"{captured.audio}, {captured.seconds:.1f} s in its window"
        yield f"Queries, keys and values of {captured.model}'s encoder ({heard}), each layer given what FP32"
        yield "gives it; scores in units of Q K^T / 8; errors relative to the norm of FP32's output:"
        yield ""
        yield from t.console(
            LAYERS, sorted(captured.layers, key=lambda x: (find(x.kernel).position, x.layer))
        )
        yield ""
    yield from _verdict(validation)


def _target_lines(tiles: Sequence[TileResult]) -> list[str]:
    named = [f"{target.name} {target.wanted}" for target in tiles[0].report_targets]
    own = next((f"ours: {target.name} {target.wanted}" for tile in tiles for target in tile.targets), "")
    rows = [["the founding report's targets:", *named, own]]
    for tile in tiles:
        judged = ["pass" if target.passed else "FAIL" for target in (*tile.report_targets, *tile.targets[:1])]
        rows.append([tile.label, *judged, *([] if tile.targets else [t.NONE])])
    return t.aligned(rows)


def _batch(batch: BatchResult) -> Iterator[str]:
    *some, last = map(str, batch.tile_sizes)
    sizes = f"{', '.join(some)} or {last}" if some else last
    yield (
        f"{batch.tiles} tiles of 64 rows and {sizes} keys, random and extreme, seed {batch.seed}, "
        f"{' and '.join(batch.scores)}: {batch.outputs} outputs, bit for bit against"
    )
    width = max(len(c.name) for c in batch.comparisons) + 1
    for c in batch.comparisons:
        counts = f"{c.tiles} tiles, {c.rows} rows, {c.outputs} outputs: {c.mismatch or 'identical'}"
        yield f"  the {f'{c.name}:':{width}} {f'not compared: {c.missing}' if c.missing else counts}"


def _verdict(validation: Validation) -> Iterator[str]:
    if validation.passed:
        yield f"passed on the {t.DEVICES[validation.device]}: {DEFAULT} {validation.detail(DEFAULT)}"
        return
    yield f"FAILED on the {t.DEVICES[validation.device]}:"
    for tile in validation.tiles:
        for target in tile.targets:
            if not target.passed:
                yield f"  {tile.label}: {target.name} {target.found}, wanted {target.wanted}"
    if validation.batch and not validation.batch.passed:
        yield f"  {validation.batch.summary()}"
