"""The tables of README.md and docs, from the runs whose JSON is kept in docs/results: none is typed by hand.

    python scripts/results.py keep wer-base evaluations/librispeech-test-clean_base/report.json
    python scripts/results.py write

`keep` reduces what a command wrote to what the pages show, with its processor and versions; `write` puts the tables
between the pages' marks. A test fails where a page is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from app.output import tables

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "speed.md")
KEPT = ROOT / "docs" / "results"
MARK = re.compile(r"(<!-- table: (\S+) ([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)

Data = dict[str, Any]
Rows = Iterable[Sequence[str]]


def keep_wer(report: Data) -> Data:
    """Of `report.json`: each backend's WER, its comparison with cpu, and the verdict."""
    first = report["backends"][0]["run"]
    compared = {c["backend"]: c for c in report["comparisons"] if c["baseline"] == "cpu"}
    verdicts = {v["backend"]: v["outcome"] for v in report["verdicts"]}
    return {
        **{
            name: first[name] for name in ("model", "decoding", "compute", "processor", "threads", "versions")
        },
        "dataset": report["dataset"]["title"],
        "utterances": report["dataset"]["utterances"],
        "rows": [
            {
                "backend": backend["backend"],
                "wer": backend["rates"]["wer"],
                "interval": backend["utterance_interval"],
                **{f"against_{key}": compared.get(backend["backend"], {}).get(key) for key in _AGAINST},
                "verdict": verdicts.get(backend["backend"]),
            }
            for backend in report["backends"]
        ],
    }


_AGAINST = ("difference", "utterance_interval", "identical_normalised", "share_no_worse")


def wer(runs: Sequence[Data]) -> Rows:
    """A row for each backend of each model, with intervals."""
    yield ("model", "backend", "WER", "against `cpu`, points", "same text", "no worse", "verdict")
    for run in runs:
        for row in run["rows"]:
            yield (
                run["model"],
                f"`{row['backend']}`",
                _with(tables.percent(row["wer"]), row["interval"], _hundredfold),
                _with(
                    tables.points(row["against_difference"]), row["against_utterance_interval"], tables.points
                ),
                _same(run, row),
                tables.share(row["against_share_no_worse"]),
                row["verdict"] or tables.NONE,
            )


def summary(runs: Sequence[Data]) -> Rows:
    """The README's table: each model's WER and unchanged texts, and the worst of the verdicts."""
    yield ("backend", *(f"{run['model']} {what}" for run in runs for what in ("WER", "same text")), "verdict")
    for rows in zip(*(run["rows"] for run in runs), strict=True):
        cells = [f"`{rows[0]['backend']}`"]
        for run, row in zip(runs, rows, strict=True):
            cells += [_with(tables.percent(row["wer"], 1), row["interval"], _tenths), _same(run, row)]
        verdicts = {row["verdict"] or tables.NONE for row in rows}
        yield (*cells, "HOLD" if "HOLD" in verdicts else verdicts.pop())


def _hundredfold(fraction: float, digits: int = 2) -> str:
    return tables.number(100 * fraction, digits)


def _tenths(fraction: float) -> str:
    return _hundredfold(fraction, 1)


def _with(figure: str, interval: Data | None, show: Callable[[float], str]) -> str:
    return figure if interval is None else f"{figure} ({show(interval['low'])} to {show(interval['high'])})"


def _same(run: Data, row: Data) -> str:
    same = row["against_identical_normalised"]
    return tables.NONE if same is None else f"{same} of {run['utterances']}"


def keep_validation(found: Data) -> Data:
    """Of `tilescribe validate --json`: the kernels on the founding report's tile, and each layer of an encoder."""
    captured = found["captured"]
    return {
        "model": captured["model"],
        "tile": [
            {name: row[name] for name in _TILE}
            | {"clipped": row["scores"]["clipped"], "passes": all(t["passed"] for t in row["report_targets"])}
            for row in found["validation"]["report_tile"]
        ],
        "layers": [
            {"kernel": row["kernel"], "layer": row["layer"], "error": row["accuracy"]["relative_error"]}
            for row in captured["layers"]
        ],
    }


_TILE = (
    *("kernel", "shift", "correlation", "mae", "rmse", "max_error"),
    *("within_5", "within_10", "output_min", "output_max"),
)
_REPORTED = dict(
    zip(
        _TILE,
        ("as reported, from a device", 3, 0.8498, 16.17, 21.45, 103, 0.258, 0.418, -61, 62),
        strict=True,
    )
) | {"clipped": None, "passes": True}
"""What the founding report says of its INT32 kernel."""


def tile(runs: Sequence[Data]) -> Rows:
    """Each kernel on the founding report's tile."""
    yield (
        *("kernel", "correlation", "MAE", "RMSE", "max error", "within 5 / 10", "output", "INT8 clips"),
        "that report's targets",
    )
    for row in (*runs[0]["tile"], _REPORTED):
        yield (
            row["kernel"] + ("" if row["shift"] in (None, 3) else f", shift {row['shift']}"),
            tables.number(row["correlation"], 4),
            *(tables.number(row[name]) for name in ("mae", "rmse", "max_error")),
            f"{100 * row['within_5']:.1f} / {tables.percent(row['within_10'], 1)}",
            tables.span(row["output_min"], row["output_max"]),
            tables.percent(row["clipped"], 1),
            "pass" if row["passes"] else "fail",
        )


def layers(runs: Sequence[Data]) -> Rows:
    """The relative error of each layer's attention: a row a layer, a column a kernel."""
    found = {(row["layer"], row["kernel"]): row["error"] for row in runs[0]["layers"]}
    kernels = list(dict.fromkeys(kernel for _, kernel in found))
    yield ("layer", *kernels)
    for layer in dict.fromkeys(layer for layer, _ in found):
        yield (str(layer), *(tables.percent(found[layer, kernel]) for kernel in kernels))


def keep_cost(found: Data) -> Data:
    """Of `tilescribe bench --model-only --json`: what the array would take, whatever the host."""
    return {"windows": [{name: window[name] for name in _COST} for window in found["cost_model"]["windows"]]}


_COST = (
    *("model", "dispatches", "macs", "vector_instructions", "shim_bytes", "seconds"),
    *("attention_share_of_encoder", "speedup_limit"),
)


def cost(runs: Sequence[Data]) -> Rows:
    """The modelled window of each size of Whisper."""
    yield (
        *(
            "model",
            "dispatches",
            "attention's GMAC",
            "softmax and merging, G instructions",
            "MB over the shim",
        ),
        *("cores, ms", "streams, ms", "DRAM, ms", "dispatch, ms"),
        *("attention's share of the encoder", "speed-up at most"),
    )
    for window in runs[0]["windows"]:
        best, worst = window["seconds"]["best"], window["seconds"]["worst"]
        yield (
            window["model"],
            str(window["dispatches"]),
            tables.number(window["macs"] / 1e9, 1),
            tables.number(window["vector_instructions"] / 1e9),
            tables.count(window["shim_bytes"] / 1e6),
            *(tables.ends(best[part], worst[part]) for part in ("compute", "streams", "dram")),
            tables.ends(best["dispatch"], worst["dispatch"], 2),
            tables.percent(window["attention_share_of_encoder"], 1),
            f"{tables.number(window['speedup_limit'])} x",
        )


def table(runs: Sequence[Data]) -> Rows:
    """What a script printed, written out already."""
    yield runs[0]["columns"]
    for run in runs:
        yield from run["rows"]


def keep_table(found: Data) -> Data:
    """Of a script's `--json`: its table, and what it ran on."""
    return {name: found[name] for name in ("columns", "rows", "processor", "threads", "versions")}


KEEP: dict[str, Callable[[Data], Data]] = {"wer": keep_wer, "validation": keep_validation, "cost": keep_cost}
"""By what stands before the first dash of a run's name; any other run is a script's table."""
TABLES = {make.__name__: make for make in (wer, summary, tile, layers, cost, table)}


def render(kind: str, names: Sequence[str]) -> str:
    """A Markdown table of the runs kept under these names, and what they ran on where that decides figures."""
    runs = [json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8")) for name in names]
    heading, *rows = TABLES[kind](runs)
    made = dict.fromkeys(_made(run) for run in runs if "processor" in run)
    return "\n".join([*tables.markdown_table(heading, rows), *(f"\n{line}" for line in made), ""])


def _made(run: Data) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    return f"{run['processor']}, threads: {run['threads']}; {versions}."


def page(path: Path) -> str:
    """A page with every table made anew."""
    text = path.read_text(encoding="utf-8")
    return MARK.sub(lambda mark: mark[1] + render(mark[2], mark[3].split()) + mark[4], text)


def main() -> None:
    """Keep a run, or write the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    keep = commands.add_parser("keep", help="keep a run's figures")
    keep.add_argument("name", help="such as wer-base: what stands before the dash says what the file is")
    keep.add_argument("file", type=Path, help="the JSON that the command wrote")
    commands.add_parser("write", help="write the tables of README.md and docs")
    arguments = parser.parse_args()
    if arguments.command == "keep":
        reduced = KEEP.get(arguments.name.partition("-")[0], keep_table)(
            json.loads(arguments.file.read_text("utf-8"))
        )
        KEPT.mkdir(exist_ok=True)
        (KEPT / f"{arguments.name}.json").write_text(json.dumps(reduced, indent=1) + "\n", encoding="utf-8")
    else:
        for path in PAGES:
            path.write_text(page(path), encoding="utf-8")


if __name__ == "__main__":
    main()
