from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from material.small_librispeech import TEXTS, Mirror, make_set, small_set

from datasets.dataset import Dataset, open_dataset
from datasets.librispeech import CATALOGUE
from datasets.utterance import DatasetError, UnknownDatasetError

NAME = "librispeech-test-small"


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small set is in the catalogue."""
    monkeypatch.setitem(CATALOGUE, NAME, small_set(b"archive", "http://127.0.0.1:9/12"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_set(tmp_path / "data" / "LibriSpeech" / "test-small")


def opened(data_dir: Path | None, *, allow_missing: bool = False) -> Dataset:
    return open_dataset(NAME, data_dir, allow_missing=allow_missing)


@pytest.mark.parametrize("given", ["", "LibriSpeech", "LibriSpeech/test-small"])
def test_a_copy_at_hand_is_found_from_any_of_its_folders(folder: Path, tmp_path: Path, given: str) -> None:
    found = opened(tmp_path / "data" / given)
    assert {u.audio.parents[2] for u in found.utterances} == {folder}
    assert [(u.id, u.text, u.speaker) for u in found.utterances] == [
        (name, text, name.split("-")[0]) for name, text in sorted(TEXTS.items())
    ]
    assert found.complete is True
    assert found.description == "librispeech-test-small: all 4 utterances"
    assert found.expected == 4


def test_a_sets_own_folder_may_have_another_name(folder: Path, tmp_path: Path) -> None:
    renamed = folder.rename(tmp_path / "mine")
    assert opened(renamed).complete


def test_the_cache_is_where_a_set_is_looked_for(folder: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    folder.parent.rename(cache / "LibriSpeech")
    assert opened(None).complete


def test_a_part_is_never_called_the_whole(tmp_path: Path) -> None:
    make_set(tmp_path / "test-small", "19-198-0000", "19-227-0000")
    part = opened(tmp_path)
    assert part.complete is False
    assert part.description == "librispeech-test-small: 2 of 4 utterances: a part, not test-small"


def test_as_many_utterances_of_fewer_speakers_are_not_the_whole(folder: Path, tmp_path: Path) -> None:
    (folder / "26" / "495" / "26-495-0000.flac").unlink()
    (folder / "26" / "495" / "26-495.trans.txt").unlink()
    (folder / "19" / "198" / "19-198-0002.flac").touch()
    with (folder / "19" / "198" / "19-198.trans.txt").open("a") as transcript:
        transcript.write("19-198-0002 EIGHT\n")
    odd = opened(folder)
    assert odd.complete is False
    assert odd.description == "librispeech-test-small: 4 utterances, not the 4 of test-small: not test-small"


def test_a_chapter_of_test_clean_is_a_part_of_it(tmp_path: Path) -> None:
    chapter = tmp_path / "LibriSpeech" / "test-clean" / "61" / "70968"
    chapter.mkdir(parents=True)
    (chapter / "61-70968-0000.flac").touch()
    (chapter / "61-70968.trans.txt").write_text("61-70968-0000 HE BEGAN\n")
    part = open_dataset("librispeech-test-clean", tmp_path)
    assert part.description == "librispeech-test-clean: 1 of 2,620 utterances: a part, not test-clean"
    assert part.complete is False
    with pytest.raises(
        DatasetError, match=r"librispeech-test-other is not in .*: give the folder test-other"
    ):
        open_dataset("librispeech-test-other", chapter.parents[1])


def test_another_sets_speakers_are_refused(folder: Path) -> None:
    chapter = folder / "27" / "1"
    chapter.mkdir(parents=True)
    (chapter / "27-1-0000.flac").touch()
    (chapter / "27-1.trans.txt").write_text("27-1-0000 NINE\n")
    with pytest.raises(DatasetError, match="speaker 27 is not one of test-small's: another set"):
        opened(folder)


def test_a_transcript_line_without_audio_is_one_error(folder: Path) -> None:
    first = folder / "19" / "198" / "19-198-0001.flac"
    first.unlink()
    (folder / "26" / "495" / "26-495-0000.flac").unlink()
    with pytest.raises(DatasetError, match="missing, though") as raised:
        opened(folder)
    assert str(raised.value) == (
        f"{first}: missing, though 19-198.trans.txt has its text; 2 of 4 utterances have no audio: "
        "copy the set again, with every file of its chapters"
    )
    allowed = opened(folder, allow_missing=True)
    assert (len(allowed.utterances), allowed.complete) == (2, False)
    assert allowed.description == (
        "librispeech-test-small: 2 of 4 utterances: a part, not test-small (2 without audio left out)"
    )


@pytest.mark.parametrize("whole_chapter", [False, True], ids=["a line", "a transcript"])
def test_audio_without_text_is_one_error(folder: Path, whole_chapter: bool) -> None:
    transcript = folder / "19" / "198" / "19-198.trans.txt"
    if whole_chapter:
        transcript.unlink()
    else:
        transcript.write_text("19-198-0001 THREE\n")
    with pytest.raises(DatasetError, match=r"19-198-0000\.flac: has no line in 19-198\.trans\.txt; \d of 4"):
        opened(folder)
    allowed = opened(folder, allow_missing=True)
    assert allowed.complete is False
    assert f"({1 + whole_chapter} without text left out)" in allowed.description


def test_both_at_once_are_one_error(folder: Path) -> None:
    (folder / "26" / "495" / "26-495-0000.flac").unlink()
    (folder / "19" / "198" / "19-198-0009.flac").touch()
    with pytest.raises(DatasetError, match="1 of 4 utterances have no audio, 1 recordings no text: copy"):
        opened(folder)


def test_nothing_usable_is_an_error_even_if_missing_files_are_allowed(folder: Path) -> None:
    for recording in folder.rglob("*.flac"):
        recording.unlink()
    with pytest.raises(DatasetError, match="no utterance has both audio and text"):
        opened(folder, allow_missing=True)


def test_files_that_macos_leaves_beside_others_are_passed_over(folder: Path) -> None:
    (folder / "19" / "198" / "._19-198.trans.txt").write_bytes(b"\xff\0")
    (folder / "19" / "198" / "._19-198-0000.flac").write_bytes(b"\xff\0")
    (folder / ".DS_Store").touch()
    assert opened(folder).complete


def test_a_set_that_is_not_here_says_how_to_get_it(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"is not on this machine .*: `tilescribe datasets fetch"
    ) as raised:
        opened(None)
    assert str(raised.value).endswith("gets it (0 MB), or give a copy at hand with --data-dir")
    nowhere = tmp_path / "nowhere"
    with pytest.raises(
        DatasetError, match=f"is not in {nowhere}, which does not exist: give the folder test-small"
    ):
        opened(nowhere)
    (tmp_path / "test-small.tar.gz").touch()
    with pytest.raises(
        DatasetError, match=f"not unpacked yet .*`tilescribe .* --data-dir {tmp_path}` does that"
    ):
        opened(tmp_path)


def test_a_set_that_is_not_here_is_fetched_on_demand(
    mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOGUE, NAME, small_set(mirror.data, mirror.url))
    for _ in range(2):
        found = open_dataset(NAME, download=True)
        assert found.complete
        assert found.utterances[0].audio.is_relative_to(cache / "LibriSpeech" / "test-small")
    assert mirror.asked == [None]


def test_nothing_is_fetched_into_a_folder_for_copies_at_hand(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(
        DatasetError, match=f"which does not exist.*`tilescribe .* --data-dir {nowhere}` gets it"
    ):
        open_dataset(NAME, nowhere, download=True)
    assert not nowhere.exists()


def test_a_part_that_is_here_is_taken_rather_than_fetched(cache: Path) -> None:
    make_set(cache / "LibriSpeech" / "test-small", "19-198-0000")
    assert open_dataset(NAME, download=True).complete is False


@pytest.mark.parametrize("name", ["librispeech-test-smal", "LIBRISPEECH-TEST-SMALL"])
def test_an_unknown_name_is_wrong_usage(name: str) -> None:
    with pytest.raises(
        UnknownDatasetError, match=f"unknown data set '{name}': did you mean {NAME}\\? Known: "
    ):
        open_dataset(name)


def manifest(folder: Path, text: str) -> Path:
    (folder / "a.wav").touch()
    (folder / "b.wav").touch()
    path = folder / "calls.csv"
    path.write_text(text)
    return path


def test_a_manifest_is_taken_as_it_is_given(tmp_path: Path) -> None:
    found = open_dataset(manifest(tmp_path, "audio,text,speaker\nb.wav,two,x\na.wav,one,x\n"))
    assert [(u.id, u.text) for u in found.utterances] == [("a.wav", "one"), ("b.wav", "two")]
    assert (found.name, found.expected, found.complete) == ("calls.csv", None, None)
    assert found.description == "calls.csv: 2 utterances, as given"


def test_missing_recordings_of_a_manifest_are_one_error(tmp_path: Path) -> None:
    path = manifest(tmp_path, "audio,text\na.wav,one\nc.wav,two\nd.wav,three\n")
    with pytest.raises(DatasetError) as raised:
        open_dataset(path)
    assert str(raised.value) == (
        f"{path}, line 3: {tmp_path}/c.wav is missing; 2 of 3 recordings are: paths are relative to {tmp_path}"
    )
    allowed = open_dataset(path, allow_missing=True)
    assert allowed.description == "calls.csv: 1 utterances, as given (2 without audio left out)"
    with pytest.raises(DatasetError, match=r"3 of 3 recordings are: paths are relative to .*elsewhere"):
        open_dataset(path, tmp_path / "elsewhere", allow_missing=True)


def test_what_is_neither_a_set_nor_a_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"none\.csv: no such file: check the path, or name a set: librisp"
    ):
        open_dataset("none.csv")
    with pytest.raises(DatasetError, match="none/here: no such file"):
        open_dataset("none/here")
    with pytest.raises(DatasetError, match=r"is a folder: give a manifest .* with --data-dir "):
        open_dataset(tmp_path)


def test_the_hash_says_which_data(folder: Path, tmp_path: Path) -> None:
    whole = opened(folder)
    lines = "".join(f'["{name}", "{text}"]\n' for name, text in sorted(TEXTS.items()))
    assert whole.content_sha256 == hashlib.sha256(lines.encode()).hexdigest()
    moved = folder.rename(tmp_path / "test-small")
    assert opened(moved).content_sha256 == whole.content_sha256
    transcript = moved / "26" / "495" / "26-495.trans.txt"
    transcript.write_text("26-495-0000 SEVENTY\n")
    assert opened(moved).content_sha256 != whole.content_sha256


def test_the_hash_is_over_utf_8(tmp_path: Path) -> None:
    found = open_dataset(manifest(tmp_path, "audio,text\na.wav,Äpfel\n"))
    assert found.content_sha256 == hashlib.sha256('["a.wav", "Äpfel"]\n'.encode()).hexdigest()
