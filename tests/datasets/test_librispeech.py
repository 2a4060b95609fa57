from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest
from material.audio_files import sweep, write
from material.small_librispeech import TEXTS, make_set, small_set

from app.audio.reading import load_audio
from datasets.librispeech import CATALOGUE, NamedSet, Verification, utterances, verify
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


def test_the_catalogue_is_librispeechs() -> None:
    found = {e.folder: (e.utterances, len(e.speakers), e.hours) for e in CATALOGUE.values()}
    assert found == {
        "test-clean": (2620, 40, 5.40),
        "test-other": (2939, 33, 5.34),
        "dev-clean": (2703, 40, 5.39),
        "dev-other": (2864, 33, 5.12),
    }
    for name, known in CATALOGUE.items():
        assert name == known.name == f"librispeech-{known.folder}"
        assert known.urls[0] == f"https://www.openslr.org/resources/12/{known.folder}.tar.gz"
    assert len(frozenset.union(*(e.speakers for e in CATALOGUE.values()))) == 40 + 33 + 40 + 33
    assert len({e.archive_md5 for e in CATALOGUE.values()}) == 4


SPEAKERS = """\
; Made up, in the format of LibriSpeech's SPEAKERS.TXT.
;ID  |SEX| SUBSET           |MINUTES| NAME
1    | F | test-clean       | 30.5  | Reader 1
2    | M | train-clean-100  | 25.00 | Reader 2
3    | F | test-clean       |  2.0  | Reader 3 | of two names
4    | M | dev-other        | 10    | Lëser 4, Читатель
5    | F | dev-other        |  1.5  |
6    | M | dev-other        |  3
7    | F | dev-other
"""


def minutes_of(speakers: str) -> dict[str, dict[str, float]]:
    """Minutes of each speaker in each subset, from the text of a SPEAKERS.TXT; rows without minutes are left out."""
    found: dict[str, dict[str, float]] = {}
    for line in speakers.splitlines():
        speaker, _, subset, minutes, *_ = (*(cell.strip() for cell in line.split("|")), "", "", "")
        if minutes and not line.startswith(";"):
            found.setdefault(subset, {})[speaker] = float(minutes)
    return found


def test_a_list_of_speakers_is_read_by_subset() -> None:
    assert minutes_of(SPEAKERS) == {
        "test-clean": {"1": 30.5, "3": 2.0},
        "train-clean-100": {"2": 25.0},
        "dev-other": {"4": 10.0, "5": 1.5, "6": 3.0},
    }


@pytest.mark.slow
def test_the_speakers_are_those_of_librispeechs_own_list(speech: Path) -> None:
    minutes = minutes_of((speech / "LibriSpeech" / "SPEAKERS.TXT").read_text(encoding="utf-8"))
    for known in CATALOGUE.values():
        assert minutes[known.folder].keys() == known.speakers
        assert sum(minutes[known.folder].values()) / 60 == pytest.approx(known.hours, abs=0.005)


@pytest.mark.network
@pytest.mark.parametrize("known", CATALOGUE.values(), ids=lambda known: known.folder)
def test_the_archives_are_as_long_as_the_catalogue_says(known: NamedSet) -> None:
    request = urllib.request.Request(known.urls[0], headers={"Range": "bytes=0-0"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.headers["Content-Range"] == f"bytes 0-0/{known.archive_bytes}"


def test_verify_decodes_every_recording(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "test-small")
    cut, altered, slow, stereo = (
        folder / n.split("-")[0] / n.split("-")[1] / f"{n}.flac" for n in sorted(TEXTS)
    )
    sound = write(cut, sweep(16000, 2), 16000, "flac").read_bytes()
    cut.write_bytes(sound[:-50])
    altered.write_bytes(sound[:-5000] + sound[-4000:])
    write(slow, sweep(8000, 0.5), 8000, "flac")
    write(stereo, sweep(16000, 0.5, 2), 16000, "flac")
    reasons = verified(folder).damaged
    assert set(reasons) == {cut, altered, slow, stereo}
    assert reasons[cut].startswith("can't be decoded (")
    assert re.match(r"can't be decoded|gives [\d,]+ of 32,000 samples", reasons[altered])
    for at in range(-10_000, -100, 1100):  # one bit
        altered.write_bytes(sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :])
        assert altered in verified(folder).damaged
    assert reasons[slow] == "has 1 channels at 8000 Hz, where LibriSpeech has one at 16000"
    assert reasons[stereo] == "has 2 channels at 16000 Hz, where LibriSpeech has one at 16000"
    write(cut, sweep(16000, 0.5), 16000, "pcm_s16le", container="wav")
    write(altered, sweep(16000, 0.5)[:0], 16000, "flac")
    reasons = verified(folder).damaged
    assert reasons[cut] == "is wav, not FLAC"
    assert altered in reasons


def verified(folder: Path) -> Verification:
    return verify(small_set(b""), folder)


def test_verify_knows_other_sets_and_too_much(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "test-small")
    write(folder / "26" / "495" / "26-495-0001.flac", sweep(16000, 0.5), 16000, "flac")
    transcript = folder / "26" / "495" / "26-495.trans.txt"
    transcript.write_text(transcript.read_text() + "26-495-0001 EIGHT\n")
    found = verified(folder)
    assert (found.state, found.problems) == ("damaged", ["5 utterances, where test-small has 4"])
    place = folder / "27" / "1"
    place.mkdir(parents=True)
    write(place / "27-1-0000.flac", sweep(16000, 0.5), 16000, "flac")
    (place / "27-1.trans.txt").write_text("27-1-0000 NINE\n")
    found = verified(folder)
    assert found.state == "damaged"
    assert found.problems == ["speaker 27 is not one of test-small's: another set, or a mixture"]
