from __future__ import annotations

import json
from pathlib import Path

import pytest

from datasets.manifest import read
from datasets.utterance import DatasetError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    for name in ("a.wav", "b.flac", "c d.mp3"):
        (tmp_path / "clips" / name).touch()
    return tmp_path


def put(place: Path, name: str, text: str | bytes) -> Path:
    path = place / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(manifest: Path) -> list[tuple[str, str, str, str | None, float | None]]:
    utterances, missing = read(manifest, manifest.parent)
    assert missing == ()
    return [(u.id, u.audio.name, u.text, u.speaker, u.seconds) for u in utterances]


def test_the_three_formats_say_the_same(place: Path) -> None:
    lines = [
        {"audio": "clips/b.flac", "text": "one, two", "id": "z", "speaker": "anna", "seconds": 1.5},
        {"audio": "clips/c d.mp3", "text": "drei Äpfel", "id": "y", "speaker": "", "seconds": ""},
        {"audio": "./clips/a.wav", "text": "four", "id": "", "speaker": "7", "seconds": 2},
    ]
    wanted = [
        ("clips/a.wav", "a.wav", "four", "7", 2.0),
        ("y", "c d.mp3", "drei Äpfel", None, None),
        ("z", "b.flac", "one, two", "anna", 1.5),
    ]
    jsonl = "\n".join(json.dumps({k: v for k, v in line.items() if v}) for line in lines) + "\n\n"
    table = [list(lines[0]), *([str(value) for value in line.values()] for line in lines)]
    assert rows(put(place, "m.jsonl", jsonl)) == wanted
    assert rows(put(place, "m.TSV", "\n".join("\t".join(cells) for cells in table))) == wanted
    quoted = "\r\n".join(",".join(f'"{cell}"' for cell in cells) for cells in table)
    assert rows(put(place, "m.csv", b"\xef\xbb\xbf" + quoted.encode())) == wanted


def test_columns_may_stand_in_any_order_among_others(place: Path) -> None:
    table = "lang,text,audio\nen,one,clips/a.wav\n\nen,two,clips/b.flac\n"
    assert [row[:3] for row in rows(put(place, "m.csv", table))] == [
        ("clips/a.wav", "a.wav", "one"),
        ("clips/b.flac", "b.flac", "two"),
    ]


def test_quotation_marks_in_a_tsv_stand_for_themselves(place: Path) -> None:
    assert rows(put(place, "m.tsv", 'audio\ttext\nclips/a.wav\t"no" he said\n'))[0][2] == '"no" he said'


def test_a_quoted_csv_text_may_have_several_lines(place: Path) -> None:
    table = 'audio,text\nclips/a.wav,"one\ntwo, ""three"""\n,four\n'
    with pytest.raises(DatasetError, match=r"m\.csv, line 4: Object missing required field audio"):
        read(put(place, "m.csv", table), place)


def test_a_recording_in_which_nothing_is_said_has_an_empty_text(place: Path) -> None:
    for name, text in (
        ("m.jsonl", '{"audio": "clips/a.wav", "text": " "}'),
        ("m.csv", "audio,text\nclips/a.wav,\n"),
        ("m.tsv", "speaker\ttext\taudio\n\t\tclips/a.wav\n"),
    ):
        assert rows(put(place, name, text)) == [("clips/a.wav", "a.wav", "", None, None)]


def test_paths_are_relative_to_the_manifest_or_absolute(
    place: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "e.wav"
    elsewhere.touch()
    inside = place / "clips" / "a.wav"
    text = "".join(json.dumps({"audio": str(path), "text": "x"}) + "\n" for path in (elsewhere, inside))
    found, _ = read(put(place, "m.jsonl", text), place)
    assert {(u.id, u.audio) for u in found} == {(str(elsewhere), elsewhere), ("clips/a.wav", inside)}
    text = json.dumps({"audio": "a.wav", "text": "x"})
    assert read(put(place, "m.jsonl", text), place / "clips")[0][0].audio == inside


def test_recordings_that_are_not_there_are_told_apart(place: Path) -> None:
    found, missing = read(
        put(place, "m.csv", "audio,text\nclips/a.wav,one\nclips,two\nnone.wav,three\n"), place
    )
    assert [u.id for u in found] == ["clips/a.wav"]
    assert missing == (
        f"{place}/m.csv, line 3: {place}/clips is missing",
        f"{place}/m.csv, line 4: {place}/none.wav is missing",
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.txt", "audio,text", r"m\.txt: is not a manifest: its name has to end in \.jsonl, \.csv, \.tsv"),
        ("m.jsonl", "", "has no rows"),
        ("m.csv", "audio,text\n", "has no rows"),
        ("m.jsonl", "{}\n", "line 1: Object missing required field audio"),
        ("m.jsonl", '{"audio": "clips/a.wav"}', "line 1: Object missing required field text"),
        ("m.jsonl", '{"audio": "clips/a.wav", "text": null}', "line 1: text: Expected str, got null"),
        ("m.jsonl", '\n{"audio": " ", "text": "x"}', "line 2: audio: is empty"),
        ("m.jsonl", '{"audio": 3, "text": "x"}', "line 1: audio: Expected str, got int"),
        ("m.jsonl", '{"audio": "a\\u0000", "text": "x"}', "line 1: audio: has a NUL character in it"),
        ("m.jsonl", '{"audio": "a", "text": "x", "id": [1]}', r"line 1: id: Expected .*, got array"),
        ("m.jsonl", '{"audio": "a", "text": "x", "id": ' + "9" * 5000 + "}", "line 1: id: Integer value out"),
        ("m.jsonl", '{"audio": "a", "text": "\\ud800."}', "line 1: damaged: "),
        ("m.jsonl", '{"audio": "a", "text": "x", "z": ' + "[" * 100_000, "line 1: damaged: nested too deep"),
        ("m.jsonl", '{"audio": "a", "text": "x", "seconds": -1}', r"line 1: seconds: Expected float > 0\.0"),
        ("m.jsonl", '{"audio": "a", "text": "x", "seconds": NaN}', "line 1: damaged: JSON is malformed"),
        ("m.jsonl", '{"audio": "a", "text": "x", "seconds": 1e999}', "line 1: seconds: Number out of range"),
        ("m.csv", "audio,text,seconds\na,b,long\n", "line 2: seconds: Expected float"),
        ("m.csv", "audio,text,seconds\na,b,inf\n", "line 2: seconds: Expected float <= 1000000000"),
        ("m.jsonl", '{"audio": "a", "text": "x"}\n{"audio": ', "line 2: damaged: Input data was truncated"),
        ("m.jsonl", '["a", "x"]', "line 1: Expected object, got array"),
        ("m.csv", "path,text\na,b\n", r"line 1: no column 'audio': .* \(it names 'path', 'text'\)"),
        ("m.tsv", "audio,text\na,b\n", r"line 1: no column 'audio': .* \(it names 'audio,text'\)"),
        ("m.csv", "audio,text,text\na,b,c\n", "line 1: more than one column 'text'"),
        ("m.csv", "audio,text\nclips/a.wav,one,two\n", "line 2: has 3 cells, where the first line names 2"),
        (
            "m.csv",
            'audio,text\nclips/a.wav,"one\n',
            r"line 2: can't be read as CSV \(unexpected end of data\)",
        ),
        ("m.csv", "audio,text\nclips/a.wav,a\nclips/a.wav,b\n", "line 3: id 'clips/a.wav' is that of line 2"),
        ("m.csv", "audio,text,id\nx,a,7\ny,b,7\n", "line 3: id '7' is that of line 2: give every row"),
        ("m.csv", b"audio,text\na,\xc4pfel\n", "line 2: is not UTF-8 text"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    place: Path, name: str, text: str | bytes, message: str
) -> None:
    manifest = put(place, name, text)
    with pytest.raises(DatasetError, match=message) as raised:
        read(manifest, manifest.parent)
    assert str(raised.value).startswith(str(manifest))
    assert "\n" not in str(raised.value)


def test_a_manifest_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.csv can't be read: No such file or directory"):
        read(tmp_path / "none.csv", tmp_path)
