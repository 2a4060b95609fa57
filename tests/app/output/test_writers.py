from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.audio.inputs import Recording
from app.output.writers import (
    ALL,
    FORMATS,
    Format,
    Layout,
    Output,
    formats,
    render,
    write_segments,
    write_whole,
)
from app.transcript import Run, Transcript
from models.decoding.options import DecodeOptions
from models.decoding.segments import Segment, Word


def segment(
    number: int, start: float, end: float, text: str, words: tuple[Word, ...] | None = None
) -> Segment:
    return Segment(number, 0, start, end, text, (1, 2), 0.0, -0.2, 1.1, 0.01, words)


@pytest.fixture
def transcript() -> Transcript:
    words = (Word(" Good", 0.0, 0.5, 0.9), Word(" morning.", 0.5, 1.25, 0.8))
    run = Run(
        "tiny.en",
        "ab" * 32,
        "int32",
        "emulator",
        "no NPU",
        64,
        "float32",
        "asked for",
        "full",
        DecodeOptions(),
        1,
        version="1.2.3",
    )
    segments = (
        segment(0, 0.0, 1.25, " Good morning.", words),
        segment(1, 1.25, 1.25, "", ()),
        segment(2, 61.5, 3661.75, " Wörter\tund mehr.", (Word(" Wörter\tund", 61.5, 62.0, 0.5),)),
    )
    return Transcript("Good morning. Wörter und mehr.", segments, "en", 0.75, 3662.0, run)


def test_text_is_a_line_a_segment_without_empty_ones(transcript: Transcript) -> None:
    assert render(transcript, "txt") == "Good morning.\nWörter\tund mehr.\n"


def test_subtitles_number_and_time_their_lines(transcript: Transcript) -> None:
    layout = Layout()
    no_words = Transcript(
        transcript.text,
        tuple(segment(s.id, s.start, s.end, s.text) for s in transcript.segments),
        "en",
        None,
        3662.0,
        transcript.run,
    )
    assert render(no_words, "srt", layout) == (
        "1\n00:00:00,000 --> 00:00:01,250\nGood morning.\n\n"
        "2\n00:01:01,500 --> 01:01:01,750\nWörter\tund mehr.\n\n"
    )
    assert render(no_words, "vtt", layout) == (
        "WEBVTT\n\n00:00.000 --> 00:01.250\nGood morning.\n\n01:01.500 --> 01:01:01.750\nWörter\tund mehr.\n\n"
    )


def test_tsv_is_in_milliseconds_and_has_no_tabs_in_its_text(transcript: Transcript) -> None:
    assert render(transcript, "tsv") == (
        "start\tend\ttext\n0\t1250\tGood morning.\n61500\t3661750\tWörter und mehr.\n"
    )


def test_text_is_escaped_where_a_format_would_read_it(transcript: Transcript) -> None:
    spans = (segment(0, 0.0, 1.5, " Q&A <b>\n\n2\r\tnext --> end"),)
    odd = Transcript("", spans, "en", None, 2.0, transcript.run)
    assert render(odd, "vtt") == (
        "WEBVTT\n\n00:00.000 --> 00:01.500\nQ&amp;A &lt;b&gt;  2 \tnext --&gt; end\n\n"
    )
    assert render(odd, "srt") == "1\n00:00:00,000 --> 00:00:01,500\nQ&A <b>  2 \tnext -> end\n\n"
    assert render(odd, "tsv") == "start\tend\ttext\n0\t1500\tQ&A <b>  2  next --> end\n"


def test_json_has_whispers_fields_and_says_what_ran(transcript: Transcript) -> None:
    record = json.loads(render(transcript, "json"))
    assert record["text"] == transcript.text
    assert record["language"] == "en"
    assert [s["id"] for s in record["segments"]] == [0, 1, 2]
    assert set(record["segments"][0]) == {
        *("id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob"),
        *("compression_ratio", "no_speech_prob", "words"),
    }
    assert record["segments"][0]["words"][0] == {
        "word": " Good",
        "start": 0.0,
        "end": 0.5,
        "probability": 0.9,
    }
    ran = record["tilescribe"]
    assert ran["schema_version"] == 1
    assert (ran["backend"], ran["device"], ran["device_reason"]) == ("int32", "emulator", "no NPU")
    assert (ran["model"], ran["model_sha256"], ran["tile_size"]) == ("tiny.en", "ab" * 32, 64)
    assert ran["options"]["condition_on_previous_text"] is True
    assert (ran["duration"], ran["language_probability"], ran["version"]) == (3662.0, 0.75, "1.2.3")


def test_words_per_line_break_subtitles(transcript: Transcript) -> None:
    text = render(transcript, "srt", Layout(max_words_per_line=1))
    assert text.startswith(
        "1\n00:00:00,000 --> 00:00:00,500\nGood\n\n2\n00:00:00,500 --> 00:00:01,250\nmorning.\n"
    )


def test_every_format_is_written_and_nothing_else(transcript: Transcript, tmp_path: Path) -> None:
    output = Output(str(tmp_path), formats("all"))
    stem = Path("new/talk.v2")
    assert not output.has(stem)
    paths = output.write(transcript, Recording("talk.wav", stem))
    assert paths == [tmp_path / "new" / f"talk.v2.{form}" for form in ALL]
    assert output.has(stem)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    for path, form in zip(paths, ALL, strict=True):
        assert path.read_text(encoding="utf-8") == render(transcript, form)
        assert stat.S_IMODE(path.stat().st_mode) & 0o400


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    transcript: Transcript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        Output(str(tmp_path), ("txt",)).write(transcript, Recording("a.wav", Path("a")))
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(
        ValueError, match="unknown format 'doc': choose from txt, srt, vtt, tsv, json, html, all"
    ):
        formats("doc")


def to(folder: Path, *names: str) -> None:
    Output(str(folder), FORMATS).check([Recording(name, Path(name).with_suffix("")) for name in names])


def test_what_would_be_written_over_is_found_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"x/a.wav and y/a.wav would be written to the same file"):
        Output(".", ("txt",)).check(
            [Recording("x/a.wav", Path("a")), Recording("y/a.wav", Path("a")), Recording("b", Path("b"))]
        )
    Output(None, ("txt",)).check([Recording("x/a.wav", Path("a")), Recording("y/a.wav", Path("a"))])
    with pytest.raises(ValueError, match=r"talk.txt is a recording, and would be written over"):
        to(Path("."), "talk.txt")
    to(Path("out"), "talk.txt")


def test_a_folder_that_takes_no_files_is_found_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "out" / "a.json").mkdir(parents=True)
    to(tmp_path / "new" / "newer", "a.wav")
    assert not (tmp_path / "new").exists()
    for folder, cause in (
        (tmp_path / "file", errno.ENOTDIR),
        (tmp_path / "file" / "new", errno.ENOTDIR),
        (tmp_path / "out", errno.EISDIR),
        (tmp_path / "new" / ("x" * 256), errno.ENAMETOOLONG),
        (tmp_path / ("x" * 256), errno.ENAMETOOLONG),
    ):
        with pytest.raises(OSError, match=os.strerror(cause)):
            to(folder, "a.wav")
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # as root may write anywhere
    with pytest.raises(PermissionError) as refused:
        to(tmp_path / "new", "a.wav")
    assert refused.value.filename == str(tmp_path)


def test_a_file_with_the_longest_of_names_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("語" * 83 + ".json")
    assert write_whole(path, "{}").read_text() == "{}"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "layout", [Layout(), Layout(max_words_per_line=1), Layout(max_line_width=20, max_line_count=1)]
)
@pytest.mark.parametrize("form", ["txt", "srt", "vtt", "tsv"])
def test_cues_are_shown_as_their_segments_come_each_whole(
    transcript: Transcript, form: Format, layout: Layout
) -> None:
    shown: list[str] = []
    before = []

    def coming() -> Iterator[Segment]:
        for one in transcript.segments:
            before.append("".join(shown))
            yield one
        before.append("".join(shown))

    write_segments(coming(), form, layout, shown.append)
    whole = render(transcript, form, layout)
    assert "".join(shown) == whole
    assert all(text.endswith("\n") for text in shown)
    assert before[0] == ""
    # Where lines flow on over segments, a cue is whole when the next one begins.
    assert "morning" in before[-1 if form in ("srt", "vtt") else 1]


def test_what_is_printed_while_it_is_decoded() -> None:
    assert [Output("-", (form,)).printed for form in ("txt", "srt", "json", "html")] == [
        "txt",
        "srt",
        None,
        None,
    ]
    assert Output("folder", ALL).printed == Output(None, ("txt",)).printed == "txt"


def test_nothing_said_is_a_whole_file_too() -> None:
    shown: list[str] = []
    write_segments((), "vtt", Layout(), shown.append)
    assert shown == ["WEBVTT\n\n"]
