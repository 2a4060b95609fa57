import io
import json
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from app.audio.reading import load_audio
from app.cli import _transcribe as command
from app.commands import live as commands
from app.live import sources
from datasets.utterance import Utterance

FIRST = "quiet harbor wakes before the sun"


pytestmark = pytest.mark.usefixtures("one_load")


def transcribe(*arguments: str | Path, given: bytes | None = None) -> Result:
    words = ["--model", "tiny.en", "--context", "auto", "--live", *map(str, arguments)]
    return CliRunner().invoke(command, words, input=given)


def raw(samples: np.ndarray) -> bytes:
    """As arecord's 16-bit samples."""
    return (samples * 32767).astype("<i2").tobytes()


def wave_stream(samples: np.ndarray, rate: int, *, length: int | None = None, bits: int = 16) -> bytes:
    """WAVE of two channels; a program that does not know its length yet declares another one."""
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(2)
        written.setsampwidth(2)
        written.setframerate(rate)
        written.writeframes((np.repeat(samples[:, None], 2, 1) * 32767).astype("<i2").tobytes())
    data = bytearray(file.getvalue())
    data[34:36] = bits.to_bytes(2, "little")
    if length is not None:
        data[40:44] = length.to_bytes(4, "little")
    return bytes(data)


@pytest.fixture(scope="module")
def sound(spoken: Utterance) -> np.ndarray:
    return load_audio(spoken.audio)[: 5 * 16000]


def test_raw_samples_become_lines_and_files(sound: np.ndarray, tmp_path: Path) -> None:
    result = transcribe("-", "-o", tmp_path, "-f", "all", given=raw(sound))
    assert result.exit_code == 0, result.output
    assert FIRST in result.stdout
    assert (tmp_path / "stdin.txt").read_text() == result.stdout
    assert "int32 attention on the emulator on the CPU" in result.stderr
    found = json.loads((tmp_path / "stdin.json").read_text())
    assert FIRST in found["text"]
    assert found["tilescribe"]["device"] == "emulator"
    assert found["segments"][0]["words"][-1]["end"] <= 5.1
    assert (tmp_path / "stdin.srt").read_text().startswith("1\n00:00:0")


def test_standard_output_can_have_subtitles(sound: np.ndarray) -> None:
    result = transcribe("-", "-o", "-", "-f", "srt", given=raw(sound))
    assert result.exit_code == 0
    assert result.stdout.startswith("1\n00:00:0")


def test_wave_of_another_rate_comes_to_the_same(sound: np.ndarray) -> None:
    twice = np.repeat(sound, 2)
    blocks = list(sources.piped(io.BytesIO(wave_stream(twice, 32000, length=0xFFFFFFFF)), "-"))
    assert len(blocks) > 30
    assert sum(map(len, blocks)) == pytest.approx(len(sound), abs=20)
    assert FIRST in transcribe("-", given=wave_stream(twice, 32000)).stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"RIFF1234WAVEfmt ", "a WAVE stream that can't be read as it comes"),
        (b"RIFF", "a WAVE stream that can't be read as it comes"),
        (wave_stream(np.zeros(10), 16000, bits=24), "samples of 24 bits; give 16-bit PCM"),
    ],
)
def test_other_streams_are_refused_in_one_line(given: bytes, said: str) -> None:
    result = transcribe("-", given=given)
    assert result.exit_code == 1
    assert said in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("given", [b"", b"\0", b"RI"])
def test_an_empty_stream_has_no_words(given: bytes) -> None:
    result = transcribe("-", given=given)
    assert (result.exit_code, result.stdout) == (0, "")


def test_what_live_does_not_take_is_said(tmp_path: Path) -> None:
    result = transcribe(tmp_path / "a.wav")
    assert result.exit_code == 2
    assert "--live takes a microphone, or - for standard input" in result.stderr
    assert "--live writes no HTML pages" in transcribe("-", "-f", "html", given=b"").stderr
    nothing = CliRunner().invoke(command, ["--model", "tiny.en"])
    assert nothing.exit_code == 2
    assert "give recordings, or --live for a microphone" in nothing.stderr


def test_without_its_library_there_is_no_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = transcribe()
    assert result.exit_code == 5
    (line,) = result.stderr.splitlines()  # before any model is loaded
    assert line.endswith("which is not here (python -m pip install 'tilescribe[live]')")


class SoundDevice:
    """Refuses what sounddevice refuses on a machine without sound, or speaks what it is given."""

    class PortAudioError(Exception):
        pass

    def __init__(self, spoken: np.ndarray | None) -> None:
        self._spoken = spoken

    def InputStream(  # noqa: N802  # its name
        self, *, samplerate: int, channels: int, dtype: str, blocksize: int, callback: Any
    ) -> Any:
        spoken, error = self._spoken, self.PortAudioError
        if spoken is None:
            raise error("Error querying device -1")
        assert (samplerate, channels, dtype) == (16000, 1, "float32")

        class Stream:
            def start(self) -> None:
                for at in range(0, len(spoken), blocksize):
                    callback(spoken[at : at + blocksize, None], blocksize, None, None)

            def close(self) -> None:
                return

        return Stream()


def test_a_machine_without_a_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", SoundDevice(None))  # type: ignore[arg-type]
    result = transcribe()
    assert result.exit_code == 5
    assert result.stderr.splitlines()[-1].endswith("microphone: it can't be opened: Error querying device -1")


def test_a_microphone_is_heard_until_ctrl_c(sound: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", SoundDevice(sound))  # type: ignore[arg-type]
    take, calls = sources.Microphone.take, []

    def taken(self: sources.Microphone) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return take(self)

    monkeypatch.setattr(sources.Microphone, "take", taken)
    result = transcribe()
    assert result.exit_code == 0
    assert "listening; Ctrl-C ends it" in result.stderr
    assert FIRST in result.stdout


def test_that_sound_was_lost_is_said_once(sound: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", SoundDevice(sound))  # type: ignore[arg-type]
    monkeypatch.setattr(sources, "_MOST_WAITING", 20)
    said: list[str] = []
    heard = sources.microphone(lambda: said.append("lost"))
    assert len(next(heard)) == 20 * 1600
    opened = heard.gi_frame.f_locals["opened"]
    for _ in range(2):
        opened._came(sound[:1600, None], 1600, None, None)
        next(heard)
    assert said == ["lost"]


def test_lines_end_with_sentences() -> None:
    from app.live.transcriber import LiveText
    from models.decoding.segments import Word

    words = tuple(Word(f" {w}", i, i + 1, 1.0) for i, w in enumerate(["One", "two.", "Three"]))
    lines = commands._Lines()
    text = LiveText(words, "", 3.0, 0, 0.0, False, False, "en")
    assert [line.text for line in lines.take(text)] == [" One two."]
    assert lines.begun == " Three"
    closed = LiveText((), "", 4.0, 0, 0.0, False, True, "en")
    assert [(line.id, line.text, line.start, line.end) for line in lines.take(closed)] == [
        (1, " Three", 2, 3)
    ]
    assert list(lines.take(closed)) == []
