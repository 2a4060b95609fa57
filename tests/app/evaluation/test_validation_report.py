"""`tilescribe validate`: its tables, JSON, picture and exit codes."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from app.cli import app as tilescribe
from app.evaluation.validation import picture
from app.evaluation.validation.measuring import to_json
from app.evaluation.validation.text import text
from app.output import tables
from kernels.emulator import Emulator
from kernels.validation import Validation, validate_kernel
from kernels.workers import Workers

NO_NPU = not list(Path("/dev/accel").glob("accel*"))
FAST = ("--no-capture", "--tiles", "6", "--device", "emulator")


def validate(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(tilescribe, ["validate", "--threads", "1", *map(str, arguments)])
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def validation() -> Validation:
    return validate_kernel(Emulator(Workers(1)), "asked for", tiles=6, host="there is no C++ compiler")


@pytest.fixture(scope="module")
def written(validation: Validation) -> str:
    return text(validation)


def test_the_tables_say_what_was_measured_and_where(written: str) -> None:
    lines = written.splitlines()
    assert (
        lines[0] == "int32 and int8 on the emulator on the CPU: asked for. The legacy kernels are emulated."
    )
    assert "NPU" not in written
    row = next(line.split() for line in lines if line.startswith("legacy-int32"))
    assert " ".join(row[1:]) == "0.9654 6.72 10.71 59.00 60.8 % 78.4 % -64..63 -4632..4963 -"
    assert next(line for line in lines if line.startswith("legacy-int8")).endswith("92.3 %")
    reported = "0.8498  16.17  21.45     103.00    25.8 %     41.8 %   -61..62"
    assert " ".join(reported.split()) in " ".join(written.split())
    assert any(line.startswith("  the reference:") and line.endswith("identical") for line in lines)
    assert any(line.endswith("not compared: there is no C++ compiler") for line in lines)
    assert lines[-1].startswith(
        "passed on the emulator on the CPU: int32 6 tiles equal the reference bit for bit; "
    )
    assert "correlation 1.0000 with FP32 on the founding report's tile, target 0.999" in lines[-1]


def test_the_tables_warn_that_a_tile_is_not_a_word_error_rate(written: str) -> None:
    assert "One tile is no evidence about words." in written
    assert "legacy-int32 passes every target of the founding report here" in written
    assert "--backends cpu,int32,legacy-int32" in written


def test_nothing_is_rounded_up_to_perfection() -> None:
    shares = {0.99999: "99.999 %", 0.00001: "0.001 %", 0.5: "50.0 %", 1.0: "100.0 %", 0.0: "0.0 %"}
    assert {share: tables.share(share) for share in shares} == shares
    assert (tables.correlation(0.99999), tables.correlation(0.99999, 6)) == ("0.9999", "0.999990")


def test_json_has_a_version_and_no_number_that_is_none(validation: Validation) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    constant = replace(validation.tiles[4].accuracy, correlation=float("nan"))
    *others, last = validation.tiles
    changed = replace(validation, tiles=(*others, replace(last, accuracy=constant)))
    data = json.loads(to_json(changed), parse_constant=refuse)
    assert (data["schema_version"], data["passed"], data["captured"]) == (1, True, None)
    assert data["validation"]["report_tile"][4]["correlation"] is None
    assert data["validation"]["batch"]["comparisons"][0]["name"] == "reference"


def test_the_picture_draws_every_kernel(validation: Validation) -> None:
    root = ElementTree.fromstring(picture.render(validation))
    svg = "{http://www.w3.org/2000/svg}"
    words = [t.text or "" for t in root.iter(f"{svg}text")]
    for kernel in ("int32", "int8", "legacy-int32", "legacy-int8"):
        assert words.count(kernel) == 1
    for label in ("row of Q", "channel of V", "FP32 output", "kernel's output, INT8", "scores", "error"):
        assert label in words
    assert "INT8 holds -128..127, clips 92.3 %" in words
    assert "NPU" not in " ".join(words)
    background = next(root.iter(f"{svg}rect"))
    assert background.get("class") == "paper"
    assert float(background.get("width", 0)) == float(root.get("width", 1))
    assert ".paper { fill: #ffffff }" in (next(root.iter(f"{svg}style")).text or "")
    images = [i.get("href", "") for i in root.iter(f"{svg}image")]
    assert len(images) == 9  # an error map and a scatter for each kernel, and one scale of colours
    assert all(uri.startswith("data:image/png;base64,") for uri in images)
    # int32's error map is one colour, the others' are not
    assert len(images[0]) < 1000 < len(images[1])


def test_the_png_holds_the_cells() -> None:
    cells = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    data = picture.png(cells)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (12, 8)
    size = struct.unpack(">I", data[33:37])[0]
    body = data[41 : 41 + size]
    assert struct.unpack(">I", data[41 + size : 45 + size])[0] == zlib.crc32(b"IDAT" + body)
    lines = np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, 1 + 3 * width)
    assert not lines[:, 0].any()
    assert np.array_equal(lines[::4, 1:].reshape(2, 12, 3)[:, ::4], cells)


def test_the_command_passes_and_writes_whole_files(tmp_path: Path) -> None:
    document, picture = tmp_path / "v.json", tmp_path / "v.svg"
    result = validate(*FAST, "--json", document, "--picture", picture, "--tile-size", "128")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines() == [f"wrote {picture}", f"wrote {document}"]
    assert sorted(tmp_path.iterdir()) == [document, picture]
    assert "6 tiles of 64 rows and 128 keys" in result.stdout
    assert json.loads(document.read_text())["validation"]["batch"]["tile_sizes"] == [128]
    ElementTree.parse(picture)


def test_json_can_go_to_standard_output_alone() -> None:
    result = validate(*FAST, "--json", "-", "--seed", "7")
    assert json.loads(result.stdout)["validation"]["batch"]["seed"] == 7


@pytest.mark.usefixtures("one_thread")
def test_a_real_encoder_is_listened_to(tiny: Any) -> None:
    result = validate(*FAST[1:], "--model", "tiny.en", "--json", "-")
    assert result.exit_code == 0, result.output
    captured = json.loads(result.stdout)["captured"]
    assert (captured["model"], captured["audio"]) == ("tiny.en", "harbour.flac")
    assert len(captured["layers"]) == 4 * 4
    errors: dict[str, float] = {}
    for layer in captured["layers"]:
        error = layer["accuracy"]["relative_error"]
        errors[layer["kernel"]] = max(error, errors.get(layer["kernel"], 0))
    # measured: 0.5 %, 3.1 %, 55 % and 89 %
    assert errors["int32"] < 0.01 < errors["int8"] < 0.1 < errors["legacy-int32"] < errors["legacy-int8"]


def test_a_device_that_computes_other_bits_fails_with_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Emulator.run

    def off_by_one(self: Emulator, *arguments: Any, **options: Any) -> Any:
        result = honest(self, *arguments, **options)
        if options.get("tile_size") == 128:
            result[0, :, 2] += np.int16(1)
        return result

    monkeypatch.setattr(Emulator, "run", off_by_one)
    result = validate(*FAST)
    assert result.exit_code == 1
    assert "FAILED on the emulator on the CPU:" in result.stdout
    assert "column 2: the reference has " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--picture", "v.png"], 2, "--picture v.png: it is an SVG; give a name that ends in .svg"),
        (["--json", "nowhere/v.json"], 2, "--json nowhere/v.json: there is no such folder"),
        (["--picture", "nowhere/v.svg"], 2, "--picture nowhere/v.svg: there is no such folder"),
        (["--no-capture", "--audio", "a.wav"], 2, "--audio has no use with --no-capture"),
        (["--model", "tiny.em"], 2, "unknown model 'tiny.em': did you mean tiny.en?"),
        (["--model", "./none.pt"], 5, "none.pt"),
        (["--model", "tiny.en", "--audio", "missing.wav"], 1, "missing.wav: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_line_before_any_work(arguments: list[str], code: int, message: str) -> None:
    result = validate(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(not NO_NPU, reason="this machine has an NPU")
def test_an_npu_that_is_not_there_is_an_error_with_the_remedy() -> None:
    result = validate("--device", "npu", "--no-capture")
    assert (result.exit_code, result.stdout) == (5, "")
    assert result.stderr.rstrip().endswith("--device emulator computes the same bits on the CPU")


def test_progress_is_shown_on_standard_error_where_asked_for() -> None:
    result = validate(*FAST, "--progress", "--json", "-")
    assert "tiles" in result.stderr
    json.loads(result.stdout)
