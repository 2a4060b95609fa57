"""The page at `/`, as it is sent and as Chromium shows it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import openai
import pytest
import requests
from material.servers import Served, serving, until, wave_file
from material.web_pages import Browser, Page

from app import Transcriber, Transcript
from app.audio.reading import load_audio
from app.output.writers import render
from app.serving.limits import Limits
from app.serving.page import PAGE
from datasets.utterance import Utterance

FORMS = ("srt", "vtt", "txt", "json")
TEXT = "document.getElementById('lines').textContent"
TROUBLE = "document.getElementById('trouble').textContent"
SAVED = "!document.getElementById('files').hidden"
DROP = "document.querySelector('.drop')"


def button(name: str) -> str:
    return f"document.getElementById('{name}')"


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing_of_others(served: Served) -> None:
    for path in PAGE:
        answer = requests.get(served.url + path, timeout=60)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
        )
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in answer.text
        assert "https://" not in answer.text
    page = Page(requests.get(served.url, timeout=60).text)
    assert page.faults == []
    assert len(set(page.ids)) == len(page.ids)
    assert not any(name.startswith("on") or name == "style" for _, own, _ in page.elements for name in own)
    labelled = {own["for"] for tag, own, _ in page.elements if tag == "label"}
    for tag, own, _ in page.elements:
        if tag in ("input", "select"):
            assert own["id"] in labelled
    assert "tiny.en" in page.first("dl")
    assert not page.all("select")  # a model of English alone has no choice of language


def test_the_page_is_shown_without_a_key_and_to_no_other_site(tiny_en: Transcriber, served: Served) -> None:
    with serving(tiny_en, key="secret", local=False) as other:
        for path in PAGE:
            assert requests.get(other.url + path, timeout=60).ok
        assert "hidden" not in Page(requests.get(other.url, timeout=60).text).own("key")
    for headers in ({"Host": "attacker.example"}, {"Origin": "https://attacker.example"}):
        assert requests.get(served.url, headers=headers, timeout=60).status_code == 403


def test_a_stream_has_times_and_at_its_end_the_files_that_transcribe_writes(
    client: openai.OpenAI, long_clip: bytes, long_whole: Transcript
) -> None:
    own = {"tilescribe_files": list(FORMS)}
    stream = client.audio.transcriptions.create(
        file=("a.wav", long_clip), model="whisper-1", stream=True, extra_body=own
    )
    *deltas, done = stream
    segments = [segment for event in deltas for segment in event.tilescribe["segments"]]  # type: ignore[union-attr]
    assert segments == [{"start": s.start, "end": s.end, "text": s.text} for s in long_whole.segments]
    assert "".join(event.delta for event in deltas) == long_whole.text  # type: ignore[union-attr]
    ran = done.tilescribe  # type: ignore[union-attr]
    assert (ran["backend"], ran["device"], ran["language"]) == ("int32", "emulator", "en")
    assert ran["files"] == {form: render(long_whole, form) for form in FORMS}  # type: ignore[arg-type]
    for how, message in (
        ({"stream": False, "extra_body": own}, "needs stream"),
        ({"stream": True, "extra_body": {"tilescribe_files": ["exe"]}}, "choose from txt, srt, vtt, json"),
    ):
        with pytest.raises(openai.BadRequestError, match=message) as refused:
            client.audio.transcriptions.create(file=b"", model="whisper-1", **how)  # type: ignore[call-overload]
        assert refused.value.param == "tilescribe_files[]"


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory, spoken: Utterance) -> Path:
    """What is said into it."""
    path = tmp_path_factory.mktemp("microphone") / "said.wav"
    path.write_bytes(wave_file(load_audio(spoken.audio)))
    return path


@pytest.fixture
def browser(tmp_path: Path, microphone: Path) -> Iterator[Browser]:
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    profile = tmp_path / "profile"
    with closing(Browser(profile, *fake, f"--use-file-for-fake-audio-capture={microphone}")) as chromium:
        chromium.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        yield chromium


@pytest.mark.browser
def test_a_dropped_recording_is_read_heard_and_saved(
    browser: Browser, served: Served, spoken: Utterance, scripts: Path, tmp_path: Path
) -> None:
    browser.open(served.url)
    browser.drop(DROP, spoken.audio)
    browser.until(SAVED)
    assert "The quiet harbor wakes" in browser.value(TEXT)
    assert browser.value(TROUBLE) == ""
    assert "int32 on emulator" in browser.value("document.getElementById('ran').textContent")
    player = "document.getElementById('player')"
    browser.value(
        f"window.seeked = new Promise(done => {player}.addEventListener('seeked', () => done({player}.currentTime))); 0"
    )
    line = "[...document.querySelectorAll('.w')].at(-1)"
    browser.click(line)
    start = float(browser.value(f"{line}.dataset.t").split()[0])
    assert start > 5
    assert browser.value("seeked") == pytest.approx(start, abs=0.1)
    browser.press("ArrowUp")
    assert browser.value("document.activeElement === document.querySelector('.w')")
    how = ("--model", "tiny.en", "--device", "emulator", "-f", "all", "-o", tmp_path / "written")
    subprocess.run([scripts / "transcribe", spoken.audio, *how], check=True, capture_output=True)
    for place, form in enumerate(FORMS):
        browser.click(f"document.querySelectorAll('.files a')[{place}]")
        name = spoken.audio.with_suffix(f".{form}").name
        until((tmp_path / name).exists)
        assert (tmp_path / name).read_bytes() == (tmp_path / "written" / name).read_bytes()


@pytest.mark.browser
def test_what_is_said_into_the_microphone_becomes_text_while_it_is_said(
    browser: Browser, live_tiny: Transcriber
) -> None:
    with serving(live_tiny) as served:
        browser.open(served.url)
        browser.click(button("record"))
        browser.until("document.getElementById('partial').textContent")
        browser.until(f"/harbor[^]*sun/i.test({TEXT} + document.getElementById('partial').textContent)")
        assert browser.value("document.getElementById('record').textContent").startswith("Stop recording (0:")
        assert len(served.sessions) == 1
        browser.click(button("record"))
        browser.until("!document.getElementById('start').disabled")
        until(lambda: len(served.sessions) == 0)
        assert "harbor" in browser.value(TEXT)
        assert browser.value("document.getElementById('partial').hidden")
        assert browser.value(TROUBLE) == ""
        browser.click("document.querySelector('.segments .at')")
        browser.until("document.getElementById('player').currentTime > 0.2")
        browser.click(button("start"))
        browser.until(SAVED)
        assert "harbor" in browser.value(TEXT)
        assert browser.value("document.querySelector('.files a').download") == "recording.srt"


@pytest.mark.browser
@pytest.mark.parametrize("key", ["secret", "no token: ключ"])
def test_a_microphone_needs_the_key_too(browser: Browser, live_tiny: Transcriber, key: str) -> None:
    with serving(live_tiny, key=key, local=False) as served:
        browser.open(served.url)
        browser.click(button("record"))
        browser.until(f"{TROUBLE} === 'The server wants an API key.'")
        browser.call("Input.insertText", text=key)
        browser.click(button("record"))
        browser.until("document.getElementById('record').textContent.includes('0:05')")
        browser.click(button("record"))
        browser.until(f"{TEXT} || {TROUBLE}")
        assert browser.value(TROUBLE) == ""
        assert len(served.jobs) == (0 if key == "secret" else 1)


@pytest.mark.browser
def test_what_goes_wrong_is_said_in_a_line(
    browser: Browser, tiny_en: Transcriber, spoken: Utterance, tmp_path: Path
) -> None:
    marked = tmp_path / "<img src=x onerror=alert(1)>.txt"
    marked.write_text("no sound")
    (tmp_path / "empty.wav").touch()
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(2 << 20))
    with serving(tiny_en, Limits(body_bytes=1 << 20)) as served:
        browser.open(served.url)
        for files, said in (
            ((marked,), f"{marked.name}: not audio"),
            ((tmp_path / "empty.wav",), "empty.wav: "),
            ((large,), "large.wav: it has 2.0 MiB; this server takes up to 1.0 MiB"),
            ((tmp_path,), f"{tmp_path.name}: it can't be read"),
            ((spoken.audio, marked), f"One recording at a time: this is {spoken.audio.name}."),
        ):
            browser.drop(DROP, *files)
            browser.until("!document.getElementById('start').disabled")
            assert browser.value(TROUBLE).startswith(said)
            assert browser.value("document.images.length") == 0
        assert browser.value(SAVED)
    browser.click(button("start"))
    browser.until(f"{TROUBLE}.includes('reached')")
    assert browser.value(TEXT) == ""


@pytest.mark.browser
def test_a_key_is_asked_for_before_anything_is_sent(
    browser: Browser, tiny_en: Transcriber, spoken: Utterance
) -> None:
    with serving(tiny_en, key="secret", local=False) as served:
        browser.open(served.url)
        browser.drop(DROP, spoken.audio)
        assert browser.value(TROUBLE) == "The server wants an API key."
        assert browser.value("document.activeElement.id") == "key"
        for key, said in (("wrong ключ", "the API key is wrong"), ("secret", "")):
            browser.call("Input.insertText", text=key)
            browser.press("Enter")
            browser.until("document.getElementById('status').textContent.endsWith('done') || " + TROUBLE)
            assert browser.value(TROUBLE) == said
            browser.value("document.activeElement.select && document.activeElement.select()")
        assert len(served.jobs) == 1


@pytest.mark.browser
def test_text_comes_by_the_window_and_can_be_cancelled_or_cut_off(
    browser: Browser, tiny_en: Transcriber, long_clip: bytes, tmp_path: Path
) -> None:
    long = tmp_path / "long.wav"
    long.write_bytes(long_clip)
    gate = threading.Semaphore(0)
    with serving(tiny_en, Limits(requests=1), gate=gate) as served:
        browser.open(served.url)
        taking = served.client().audio.transcriptions
        with taking.create(file=long_clip, model="whisper-1", stream=True):
            browser.drop(DROP, long)
            browser.until(TROUBLE)
            assert browser.value(TROUBLE) == "the server is full: it takes 1 at a time; try again in 1 s"
        until(lambda: requests.get(f"{served.url}/ready", timeout=60).ok)
        gate.release(2)
        browser.click(button("start"))
        browser.until(TEXT)
        assert browser.value("document.activeElement.id") == "cancel"
        assert 0 < browser.value("document.getElementById('progress').value") < 1
        browser.drop(DROP, long)
        assert browser.value(TROUBLE) == "Wait for the text, or cancel it."
        for leave in (
            lambda: browser.press("Escape"),
            lambda: browser.value("dispatchEvent(new Event('pagehide'))"),
        ):
            leave()
            browser.until(f"{TROUBLE} === 'Cancelled.'")
            assert browser.value(TEXT)
            until(lambda: requests.get(f"{served.url}/health", timeout=60).json()["requests"] == 0)
            gate.release(2)
            browser.click(button("start"))
            browser.until(f"{TEXT} || {TROUBLE}")
    browser.until(f"{TROUBLE} === 'The connection ended before the text did.'")
    assert not browser.value(SAVED)
