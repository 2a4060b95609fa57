from __future__ import annotations

from pathlib import Path

import pytest

from app.audio.reading import load_audio
from datasets.librispeech import utterances
from datasets.sample import sample
from datasets.utterance import DatasetError


def test_the_sample_is_speech_with_its_text() -> None:
    utterance = sample()
    assert utterance.text.startswith("The quiet harbour wakes before the sun.")
    assert len(load_audio(utterance.audio)) / 16000 == pytest.approx(14.1, abs=0.1)


def chapter(folder: Path, lines: str, *audio: str) -> Path:
    place = folder / "test-clean" / "19" / "198"
    place.mkdir(parents=True)
    (place / "19-198.trans.txt").write_text(lines)
    for name in audio:
        (place / f"{name}.flac").write_bytes(b"")
    return folder / "test-clean"


def test_librispeech_is_read_in_the_order_of_ids_whatever_the_order_of_lines(tmp_path: Path) -> None:
    folder = chapter(tmp_path, "19-198-0001 THREE\n19-198-0000 ONE TWO\n\n", "19-198-0000", "19-198-0001")
    assert [(u.id, u.text, u.speaker, u.audio.name) for u in utterances(folder)] == [
        ("19-198-0000", "ONE TWO", "19", "19-198-0000.flac"),
        ("19-198-0001", "THREE", "19", "19-198-0001.flac"),
    ]


@pytest.mark.parametrize(
    ("lines", "audio", "message"),
    [
        ("19-198-0000 ONE\n", [], r"19-198-0000\.flac: missing, though 19-198\.trans\.txt has its text"),
        ("19-198-0000\n", ["19-198-0000"], r"trans\.txt, line 1: utterance 19-198-0000 has no text"),
        ("A B\nA C\n", ["A"], r"trans\.txt, line 2: utterance A a second time"),
        ("19-198-0000 ONE\n", ["19-198-0000", "A"], r"A\.flac: has no line in .*; 1 of 2 recordings have no"),
    ],
    ids=["no audio", "no text", "twice", "no line"],
)
def test_a_part_that_is_missing_is_named(tmp_path: Path, lines: str, audio: list[str], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        utterances(chapter(tmp_path, lines, *audio))


def test_a_folder_that_is_missing_or_other_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere: no such folder"):
        utterances(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"no SPEAKER/CHAPTER/\*\.trans\.txt in it"):
        utterances(tmp_path)


def test_a_transcript_in_another_encoding_is_named(tmp_path: Path) -> None:
    folder = chapter(tmp_path, "")
    (folder / "19" / "198" / "19-198.trans.txt").write_bytes(b"19-198-0000 ONE\n19-198-0001 \xc4\n")
    with pytest.raises(DatasetError, match=r"19-198\.trans\.txt, line 2: is not UTF-8 text"):
        utterances(folder)


def test_a_transcript_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    folder = chapter(tmp_path, "")
    (folder / "19" / "227" / "19-227.trans.txt").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"19-227\.trans\.txt can't be read: Is a directory: check it"):
        utterances(folder)
