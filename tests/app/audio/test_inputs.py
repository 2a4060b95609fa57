from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.audio.inputs import Recording, Recordings


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def recordings(names: list[str]) -> tuple[list[Recording], list[str]]:
    found = Recordings(names)
    every = list(found)
    assert len(found) == len(every)
    return every, found.problems


def stems(found: list[Recording]) -> list[str]:
    return [str(recording.stem) for recording in found]


def test_a_file_is_taken_as_it_is_whatever_its_suffix_and_though_it_is_missing(tmp_path: Path) -> None:
    found, problems = recordings([str(tmp_path / "talk.v2.wav"), "no/such.xyz", "-"])
    assert stems(found) == ["talk.v2", "such", "stdin"]
    assert problems == []


def test_a_folder_gives_its_recordings_with_their_folders(tmp_path: Path) -> None:
    make(tmp_path, "b.WAV", "sub/a.mp3", "notes.txt", "sub/deep/c.opus")
    found, problems = recordings([str(tmp_path)])
    assert stems(found) == ["b", "sub/a", "sub/deep/c"]
    assert problems == []


def test_a_pattern_is_expanded_where_the_shell_did_not(tmp_path: Path) -> None:
    make(tmp_path, "b.wav", "a.wav", "c.txt", "d/e.wav")
    assert stems(recordings([str(tmp_path / "*.wav")])[0]) == ["a", "b"]
    assert stems(recordings([str(tmp_path / "**/*.wav")])[0]) == ["a", "b", "e"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    make(tmp_path, "a[1].wav", "a1.wav")
    assert [r.name for r in recordings([str(tmp_path / "a[1].wav")])[0]] == [str(tmp_path / "a[1].wav")]


def test_what_yields_nothing_is_a_problem_and_the_rest_is_kept(tmp_path: Path) -> None:
    found, problems = recordings([str(tmp_path), str(tmp_path / "*.wav"), "", "x.wav"])
    assert stems(found) == ["x"]
    assert problems == [
        f"{tmp_path}: no recordings in it",
        f"{tmp_path / '*.wav'}: no match",
        "an empty name is no file",
    ]


def test_a_recording_named_twice_is_done_once(tmp_path: Path) -> None:
    make(tmp_path, "a.wav")
    assert len(recordings([str(tmp_path / "a.wav"), str(tmp_path / "*.wav")])[0]) == 1


def test_recordings_that_differ_in_their_suffix_keep_it(tmp_path: Path) -> None:
    make(tmp_path, "a.wav", "a.mp3", "b.wav")
    assert stems(recordings([str(tmp_path)])[0]) == ["a.mp3", "a.wav", "b"]


def test_the_same_file_by_two_names_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.wav")
    monkeypatch.chdir(tmp_path)
    assert [r.name for r in recordings(["a.wav", "./a.wav", str(tmp_path / "a.wav")])[0]] == ["a.wav"]


@pytest.mark.parametrize("suffix", [".flac", ".ts", ""])
def test_a_name_as_long_as_the_system_takes_has_output_files_whose_names_it_takes(
    suffix: str, tmp_path: Path
) -> None:
    name = "語" * ((255 - len(suffix)) // 3) + suffix
    make(tmp_path, name)
    (found,), problems = recordings([str(tmp_path / name)])
    assert problems == []
    assert set(found.stem.name) == {"語"}
    assert 245 <= len(os.fsencode(found.stem.name)) <= 250


@pytest.fixture
def unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which there is one that may not be read, for root too."""
    make(tmp_path, "a.wav", "shut/b.wav")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if Path(path) == tmp_path / "shut":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"), [("", ["a"]), ("**/*.wav", ["a", "b"]), ("*/c.wav", []), ("shut", [])]
)
def test_a_folder_that_may_not_be_read_is_named(name: str, found: list[str], unreadable: Path) -> None:
    inputs, problems = recordings([str(unreadable / name)])
    assert problems == [f"{unreadable / 'shut'}: Permission denied"]
    assert set(stems(inputs)) <= set(found)


def test_what_is_no_file_is_left_alone_in_a_folder_and_a_broken_link_is_not(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nothing.wav")
    (tmp_path / "round").symlink_to(tmp_path)
    found, problems = recordings([str(tmp_path)])
    assert (stems(found), problems) == (["gone"], [])


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".TSV"])
def test_a_manifest_gives_its_recordings_where_it_has_them(suffix: str, tmp_path: Path) -> None:
    audio = ["b.wav", "sub/a.mp3", "../c.opus", f"{tmp_path}/d.wav", "./sub/../e.wav"]
    if suffix == ".jsonl":
        text = "".join(f'{{"audio": "{name}", "speaker": 7}}\n' for name in audio)
    else:
        between = "," if suffix == ".csv" else "\t"
        text = "".join(f"7{between}{name}\n" for name in ["audio", *audio]).replace("7", "speaker", 1)
    manifest = tmp_path / f"all{suffix}"
    manifest.write_text(text)
    found, problems = recordings([str(manifest)])
    assert [recording.name for recording in found] == [
        str(tmp_path / name) if not name.startswith("/") else name for name in audio
    ]
    assert stems(found) == ["b", "sub/a", "c", "d", "e"]
    assert problems == []


@pytest.mark.parametrize(
    ("name", "text", "problem", "before"),
    [
        ("m.jsonl", '{"audio": "a.wav"}\n{"text": "b"}\n{"audio": "c.wav"}\n', "m.jsonl, line 2: ", ["a"]),
        ("m.jsonl", '{"audio": "a.wav"}\n{"audio": " "}\n', "m.jsonl, line 2: audio: is empty", ["a"]),
        ("m.csv", "path\na.wav\n", "the first line has to name the column audio", []),
        ("m.tsv", "", "m.tsv: no match", []),
    ],
)
def test_what_is_wrong_with_a_manifest_is_a_problem_with_its_line(
    name: str, text: str, problem: str, before: list[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    found, problems = recordings([str(tmp_path / name)])
    assert stems(found) == before
    (only,) = problems
    assert problem in only
