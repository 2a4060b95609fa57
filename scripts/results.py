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

from app.output import tables as t
from app.output.tables import Metric
from kernels.validation import REPORTED

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "speed.md")
KEPT = ROOT / "docs" / "results"
MARK = re.compile(r"(<!-- table: (\S+) ([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)

Data = dict[str, Any]

RUN = ("model", "decoding", "compute", "processor", "threads", "versions")
AGAINST = ("difference", "utterance_interval", "identical_normalised", "share_no_worse")
TILE = (
    *("kernel", "shift", "correlation", "mae", "rmse", "max_error"),
    *("within_5", "within_10", "output_min", "output_max"),
)
COST = (
    *("model", "dispatches", "macs", "vector_instructions", "shim_bytes", "seconds"),
    *("attention_share_of_encoder", "speedup_limit"),
)


def picked(found: Data, names: Iterable[str]) -> Data:
    return {name: found[name] for name in names}


def keep_wer(report: Data) -> Data:
    """Of `report.json`: each backend's WER, its comparison with cpu, and the verdict."""
    compared = {c["backend"]: c for c in report["comparisons"] if c["baseline"] == "cpu"}
    verdicts = {v["backend"]: v["outcome"] for v in report["verdicts"]}
    rows = []
    for backend in report["backends"]:
        name = backend["backend"]
        row = {"backend": name, "wer": backend["rates"]["wer"], "interval": backend["utterance_interval"]}
        row |= {f"against_{key}": compared.get(name, {}).get(key) for key in AGAINST}
        rows.append(row | {"verdict": verdicts.get(name)})
    dataset = report["dataset"]
    said = {"dataset": dataset["title"], "utterances": dataset["utterances"], "rows": rows}
    return picked(report["backends"][0]["run"], RUN) | said


def keep_validation(found: Data) -> Data:
    """Of `tilescribe validate --json`: the kernels on the founding report's tile, and each layer of an encoder."""
    tiles = [
        picked(row, TILE)
        | {"clipped": row["scores"]["clipped"], "passes": all(x["passed"] for x in row["report_targets"])}
        for row in found["validation"]["report_tile"]
    ]
    layers = [
        {"kernel": row["kernel"], "layer": row["layer"], "error": row["accuracy"]["relative_error"]}
        for row in found["captured"]["layers"]
    ]
    return {"model": found["captured"]["model"], "tile": tiles, "layers": layers}


def keep_cost(found: Data) -> Data:
    """Of `tilescribe bench --model-only --json`: what the array would take, whatever the host."""
    return {"windows": [picked(window, COST) for window in found["cost_model"]["windows"]]}


def keep_table(found: Data) -> Data:
    """Of a script's `--json`: its table, what it ran on, and of a race who ran and who could not."""
    of_race = [name for name in ("sides", "missing") if found.get(name)]
    return picked(found, ("columns", "rows", "processor", "threads", "versions", *of_race))


KEEP: dict[str, Callable[[Data], Data]] = {"wer": keep_wer, "validation": keep_validation, "cost": keep_cost}
"""By what stands before the first dash of a run's name; any other run is a script's table."""


def with_ends(figure: str, interval: Data | None, show: Callable[[float], str]) -> str:
    return figure if interval is None else f"{figure} ({show(interval['low'])} to {show(interval['high'])})"


def wer(row: Data, digits: int = 2) -> str:
    figure = t.percent(row["wer"], digits)
    return with_ends(figure, row["interval"], lambda rate: t.number(100 * rate, digits))


def same_text(row: Data) -> str:
    same = row["against_identical_normalised"]
    return t.NONE if same is None else f"{same} of {row['utterances']}"


def against(row: Data) -> str:
    return with_ends(t.points(row["against_difference"]), row["against_utterance_interval"], t.points)


def span(part: str, digits: int = 1) -> Callable[[Data], str]:
    """Of a window's seconds, a part at both ends of the assumptions."""
    return lambda w: t.ends(w["seconds"]["best"][part], w["seconds"]["worst"][part], digits)


WER: tuple[Metric[Data], ...] = (
    Metric("model", lambda r: r["model"]),
    Metric("backend", lambda r: f"`{r['backend']}`"),
    Metric("WER", wer),
    Metric("against `cpu`, points", against),
    Metric("same text", same_text),
    Metric("no worse", lambda r: t.share(r["against_share_no_worse"])),
    Metric("verdict", lambda r: r["verdict"] or t.NONE),
)
"""Of each backend of each model."""
TILES: tuple[Metric[Data], ...] = (
    Metric("kernel", lambda r: r["kernel"] + ("" if r["shift"] in (None, 3) else f", shift {r['shift']}")),
    Metric("correlation", lambda r: t.number(r["correlation"], 4)),
    Metric("MAE", lambda r: t.number(r["mae"])),
    Metric("RMSE", lambda r: t.number(r["rmse"])),
    Metric("max error", lambda r: t.number(r["max_error"])),
    Metric("within 5 / 10", lambda r: f"{100 * r['within_5']:.1f} / {t.percent(r['within_10'], 1)}"),
    Metric("output", lambda r: t.span(r["output_min"], r["output_max"])),
    Metric("INT8 clips", lambda r: t.percent(r["clipped"], 1)),
    Metric("that report's targets", lambda r: "pass" if r["passes"] else "fail"),
)
"""Of each kernel on the founding report's tile."""
WINDOWS: tuple[Metric[Data], ...] = (
    Metric("model", lambda w: w["model"]),
    Metric("dispatches", lambda w: str(w["dispatches"])),
    Metric("attention's GMAC", lambda w: t.number(w["macs"] / 1e9, 1)),
    Metric("softmax and merging, G instructions", lambda w: t.number(w["vector_instructions"] / 1e9)),
    Metric("MB over the shim", lambda w: t.count(w["shim_bytes"] / 1e6)),
    Metric("cores, ms", span("compute")),
    Metric("streams, ms", span("streams")),
    Metric("DRAM, ms", span("dram")),
    Metric("dispatch, ms", span("dispatch", 2)),
    Metric("attention's share of the encoder", lambda w: t.percent(w["attention_share_of_encoder"], 1)),
    Metric("speed-up at most", lambda w: f"{t.number(w['speedup_limit'])} x"),
)
"""Of the modelled window of each size of Whisper."""


def summary(runs: Sequence[Data]) -> list[str]:
    """The README's table: each model's WER and unchanged texts, and the worst of the verdicts."""
    columns = [f"{run['model']} {what}" for run in runs for what in ("WER", "same text")]
    lines = []
    for rows in zip(*map(rows_of, runs), strict=True):
        figures = [figure for row in rows for figure in (wer(row, 1), same_text(row))]
        verdicts = {row["verdict"] or t.NONE for row in rows}
        worst = "HOLD" if "HOLD" in verdicts else verdicts.pop()
        lines.append([f"`{rows[0]['backend']}`", *figures, worst])
    return t.markdown_table(["backend", *columns, "verdict"], lines)


def layers(runs: Sequence[Data]) -> list[str]:
    """The relative error of each layer's attention: a row a layer, a column a kernel."""
    found: dict[int, dict[str, str]] = {}
    for row in runs[0]["layers"]:
        found.setdefault(row["layer"], {})[row["kernel"]] = t.percent(row["error"])
    return t.markdown_table(["layer", *found[0]], [[str(n), *errors.values()] for n, errors in found.items()])


def rows_of(run: Data) -> list[Data]:
    return [run | row for row in run["rows"]]


TABLES: dict[str, Callable[[Sequence[Data]], list[str]]] = {
    "wer": lambda runs: t.markdown(WER, [row for run in runs for row in rows_of(run)]),
    "summary": summary,
    "tile": lambda runs: t.markdown(TILES, [*runs[0]["tile"], REPORTED | {"clipped": None, "passes": True}]),
    "layers": layers,
    "cost": lambda runs: t.markdown(WINDOWS, runs[0]["windows"]),
    "table": lambda runs: t.markdown_table(runs[0]["columns"], [row for run in runs for row in run["rows"]]),
}


def render(kind: str, names: Sequence[str]) -> str:
    """A Markdown table of the runs kept under these names, and what they ran on where that decides figures."""
    runs = [json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8")) for name in names]
    made = dict.fromkeys(line for run in runs if "processor" in run for line in made_on(run))
    return "\n".join([*TABLES[kind](runs), *(f"\n{line}" for line in made), ""])


def made_on(run: Data) -> list[str]:
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    made = [f"{run['processor']}, threads: {run['threads']}; {versions}."]
    made += [f"{name}: {said}." for name, said in run.get("sides", {}).items()]
    made += [f"Not measured: {name} ({reason})." for name, reason in run.get("missing", {}).items()]
    return made


def page(path: Path) -> str:
    """A page with every table made anew."""
    text = path.read_text(encoding="utf-8")
    return MARK.sub(lambda mark: mark[1] + render(mark[2], mark[3].split()) + mark[4], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    keep = commands.add_parser("keep", help="keep a run's figures")
    keep.add_argument("name", help="such as wer-base: what stands before the dash says what the file is")
    keep.add_argument("file", type=Path, help="the JSON that the command wrote")
    commands.add_parser("write", help="write the tables of README.md and docs")
    given = parser.parse_args()
    if given.command == "keep":
        reduce = KEEP.get(given.name.partition("-")[0], keep_table)
        reduced = reduce(json.loads(given.file.read_text("utf-8")))
        KEPT.mkdir(exist_ok=True)
        (KEPT / f"{given.name}.json").write_text(json.dumps(reduced, indent=1) + "\n", encoding="utf-8")
    else:
        for path in PAGES:
            path.write_text(page(path), encoding="utf-8")


if __name__ == "__main__":
    main()
