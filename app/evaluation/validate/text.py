"""A report as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.evaluation.validate.report import Captured, Report
    from kernels.validation import TileResult, Validation
    from kernels.validation.accuracy import Accuracy
    from kernels.validation.batch import BatchResult

REPORTED = (
    "as reported, device",
    "0.8498",
    "16.17",
    "21.45",
    "103.00",
    "25.8 %",
    "41.8 %",
    "-61..62",
    "",
    "",
)
"""What the report says that its INT32 kernel gave on its device; that run cannot be repeated here."""


def render(report: Report) -> str:
    """The tables, and at the end the verdict."""
    validation = report.validation
    lines = [
        f"int32 and int8 on {where(validation)}: {validation.device_reason}. The legacy kernels are emulated."
    ]
    lines += [
        "",
        "One tile of 64 x 64 random integers, the test data of the report that the legacy kernels come from,",
    ]
    lines += [
        "against FP32 softmax(Q K^T / 8) V; scores in units of Q K^T / 8:",
        "",
        *_tiles(validation.tiles),
    ]
    lines += ["", *_targets(validation.tiles), "", *_caution(validation.tiles)]
    if validation.batch:
        lines += ["", *_batch(validation.batch)]
    if report.captured:
        lines += ["", *_captured(report.captured)]
    return "\n".join([*lines, "", *_verdict(report)]) + "\n"


def where(validation: Validation) -> str:
    """The device in words: emulator work is never called the NPU's."""
    return (
        "the emulator on the CPU" if validation.device == "emulator" else f"the {validation.device.upper()}"
    )


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns that are as wide as they have to be: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage; what is less than all is never rounded up to all."""
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) == 100:
        text = f"{100 - 10**-digits:.{digits}f}"
    return f"{text} %"


def correlation(accuracy: Accuracy, digits: int = 4) -> str:
    """So many digits; what is not quite 1 is not rounded up to it."""
    r = accuracy.correlation
    return f"{min(r, 1 - 10**-digits):.{digits}f}" if r < 1 - 1e-9 else f"{r:.{digits}f}"


def _tiles(tiles: Sequence[TileResult]) -> list[str]:
    head = ("kernel", "correlation", "MAE", "RMSE", "max error", "within 5", "within 10")
    rows = [(*head, "output", "scores", "INT8 clips")]
    for tile in tiles:
        a, s = tile.accuracy, tile.scores
        rows.append(
            (
                tile.label,
                correlation(a),
                f"{a.mae:.2f}",
                f"{a.rmse:.2f}",
                f"{a.max_error:.2f}",
                percent(a.within_5),
                percent(a.within_10),
                f"{a.output_min:.0f}..{a.output_max:.0f}",
                f"{s.least:.0f}..{s.largest:.0f}",
                percent(s.clipped) if s.held else "-",
            )
        )
    return table([*rows, REPORTED])


def _targets(tiles: Sequence[TileResult]) -> list[str]:
    named = [f"{target.name} {target.wanted}" for target in tiles[0].report_targets]
    own = next((f"{t.name} {t.wanted}" for tile in tiles for t in tile.targets), "")
    rows = [("the report's targets:", *named, f"ours: {own}" if own else "")]
    for tile in tiles:
        cells = [_word(target.passed) for target in tile.report_targets]
        rows.append((tile.label, *cells, _word(tile.targets[0].passed) if tile.targets else "-"))
    return table(rows)


def _word(passed: bool) -> str:
    return "pass" if passed else "FAIL"


def _caution(tiles: Sequence[TileResult]) -> Iterator[str]:
    fooled = [t.kernel for t in tiles if t.kernel == "legacy-int32" and t.passed]
    yield "One tile is no evidence about words."
    if fooled:
        yield "legacy-int32 passes every target of the report here; what it does to the word error rate, this shows:"
        yield "    evaluate --dataset librispeech-test-clean --backends cpu,int32,legacy-int32"


def _batch(batch: BatchResult) -> Iterator[str]:
    *some, last = map(str, batch.tile_sizes)
    sizes = f"{', '.join(some)} or {last}" if some else last
    yield (
        f"{batch.tiles} tiles of 64 rows and {sizes} keys, random and extreme, seed {batch.seed}, "
        f"{' and '.join(batch.scores)}: {batch.outputs} outputs, bit for bit against"
    )
    rows = []
    for compared in batch.comparisons:
        if compared.missing:
            rows.append((f"  the {compared.name}:", f"not compared: {compared.missing}"))
            continue
        counts = f"{compared.tiles} tiles, {compared.rows} rows, {compared.outputs} outputs: "
        rows.append((f"  the {compared.name}:", counts + (str(compared.mismatch or "identical"))))
    width = max(len(name) for name, _ in rows)
    yield from (f"{name:{width}} {found}" for name, found in rows)


def _captured(captured: Captured) -> Iterator[str]:
    heard = f"{captured.audio}, {captured.seconds:.1f} s in its window"
    yield f"Queries, keys and values of {captured.model}'s encoder ({heard}), each layer given what FP32"
    yield "gives it; scores in units of Q K^T / 8; errors relative to the norm of FP32's output:"
    yield ""
    rows = [
        (
            "kernel, layer",
            "correlation",
            "error",
            "max error",
            "scores",
            "INT8 clips",
            "worst head",
            "its error",
        )
    ]
    for kernel in dict.fromkeys(layer.kernel for layer in captured.layers):
        for layer in (layer for layer in captured.layers if layer.kernel == kernel):
            least, largest = layer.score_limits
            rows.append(
                (
                    f"{kernel}, {layer.layer}",
                    correlation(layer.accuracy, 6),
                    percent(layer.accuracy.relative_error, 2),
                    f"{layer.accuracy.max_error:.3f}",
                    f"{least:.1f}..{largest:.1f}",
                    percent(layer.clipped) if layer.heads[0].scores.held else "-",
                    str(layer.worst.head),
                    percent(layer.worst.accuracy.relative_error, 2),
                )
            )
    yield from table(rows)


def _verdict(report: Report) -> Iterator[str]:
    validation = report.validation
    if report.passed:
        yield f"passed on {where(validation)}: int32 {validation.detail('int32')}"
        return
    yield f"FAILED on {where(validation)}:"
    for tile in validation.tiles:
        for target in tile.targets:
            if not target.passed:
                yield f"  {tile.label}: {target.name} {target.found}, wanted {target.wanted}"
    if validation.batch and not validation.batch.passed:
        yield f"  {validation.batch.summary()}"
