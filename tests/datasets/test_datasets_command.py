from __future__ import annotations

from pathlib import Path

import pytest
from material.small_librispeech import Mirror, make_set, small_set
from typer.testing import CliRunner, Result

from app.commands.kept import datasets_app
from datasets import storing
from datasets.librispeech import CATALOGUE

NAME = "librispeech-test-small"


@pytest.fixture(autouse=True)
def known(archive: bytes, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small set is in the catalogue."""
    monkeypatch.setitem(CATALOGUE, NAME, small_set(archive, mirror.url))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(datasets_app, arguments)


def states(result: Result) -> list[list[str]]:
    return [line.split()[:2] for line in result.stdout.splitlines()[1:]]


def test_list_is_an_aligned_table_of_every_set(cache: Path) -> None:
    make_set(cache / "LibriSpeech" / "test-small", "19-198-0000")
    result = run("list")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["NAME", "UTTERANCES", "HOURS", "ARCHIVE", "ON", "THIS", "MACHINE"]
    assert lines[1].split() == ["librispeech-test-clean", "2,620", "5.4", "347", "MB", "-"]
    assert [line.split()[0] for line in lines[1:]] == list(CATALOGUE)
    assert len({line.index(cell) for line, cell in ((lines[0], "UTT"), (lines[1], "2,620"))}) == 1
    assert lines[-1].endswith(f"1 of 4: {cache}/LibriSpeech/test-small")
    run("fetch", NAME)
    assert run("list").stdout.splitlines()[-1].split()[-3:] == ["0", "MB", f"{cache}/LibriSpeech/test-small"]


def test_list_of_a_copy_at_hand(tmp_path: Path) -> None:
    make_set(tmp_path / "renamed")
    result = run("list", "--data-dir", str(tmp_path / "renamed"))
    assert [line.split()[-1] for line in result.stdout.splitlines()[1:]] == ["-"] * 4 + [
        f"{tmp_path}/renamed"
    ]
    for transcript in (tmp_path / "renamed").rglob("*.trans.txt"):
        transcript.write_text("19-198-0000\n")
    result = run("list", "--data-dir", str(tmp_path / "renamed"))
    assert result.stdout.splitlines()[-1].endswith(f"damaged: {tmp_path}/renamed")


def test_fetch_gets_what_is_not_here(cache: Path, mirror: Mirror) -> None:
    for _ in range(2):
        result = run("fetch", NAME)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr.splitlines()[-1] == f"{NAME}: ready in {cache}/LibriSpeech/test-small"
    assert mirror.asked == [None]


def test_fetch_takes_another_folder(tmp_path: Path) -> None:
    assert run("fetch", NAME, "--data-dir", str(tmp_path / "data")).exit_code == 0
    assert (tmp_path / "data" / "LibriSpeech" / "test-small" / "19").is_dir()


def test_fetch_goes_on_after_what_can_not_be_had(
    archive: bytes, monkeypatch: pytest.MonkeyPatch, mirror: Mirror
) -> None:
    monkeypatch.setitem(CATALOGUE, "librispeech-other", small_set(archive, "http://mirror.invalid"))
    result = run("fetch", "librispeech-other", NAME)
    assert (result.exit_code, result.stdout) == (5, "")
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "can't be fetched: mirror.invalid: name not resolved: check the network" in errors[0]
    assert result.stderr.splitlines()[-1].startswith(f"{NAME}: ready in ")


def test_fetch_can_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storing, "_require_room", interrupted)
    result = run("fetch", NAME)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].endswith("the same command goes on from there")


@pytest.mark.parametrize("command", ["fetch", "verify"])
def test_an_unknown_name_is_wrong_usage(command: str, mirror: Mirror) -> None:
    result = run(command, NAME, "librispeech-test-claen")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(
        "error: unknown data set 'librispeech-test-claen': did you mean librispeech-test-clean? Known: "
    )
    assert result.stderr.count("\n") == 1
    assert mirror.asked == []


def test_fetch_of_nothing_is_wrong_usage() -> None:
    assert run("fetch").exit_code == 2


def test_verify_of_a_whole_set(cache: Path) -> None:
    run("fetch", NAME)
    result = run("verify", NAME)
    assert (result.exit_code, result.stderr) == (0, "")
    cells = result.stdout.splitlines()[1].split()
    place = f"{cache}/LibriSpeech/test-small"
    assert cells == [NAME, "whole", *["4", "of", "4", "2", "of", "2", "0.00", "0", "0", "0"], place]
    assert run("verify").stdout == result.stdout


def test_verify_of_an_empty_cache() -> None:
    result = run("verify")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "`tilescribe datasets fetch librispeech-test-clean` gets one" in result.stderr


def test_verify_of_what_is_not_here() -> None:
    result = run("verify", NAME)
    assert (result.exit_code, result.stdout) == (5, "")
    assert f"`tilescribe datasets fetch {NAME}` gets it" in result.stderr


def test_verify_of_a_part(tmp_path: Path) -> None:
    make_set(tmp_path / "test-small", "19-198-0000")
    result = run("verify", NAME, "--data-dir", str(tmp_path))
    assert result.exit_code == 5
    assert "  a part  1 of 4      1 of 2 " in result.stdout
    assert "1 of 4 utterances, 1 of 2 speakers: a part, not test-small: copy the set again" in result.stderr


def test_verify_counts_what_is_wrong_and_names_the_first(cache: Path) -> None:
    folder = make_set(cache / "LibriSpeech" / "test-small")
    (folder / "19" / "198" / "19-198-0000.flac").unlink()
    (folder / "19" / "198" / "19-198-0007.flac").touch()
    (folder / "26" / "495" / "26-495-0000.flac").write_bytes(b"fLaC")
    result = run("verify", NAME)
    assert result.exit_code == 5
    assert states(result) == [[NAME, "damaged"]]
    first, second, third = result.stderr.splitlines()
    assert (
        f"1 utterances have no audio, the first {folder}/19/198/19-198-0000.flac: remove {folder}," in first
    )
    assert f"1 recordings have no text, the first {folder}/19/198/19-198-0007.flac: remove" in second
    assert (
        f"1 recordings are damaged, the first {folder}/26/495/26-495-0000.flac: can't be decoded (" in third
    )
    assert third.endswith(f"and `tilescribe datasets fetch {NAME}` gets the whole")
