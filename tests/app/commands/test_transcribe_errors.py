from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import wave
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from material.audio_files import sweep, write
from material.audio_files import wave as tone_wave
from material.transcribing import NO_NPU, TEXT, one_line, transcribe
from typer.testing import CliRunner

from app.audio.reading import load_audio
from app.cli import _transcribe as command
from datasets.utterance import Utterance

pytestmark = pytest.mark.usefixtures("one_load")


@pytest.mark.skipif(not NO_NPU, reason="this machine has an NPU")
def test_asking_for_an_npu_that_is_not_there_is_an_error_with_the_remedy(sentence: Path) -> None:
    result = transcribe(sentence, "--device", "npu")
    assert result.exit_code == 5
    assert result.stdout == ""
    assert one_line(result).endswith("--device emulator computes the same bits on the CPU")


def test_empty_standard_input_is_one_line() -> None:
    result = transcribe("-", standard_input=b"")
    assert (result.exit_code, one_line(result)) == (1, "error: -: empty input")


def bad_inputs(folder: Path, audio: Path) -> dict[str, str]:
    """Every kind of bad input, and what is said of it."""
    nan = np.zeros((16000, 1), np.float32)
    nan[8000] = np.nan
    write(folder / "nan.wav", nan, 16000, "pcm_f32le")
    with wave.open(str(folder / "silent.wav"), "wb") as header:
        header.setparams((1, 2, 16000, 0, "NONE", ""))
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("This is no sound.\n" * 100)
    whole = audio.read_bytes()
    (folder / "cut.flac").write_bytes(whole[: len(whole) // 2])
    with av.open(str(folder / "picture.mp4"), "w") as out:
        video = out.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        out.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))))
        out.mux(video.encode(None))
    (folder / "folder.wav").mkdir()
    return {
        "missing.wav": "no such file",
        "nan.wav": "samples that are not numbers (NaN or infinity) at 0.50 s",
        "silent.wav": "no samples",
        "empty.wav": "empty file",
        "text.wav": "not audio that FFmpeg's libraries can read",
        "cut.flac": "ends early: ",
        "picture.mp4": "no audio track",
        "folder.wav": "no recordings in it",
    }


def test_each_bad_input_is_one_line_and_the_rest_is_done(sentence: Path, tmp_path: Path) -> None:
    expected = bad_inputs(tmp_path, sentence)
    output = tmp_path / "out"
    result = transcribe(*(tmp_path / name for name in expected), sentence, "-o", output)
    assert result.exit_code == 1
    assert result.stdout.startswith(TEXT)
    assert "Traceback" not in result.stderr
    errors = sorted(line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert len(errors) == len(expected)
    for line, (name, reason) in zip(errors, sorted(expected.items()), strict=True):
        assert line.startswith(f"error: {tmp_path / name}: {reason}")
    assert [p.name for p in output.iterdir()] == ["harbour.txt"]


def test_an_output_folder_that_cannot_be_made_is_one_line(sentence: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = transcribe(sentence, "-o", tmp_path / "file" / "out")
    assert result.exit_code == 2
    assert one_line(result) == f"error: {tmp_path / 'file'}: Not a directory"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--language", "fr"], "an English-only model cannot transcribe french"),
        (["--language", "englsh"], "unknown language 'englsh'; did you mean 'english'?"),
        (["--task", "translate"], "an English-only model cannot translate; choose a multilingual model"),
        (["-f", "doc"], "unknown format 'doc': choose from txt, srt, vtt, tsv, json, html, all"),
        (["--patience", "2"], "patience requires beam_size to be given"),
        (["--beam-size", "5", "--temperature", "0.5"], "beam_size needs a temperature of 0"),
        (["--clip-timestamps", "5,3"], "clip_timestamps must be seconds in ascending order, up to 10000000"),
        (["--clip-timestamps", "five"], "clip_timestamps is not a list of seconds: 'five'"),
        (["--suppress-tokens", "a"], "suppress_tokens is not a list of ids: 'a'"),
        (["--max-line-width", "20"], "--highlight-words and the --max- options need --word-timestamps"),
        (
            ["--hallucination-silence-threshold", "2"],
            "hallucination_silence_threshold requires word_timestamps",
        ),
        (["--length-penalty", "3"], "--length-penalty: it has to be a number from 0 to 1"),
        (["--temperature", "1e-4"], "temperature must be one or more numbers, each 0 or from 0.001 to 10"),
        (
            ["--temperature-increment-on-fallback", "1e-9"],
            "temperature_increment_on_fallback must be 0 or 0.01 or more",
        ),
        (
            ["--clip-timestamps", "0,nan"],
            "clip_timestamps must be seconds in ascending order, up to 10000000",
        ),
        (
            ["--clip-timestamps", "0,1e308"],
            "clip_timestamps must be seconds in ascending order, up to 10000000",
        ),
        (
            ["--beam-size", "100", "--patience", "100.0", "--temperature_increment_on_fallback", "1e308"],
            "--temperature-increment-on-fallback: it has to be a number from 0 to 10",
        ),
        (["--backend", "cpu", "--device", "npu"], "device npu: backend cpu has no program for it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_before_anything_is_read(
    sentence: Path, arguments: list[str], message: str
) -> None:
    result = transcribe(sentence, *arguments)
    assert (result.exit_code, result.stdout, one_line(result)) == (2, "", f"error: {message}")


def test_an_unknown_model_is_wrong_usage_and_a_near_miss_is_named(sentence: Path) -> None:
    result = CliRunner().invoke(command, [str(sentence), "--model", "tiny.em"])
    assert result.exit_code == 2
    assert "did you mean tiny.en" in one_line(result)


def test_weights_that_are_missing_say_how_to_get_them(sentence: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(sentence), "--model", str(tmp_path / "none.pt")])
    assert result.exit_code == 5
    assert str(tmp_path / "none.pt") in one_line(result)


@pytest.mark.slow
def test_interrupting_leaves_finished_files_whole(sentence: Path, tmp_path: Path, scripts: Path) -> None:
    for i in range(6):
        shutil.copy(sentence, tmp_path / f"{i}.flac")
    output = tmp_path / "out"
    arguments = [scripts / "transcribe", "--model", "tiny.en", tmp_path, "-o", output, "-f", "all"]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while not (output / "1.json").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "interrupted: " in said
    assert "Traceback" not in said
    names = {p.name for p in output.iterdir()}
    assert {f"{i}.{f}" for i in range(2) for f in ("txt", "srt", "vtt", "tsv", "json")} <= names
    assert all(json.loads(p.read_text())["text"].startswith(TEXT) for p in output.glob("*.json"))
    assert not [name for name in names if name.startswith(".")]
    resumed = subprocess.run([*arguments, "--skip-existing"], capture_output=True, text=True, check=True)
    assert "already transcribed" in resumed.stderr
    assert len(list(output.glob("*.json"))) == 6


def test_subtitles_leave_as_they_are_decoded_and_a_ctrl_c_leaves_whole_ones(
    spoken: Utterance, tmp_path: Path, scripts: Path
) -> None:
    samples = np.tile((load_audio(spoken.audio) * 32768).astype(np.int16), 8)[:, None]
    path = write(tmp_path / "long.flac", samples, 16000, "flac")
    # Without second tries: what is said again and again looks like a loop.
    once = ("--temperature-increment-on-fallback", "0")
    command = [scripts / "transcribe", "--model", "tiny.en", "-q", path, "-f", "srt", "-o", "-", *once]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = "".join(process.stdout.readline() for _ in range(4))
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        shown = first + process.stdout.read()
        said = process.stderr.read()
    assert process.returncode == 130
    assert said == "interrupted: 0 of 1 done, 1 left; --skip-existing goes on from here\n"
    assert re.fullmatch(r"(\d+\n[\d:,]+ --> [\d:,]+\n\S.*\n\n)+", shown)
    assert first.startswith("1\n00:00:00,000 --> 00:00:0")
    assert shown.count(TEXT) < 8


@pytest.mark.parametrize("files", [(), ("a.srt", "b.srt")])
def test_a_reader_that_stops_early_is_no_error_message_and_files_are_written(
    files: tuple[str, ...], sentence: Path, scripts: Path, tmp_path: Path
) -> None:
    names = [shutil.copy(sentence, tmp_path / name) for name in ("a.flac", "b.flac")]
    output = ["-o", tmp_path / "out", "-f", "srt"] if files else []
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [scripts / "transcribe", "--model", "tiny.en", "-q", *names, *output],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
    assert {path.name for path in tmp_path.glob("out/*")} == set(files)


def test_long_audio_for_which_there_is_no_room_is_one_line_before_it_is_read(
    tmp_path: Path, sentence: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2e8))
    data = tone_wave(sweep(16000), 16000, size=4 * 3600 * 32000)
    with (tmp_path / "long.wav").open("wb") as file:
        file.write(data)
        file.truncate(44 + 4 * 3600 * 32000)  # nothing of it takes room on the disk
    result = transcribe(tmp_path / "long.wav", sentence, "-q")
    assert result.exit_code == 1
    assert TEXT in result.stdout
    assert one_line(result) == (
        f"error: {tmp_path}/long.wav: audio of 4.0 h takes 0.5 GB of temporary files, and 0.2 GB are free; "
        f"TMPDIR=FOLDER puts temporary files into another folder: {tempfile.gettempdir()}"
    )


def test_a_limit_of_open_files_is_not_the_recordings_fault(
    sentence: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def refuse(path: Path, *how: Any, **more: Any) -> Any:
        if path.name == sentence.name:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return opened(path, *how, **more)

    monkeypatch.setattr(Path, "open", refuse)
    result = transcribe(sentence, "-q")
    assert result.exit_code == 5
    assert result.stderr.startswith(
        f"error: {sentence}: the system lets this program open no more files: `ulimit -n 1024` lets it\n"
    )
