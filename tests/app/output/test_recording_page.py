from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from material.audio_files import wave
from material.web_pages import Browser, Page
from typer.testing import CliRunner

from app.audio.reading import array_blocks, load_audio
from app.cli import _transcribe as command
from app.output.page import audio_url, clock, embedded, plays_as_it_is, render_page
from app.output.sound import Encoded
from app.output.spectrogram import Spectrogram
from app.output.writers import Output
from app.transcript import Run, Transcript
from datasets.utterance import Utterance
from models.decoding.coverage import Coverage, Finding
from models.decoding.options import DecodeOptions
from models.decoding.segments import Segment, Word
from models.voice import VadOptions

HOSTILE = "</script><script>alert(1)</script> <b>bold</b> \"quoted\" 'single' & <!-- {{ 7 * 7 }} 日本語"


def segment(start: float, end: float, text: str, *words: Word) -> Segment:
    return Segment(0, 0, start, end, text, (1, 2), 0.0, -0.2, 1.1, 0.01, words or None)


RUN = Run(
    model="tiny.en", model_sha256="ab" * 32, backend="int32", device="emulator",
    device_reason="there is no NPU here", tile_size=64, compute_type="int8", compute_reason="asked for",
    audio_context="full", options=DecodeOptions(vad=VadOptions()), batch_size=1, version="1.2.3",
)  # fmt: skip
WORDS = (Word(" Good", 0.0, 0.5, 0.9), Word(" morning.", 0.5, 1.25, 0.3))
FOUND = (
    Finding("recovered", 28.0, 32.0, "Wörter"),
    Finding("speech without text", 50.0, 55.5),
)
TRANSCRIPT = Transcript(
    "Good morning. Wörter",
    (segment(0.0, 1.25, " Good morning.", *WORDS), segment(28.0, 32.0, " Wörter")),
    "en",
    0.75,
    70.0,
    RUN,
    ("clipped",),
    coverage=Coverage(20.0, 14.5, 4.0, FOUND, ((0.1, 1.3), (26.0, 34.0), (50.0, 55.5))),
)


def spans(page: Page, tag: str, **attributes: str) -> list[dict[str, str | None]]:
    return [page.elements[place][1] for place in page.all(tag, **attributes)]


def boxes(page: Page, kind: str) -> list[str]:
    """Where there is something of a kind, in percent of its row."""
    return [
        own["style"] or ""
        for _, own, _ in page.elements
        if own.get("style") and (own.get("class") or "").split()[:1] == [kind]
    ]


def test_what_ran_is_said_and_an_emulator_is_no_npu() -> None:
    page = Page(render_page(TRANSCRIPT, "talks/one.wav"))
    assert page.faults == []
    assert page.first("h1") == "one.wav"
    facts = page.first("dl")
    for said in ("tiny.en", "int32", "emulator on the CPU there is no NPU here", "int8 asked for", "70.0 s",
                 "en detected, 75 %", "20.0 s 14.5 s of it with text, 4.0 s recovered"):  # fmt: skip
        assert said in facts
    assert "clipped" in page.first("ul", class_="notes")
    assert "context" not in facts
    short = replace(TRANSCRIPT, run=replace(RUN, audio_context="auto"))
    assert "context of the encoderauto" in Page(render_page(short, "a")).first("dl")
    real = replace(RUN, device="npu", device_reason="amdxdna works")
    assert "computed onNPU amdxdna works" in Page(render_page(replace(TRANSCRIPT, run=real), "a")).first("dl")


def test_words_have_their_times_and_segments_without_words_theirs() -> None:
    page = Page(render_page(TRANSCRIPT, "one.wav"))
    words = [
        place
        for place, (_, own, _) in enumerate(page.elements)
        if (own.get("class") or "").split()[:1] == ["w"]
    ]
    assert [(page.text(place), page.elements[place][1]["data-t"]) for place in words] == [
        ("Good", "0.00 0.50 90"),
        ("morning.", "0.50 1.25 30"),
        ("Wörter", "28.00 32.00 82"),
    ]
    assert [page.elements[place][1]["class"] for place in words] == ["w", "w unsure", "w"]
    assert boxes(page, "said") == [
        "left:0.00%;width:1.67%", "left:1.67%;width:2.50%", "left:93.33%;width:6.67%", "left:0.00%;width:6.67%",
    ]  # fmt: skip
    assert "Good morning." in page.first("ol", class_="segments")


def test_speech_and_findings_lie_on_their_rows() -> None:
    page = Page(render_page(TRANSCRIPT, "one.wav"))
    rows = [own["data-row"] for own in spans(page, "div", class_="strip")]
    assert rows == ["0.00 30.00", "30.00 60.00", "60.00 70.00"]
    assert boxes(page, "speech") == [
        "left:0.33%;width:4.00%", "left:86.67%;width:13.33%", "left:0.00%;width:13.33%", "left:66.67%;width:18.33%",
    ]  # fmt: skip
    assert boxes(page, "finding") == [
        "left:93.33%;width:6.67%", "left:0.00%;width:6.67%", "left:66.67%;width:18.33%",
    ]  # fmt: skip
    listed = page.first("ol", class_="findings")
    assert "0:28.0 to 0:32.0recovereddecoded again: this is its textWörter" in listed
    assert "0:50.0 to 0:55.5speech without text" in listed
    times = [own["data-t"] for own in spans(page, "button")]
    assert times == ["28.00 32.00", "50.00 55.50"]


def test_without_voice_activity_that_is_said() -> None:
    page = Page(render_page(replace(TRANSCRIPT, coverage=None), "one.wav"))
    assert page.faults == []
    assert "voice activity detection was off" in page.first("dl")
    assert not page.all("ol", class_="findings")
    assert boxes(page, "speech") == []


def test_nothing_said_makes_a_page() -> None:
    silent = replace(TRANSCRIPT, text="", segments=(), duration=0.0, coverage=Coverage(0.0, 0.0, 0.0, ()))
    page = Page(render_page(silent, "one.wav"))
    assert page.faults == []
    assert "There is no text." in page.first("main")
    assert len(page.all("section", class_="row")) == 1


def test_hostile_text_stays_text() -> None:
    loud = segment(0.0, 9.0, HOSTILE, Word(HOSTILE, 0.0, 9.0, 0.9))
    odd = replace(
        TRANSCRIPT,
        segments=(loud, segment(9.0, 9.5, HOSTILE)),
        language=HOSTILE,
        notes=(HOSTILE,),
        run=replace(RUN, model=HOSTILE, device_reason=HOSTILE, compute_reason=HOSTILE),
        coverage=Coverage(1, 1, 1, (Finding("loop", 0.0, 9.0, HOSTILE),)),
    )
    written = render_page(odd, f"a/<&\"'>{HOSTILE.replace('/', '')}\udce9", audio='x"onerror="alert(1)')
    page = Page(written)
    assert page.faults == []
    assert len(page.all("script")) == 1
    assert all("onerror" not in own for _, own, _ in page.elements)
    assert page.first("h1").startswith("<&\"'><script>")
    assert page.text(page.all("span", class_="w")[0]) == HOSTILE
    assert "49" not in page.first("h1")
    written.encode("utf-8")


def test_the_pages_policy_allows_its_script_and_nothing_from_elsewhere() -> None:
    page = Page(render_page(TRANSCRIPT, "one.wav"))
    script = page.texts[page.all("script")[0]]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert page.policy().startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in page.policy()
    assert all(not (own.get("src") or "").startswith(("http", "//")) for _, own, _ in page.elements)


def test_a_page_links_to_its_recording_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "out" / "in").mkdir(parents=True)
    name = tmp_path / "out" / "a b#é.wav"
    name.write_bytes(b"RIFF")
    assert audio_url(str(name), tmp_path / "out") == "a%20b%23%C3%A9.wav"
    assert audio_url(str(name), tmp_path / "out" / "in") == "../a%20b%23%C3%A9.wav"
    assert audio_url(str(name), tmp_path / "other") == "../out/a%20b%23%C3%A9.wav"
    assert audio_url(str(name), None) == name.as_uri()
    assert embedded(str(name), None) == "data:audio/wav;base64,UklGRg=="
    assert audio_url("-", tmp_path) is None
    assert audio_url(str(tmp_path), tmp_path) is None


def test_only_a_page_can_hold_audio(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--embed-audio needs -f html"):
        Output(str(tmp_path), ("txt",), embed_audio=True)
    (tmp_path / "a.WAV").touch()
    (tmp_path / "a.mkv").touch()
    names = "a.WAV", "a.mkv", "none.wav"
    assert [plays_as_it_is(str(tmp_path / name)) for name in names] == [True, False, False]


def test_what_is_encoded_sounds_at_the_same_time() -> None:
    sound = (np.random.default_rng(0).standard_normal(16000 * 40) * 0.1).astype(np.float32)
    sound[: 16000 * 33] = 0
    source = Encoded(array_blocks(sound))
    assert np.array_equal(np.concatenate(list(source.blocks())), sound)
    heard = load_audio(io.BytesIO(source.webm()))
    assert len(heard) == len(sound)
    assert abs(int(np.flatnonzero(np.abs(heard) > 0.05)[0]) - 16000 * 33) < 160


@pytest.mark.parametrize(
    ("seconds", "digits", "shown"),
    [(0, 1, "0:00.0"), (59.96, 1, "1:00.0"), (61.25, 0, "1:01"), (3661.5, 1, "1:01:01.5"), (0, 0, "0:00")],
)
def test_times_are_those_of_a_clock(seconds: float, digits: int, shown: str) -> None:
    assert clock(seconds, digits) == shown


def shades(png: bytes) -> Any:
    """A picture (bands, columns), the lowest band first."""
    with av.open(io.BytesIO(png)) as file:
        return next(file.decode(video=0)).to_ndarray(format="gray")[::-1]


def test_a_spectrogram_shows_when_and_how_high_it_sounds() -> None:
    time = np.arange(16000 * 70) / 16000
    low, high = np.sin(2 * np.pi * 200 * time), np.sin(2 * np.pi * 5000 * time)
    samples = (0.1 * np.where(time < 31, 0, np.where(time < 50, low, high))).astype(np.float32)
    source = Spectrogram(array_blocks(samples))
    assert np.array_equal(np.concatenate(list(source.blocks())), samples)
    first, second, third = map(shades, source.pictures())
    assert [picture.shape for picture in (first, second, third)] == [(80, 600), (80, 600), (80, 200)]
    assert not first.any()
    assert not second[:, :19].any()  # up to 31 s
    assert (second[:, 21:398].argmax(axis=0) < 10).all()
    assert (second[:, 402:].argmax(axis=0) > 60).all()
    assert third.max() > 200


@pytest.mark.parametrize("count", [1, 700, 800, 801, 16000])
def test_blocks_of_any_size_draw_the_same(count: int) -> None:
    samples = np.random.default_rng(0).standard_normal(40123).astype(np.float32)
    whole, parts = Spectrogram(array_blocks(samples)), Spectrogram(array_blocks(samples[:count]))
    list(whole.blocks())
    pieces = Spectrogram(array_blocks(samples))
    list(pieces.blocks(seconds=0.03))
    list(parts.blocks())
    assert pieces.pictures() == whole.pictures()
    assert shades(parts.pictures()[0]).shape == (80, -(-count // 800))


def transcribe(*arguments: str | Path, **how: Any) -> Any:
    return CliRunner().invoke(command, ["--model", "tiny.en", "-f", "html", *map(str, arguments)], **how)


@pytest.mark.usefixtures("one_load")
def test_standard_input_makes_a_page_without_a_player(tmp_path: Path) -> None:
    silence = wave(np.zeros((16000 * 2, 1), np.int16), 16000)
    result = transcribe("-", "-o", tmp_path, input=silence)
    assert result.exit_code == 0, result.output
    page = Page((tmp_path / "stdin.html").read_text(encoding="utf-8"))
    assert page.faults == []
    assert page.first("h1") == "standard input"
    assert not page.all("audio")
    assert len(page.all("img")) == 1
    assert "There is no text." in page.first("main")
    inside = transcribe("-", "-o", "-", "--embed-audio", input=silence)
    source = spans(Page(inside.stdout), "audio")[0]["src"] or ""
    heard = load_audio(io.BytesIO(base64.b64decode(source.removeprefix("data:audio/webm;base64,"))))
    assert len(heard) == 16000 * 2


@pytest.mark.usefixtures("one_load")
def test_the_command_writes_a_page_with_the_recording_beside_it_or_inside(
    spoken: Utterance, tmp_path: Path
) -> None:
    audio = tmp_path / "harbour.flac"
    audio.write_bytes(Path(spoken.audio).read_bytes())
    result = transcribe(audio, "-o", tmp_path, "--word-timestamps")
    assert result.exit_code == 0, result.output
    page = Page((tmp_path / "harbour.html").read_text(encoding="utf-8"))
    assert page.faults == []
    assert spans(page, "audio")[0]["src"] == "harbour.flac"
    assert page.text(page.all("span", class_="w")[0]) == "The"
    assert boxes(page, "speech")
    printed = transcribe(audio, "-o", "-", "--embed-audio", "-q")
    assert (printed.exit_code, printed.stderr) == (0, "")
    source = spans(Page(printed.stdout), "audio")[0]["src"] or ""
    assert base64.b64decode(source.removeprefix("data:audio/flac;base64,")) == audio.read_bytes()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    chromium = Browser(tmp_path / "profile")
    yield chromium
    chromium.close()


@pytest.mark.browser
def test_a_click_and_the_keyboard_play_from_a_word(browser: Browser, tmp_path: Path) -> None:
    samples = (np.sin(np.arange(8000 * 70) / 4) * 3000).astype(np.int16)
    (tmp_path / "one.wav").write_bytes(wave(samples[:, None], 8000))
    page = tmp_path / "one.html"
    page.write_text(render_page(TRANSCRIPT, "one.wav", audio="one.wav"), encoding="utf-8")
    browser.open(page.as_uri())
    player = "document.getElementById('player')"
    seeked = f"new Promise(done => {player}.addEventListener('seeked', () => done({player}.currentTime)))"
    browser.value(f"window.seeked = {seeked}; 0")
    browser.click("document.querySelectorAll('.w')[2]")
    assert 28.0 <= browser.value("seeked") < 30
    assert browser.value("document.getElementById('now').textContent") == "0:28.00 to 0:32.00, 82 %"
    assert browser.value("document.activeElement.textContent") == "Wörter"
    browser.press("ArrowLeft")
    assert browser.value("document.activeElement.textContent") == "morning."
    browser.press("ArrowUp")
    assert browser.value("document.activeElement.textContent") == "Good"
    browser.press("ArrowRight")
    browser.value(f"window.seeked = {seeked}; 0")
    browser.press("Enter")
    assert 0.5 <= browser.value("seeked") < 2
    browser.value(f"window.seeked = {seeked}; 0")
    browser.click("document.querySelectorAll('.findings button')[1]")
    assert 50.0 <= browser.value("seeked") < 52
    assert browser.value("document.getElementById('lost').hidden") is True
    (tmp_path / "one.wav").unlink()
    browser.open(page.as_uri())
    assert browser.value(
        f"new Promise(done => {player}.error ? done('asks') : {player}.addEventListener('error', () => done('asks')))"
    )
    assert browser.value("document.getElementById('lost').hidden") is False
