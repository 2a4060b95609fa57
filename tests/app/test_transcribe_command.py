from __future__ import annotations

import dataclasses
import errno
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import wave
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from material.audio_files import sweep, write
from material.audio_files import wave as tone_wave
from typer.testing import CliRunner, Result

from app.audio.reading import load_audio
from app.cli import _transcribe as command
from app.cli import app as tilescribe
from app.commands import transcribe as transcribing
from app.commands.options import temperatures
from app.configuration import Configuration
from app.output.writers import Layout
from datasets.utterance import Utterance
from kernels.processor import cpuinfo
from models.decoding.options import DecodeOptions
from models.decoding.search import Hypothesis
from models.voice import VadOptions

TEXT = "The quiet harbor wakes before the sun"
NO_NPU = not list(Path("/dev/accel").glob("accel*")) if Path("/dev/accel").exists() else True


pytestmark = pytest.mark.usefixtures("one_load")


def transcribe(*arguments: str | Path, standard_input: bytes | None = None) -> Result:
    words = ["--model", "tiny.en", *map(str, arguments)]
    return CliRunner().invoke(command, words, input=standard_input)


def notes(result: Result) -> list[str]:
    """The lines on standard error, but for what only the first run on a machine has."""
    return [line for line in result.stderr.splitlines() if "compiling the kernels" not in line]


def one_line(result: Result) -> str:
    """The only line on standard error beside the one about the device."""
    lines = [line for line in notes(result) if not line.startswith("tiny.en: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    return lines[0]


def test_the_transcript_alone_goes_to_standard_output(spoken: Utterance) -> None:
    result = transcribe(spoken.audio)
    assert result.exit_code == 0
    assert result.stdout.startswith(TEXT)
    assert result.stdout.rstrip().endswith("every basket of fish has been sold.")
    (line,) = notes(result)
    if NO_NPU:
        assert line.startswith("tiny.en: int32 attention on the emulator on the CPU: there is no NPU here")


@pytest.mark.skipif(not NO_NPU, reason="this machine has an NPU")
def test_emulator_work_is_never_called_npu_work(spoken: Utterance, tmp_path: Path) -> None:
    transcribe(spoken.audio, "-o", tmp_path, "-f", "json")
    ran = json.loads((tmp_path / "harbour.json").read_text())["tilescribe"]
    assert ran["device"] == "emulator"
    assert ran["backend"] == "int32"
    assert "NPU" not in ran["device"]


@pytest.mark.parametrize(
    ("backend", "compute_type", "said"),
    [
        ("cpu", "float32", "tiny.en: floating-point attention, compute type float32"),
        ("int8", "auto", "tiny.en: int8 attention on the emulator on the CPU: asked for"),
    ],
)
def test_other_backends_say_what_they_are(
    spoken: Utterance, backend: str, compute_type: str, said: str
) -> None:
    how = ("--backend", backend, "--device", "emulator", "--compute-type", compute_type)
    result = transcribe(spoken.audio, *how)
    assert (result.exit_code, notes(result)) == (0, [said])
    assert result.stdout.startswith(TEXT)


@pytest.mark.parametrize(
    ("compute_type", "instructions"), [("bfloat16", "avx512_bf16"), ("bfloat16", None), ("int8", None)]
)
def test_a_compute_type_is_named_as_it_ran_with_and_without_its_instructions(
    spoken: Utterance, compute_type: str, instructions: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if instructions is not None and instructions not in cpuinfo()["flags"].split():
        pytest.skip(f"this processor has no {instructions}")
    monkeypatch.setattr("models.compute.cpuinfo", lambda: {"flags": instructions or ""})
    result = transcribe(spoken.audio, "--backend", "cpu", "--compute-type", compute_type)
    kind = "float32" if (compute_type, instructions) == ("bfloat16", None) else compute_type
    assert (result.exit_code, notes(result)) == (
        0,
        [f"tiny.en: floating-point attention, compute type {kind}"],
    )
    assert result.stdout.startswith(TEXT)


@pytest.mark.skipif(not NO_NPU, reason="this machine has an NPU")
def test_asking_for_an_npu_that_is_not_there_is_an_error_with_the_remedy(spoken: Utterance) -> None:
    result = transcribe(spoken.audio, "--device", "npu")
    assert result.exit_code == 5
    assert result.stdout == ""
    assert one_line(result).endswith("--device emulator computes the same bits on the CPU")


def test_underscores_and_dashes_are_one(spoken: Utterance, tmp_path: Path) -> None:
    result = transcribe(
        spoken.audio, "--output_dir", tmp_path, "--output_format", "all", "--word_timestamps", "-q"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"harbour.{f}" for f in ("json", "srt", "tsv", "txt", "vtt")
    ]
    assert (tmp_path / "harbour.txt").read_text() == result.stdout
    words = [w for s in json.loads((tmp_path / "harbour.json").read_text())["segments"] for w in s["words"]]
    assert " ".join(w["word"].strip() for w in words).startswith(TEXT)
    assert all(0 <= a["start"] <= a["end"] <= b["end"] <= 14.2 for a, b in pairwise(words))


def test_one_format_can_go_to_standard_output(spoken: Utterance) -> None:
    result = transcribe(spoken.audio, "-o", "-", "-f", "srt")
    assert result.stdout.startswith("1\n00:00:00,000 --> ")
    assert transcribe(spoken.audio, "-o", "-", "-f", "all").exit_code == 2


@pytest.mark.parametrize("how", [(), ("--word-timestamps",)])
@pytest.mark.parametrize("form", ["txt", "srt", "vtt", "tsv"])
def test_what_is_printed_is_what_is_written(
    spoken: Utterance, tmp_path: Path, form: str, how: tuple[str, ...]
) -> None:
    printed = transcribe(spoken.audio, "-o", "-", "-f", form, *how).stdout
    transcribe(spoken.audio, "-o", tmp_path, "-f", form, *how)
    assert (tmp_path / f"harbour.{form}").read_text() == printed


def test_subtitles_leave_as_they_are_decoded_and_a_ctrl_c_leaves_whole_ones(
    spoken: Utterance, tmp_path: Path, scripts: Path
) -> None:
    samples = np.tile((load_audio(spoken.audio) * 32768).astype(np.int16), 8)[:, None]
    path = write(tmp_path / "long.flac", samples, 16000, "flac")
    command = [scripts / "transcribe", "--model", "tiny.en", "-q", path, "-f", "srt", "-o", "-"]
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


def test_standard_input_is_read(spoken: Utterance) -> None:
    result = transcribe("-", standard_input=spoken.audio.read_bytes())
    assert (result.exit_code, result.stdout[: len(TEXT)]) == (0, TEXT)


def test_empty_standard_input_is_one_line() -> None:
    result = transcribe("-", standard_input=b"")
    assert (result.exit_code, one_line(result)) == (1, "error: -: empty input")


def bad_inputs(folder: Path, spoken: Utterance) -> dict[str, str]:
    """Every kind of bad input, and what is said of it."""
    nan = np.zeros((16000, 1), np.float32)
    nan[8000] = np.nan
    write(folder / "nan.wav", nan, 16000, "pcm_f32le")
    with wave.open(str(folder / "silent.wav"), "wb") as header:
        header.setparams((1, 2, 16000, 0, "NONE", ""))
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("This is no sound.\n" * 100)
    whole = spoken.audio.read_bytes()
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


def test_each_bad_input_is_one_line_and_the_rest_is_done(spoken: Utterance, tmp_path: Path) -> None:
    expected = bad_inputs(tmp_path, spoken)
    output = tmp_path / "out"
    result = transcribe(*(tmp_path / name for name in expected), spoken.audio, "-o", output)
    assert result.exit_code == 1
    assert result.stdout.startswith(TEXT)
    assert "Traceback" not in result.stderr
    errors = sorted(line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert len(errors) == len(expected)
    for line, (name, reason) in zip(errors, sorted(expected.items()), strict=True):
        assert line.startswith(f"error: {tmp_path / name}: {reason}")
    assert [p.name for p in output.iterdir()] == ["harbour.txt"]


def test_a_file_that_ends_early_is_transcribed_where_that_is_allowed(
    spoken: Utterance, tmp_path: Path
) -> None:
    whole = spoken.audio.read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    result = transcribe(tmp_path / "cut.flac", "--allow-truncated")
    assert (result.exit_code, result.stdout[: len(TEXT)]) == (0, TEXT)


def test_an_output_folder_that_cannot_be_made_is_one_line(spoken: Utterance, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = transcribe(spoken.audio, "-o", tmp_path / "file" / "out")
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
    spoken: Utterance, arguments: list[str], message: str
) -> None:
    result = transcribe(spoken.audio, *arguments)
    assert (result.exit_code, result.stdout, one_line(result)) == (2, "", f"error: {message}")


@pytest.mark.parametrize("kind", [Configuration, DecodeOptions, Layout])
def test_options_have_the_names_and_defaults_of_the_fields_that_they_fill(kind: Any) -> None:
    options = inspect.signature(transcribing.transcribe).parameters
    # The first becomes several, with --temperature-increment-on-fallback; the other has options of its own.
    by_hand = {"temperature", "vad"}
    only_in_python = {"suppress_blank", "max_initial_timestamp", "without_timestamps"}
    for field in dataclasses.fields(kind):
        if field.name not in by_hand | only_in_python:
            assert options[field.name].default == field.default, field.name
    first, step = (options[name].default for name in ("temperature", "temperature_increment_on_fallback"))
    assert temperatures(first, step) == DecodeOptions().temperature
    assert options["vad"].default
    assert DecodeOptions().vad == VadOptions()
    for field in dataclasses.fields(VadOptions):
        assert options[f"vad_{field.name}"].default == field.default, field.name


def test_an_unknown_model_is_wrong_usage_and_a_near_miss_is_named(spoken: Utterance) -> None:
    result = CliRunner().invoke(command, [str(spoken.audio), "--model", "tiny.em"])
    assert result.exit_code == 2
    assert "did you mean tiny.en" in one_line(result)


def test_weights_that_are_missing_say_how_to_get_them(spoken: Utterance, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(spoken.audio), "--model", str(tmp_path / "none.pt")])
    assert result.exit_code == 5
    assert str(tmp_path / "none.pt") in one_line(result)


def test_what_is_done_already_can_be_skipped(spoken: Utterance, tmp_path: Path) -> None:
    (tmp_path / "harbour.txt").write_text("kept")
    result = transcribe(spoken.audio, "-o", tmp_path, "--skip-existing")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "harbour.txt").read_text() == "kept"
    result = transcribe(spoken.audio, "-o", tmp_path, "-f", "srt", "--skip-existing")
    assert result.stdout.startswith(TEXT)


def test_where_there_is_no_terminal_progress_is_lines(
    spoken: Utterance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.console._BETWEEN", 0)
    lines = transcribe(spoken.audio).stderr.splitlines()
    assert any(re.fullmatch(r"reading harbour.flac: \d+ of \? s, .*", line) for line in lines)
    assert any(
        re.fullmatch(r"harbour.flac: 14 of 14 s, \d\d:\d\d gone, \d\d:\d\d left", line) for line in lines
    )
    assert "gone" not in transcribe(spoken.audio, "--no-progress").stderr
    assert transcribe(spoken.audio, "-q").stderr == ""


def test_segments_with_their_times_as_openai_whisper_prints_them(spoken: Utterance) -> None:
    first, second = transcribe(spoken.audio, "--verbose", "True").stdout.splitlines()
    assert re.fullmatch(rf"\[00:00\.000 --> 00:0\d\.\d\d\d\]  {TEXT}.*", first)
    assert re.fullmatch(r"\[00:0\d\.\d\d\d --> 00:14\.\d\d\d\]  By noon .*", second)


@pytest.mark.parametrize("where", [(), ("-o", "-")])
def test_several_recordings_are_each_under_their_name(
    where: tuple[str, ...], spoken: Utterance, tmp_path: Path
) -> None:
    copy = shutil.copy(spoken.audio, tmp_path / "b.flac")
    one = transcribe(spoken.audio, *where).stdout
    both = transcribe(spoken.audio, copy, *where).stdout
    assert both == f"==> {spoken.audio} <==\n{one}\n==> {copy} <==\n{one}"


def test_a_name_with_a_line_break_is_one_line_wherever_it_is_said(spoken: Utterance, tmp_path: Path) -> None:
    name = shutil.copy(spoken.audio, tmp_path / "two\nlines\x1b.flac")
    result = transcribe(name, name, tmp_path / "no\nne.*", "-o", tmp_path / "out", "--no-progress")
    assert result.exit_code == 1
    first, *_, last = notes(result)
    assert first == f"error: {tmp_path}/no\\nne.*: no match"
    assert last == f"wrote {tmp_path}/out/two\\nlines\\x1b.txt"


def test_a_progress_bar_keeps_out_of_the_transcript(spoken: Utterance) -> None:
    result = transcribe(spoken.audio, "--progress")
    assert result.stdout.startswith(TEXT)
    assert "harbour.flac" in result.stderr
    assert "%" in result.stderr


@pytest.mark.slow
def test_interrupting_leaves_finished_files_whole(spoken: Utterance, tmp_path: Path, scripts: Path) -> None:
    for i in range(6):
        shutil.copy(spoken.audio, tmp_path / f"{i}.flac")
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


@pytest.mark.parametrize("files", [(), ("a.srt", "b.srt")])
def test_a_reader_that_stops_early_is_no_error_message_and_files_are_written(
    files: tuple[str, ...], spoken: Utterance, scripts: Path, tmp_path: Path
) -> None:
    names = [shutil.copy(spoken.audio, tmp_path / name) for name in ("a.flac", "b.flac")]
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


def test_tilescribe_carries_every_command() -> None:
    result = CliRunner().invoke(tilescribe, ["--help"])
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("transcribe", "models"))
    assert CliRunner().invoke(tilescribe, ["--version"]).stdout.count(".") == 2
    assert CliRunner().invoke(command, ["--version"]).stdout.count(".") == 2


def test_a_readable_format_of_any_kind_is_heard_alike(tmp_path: Path, spoken: Utterance) -> None:
    with av.open(str(spoken.audio)) as source:
        samples = np.concatenate([f.to_ndarray().ravel() for f in source.decode(audio=0)]).astype(np.int16)
    for name, codec in (
        ("a.mp3", "libmp3lame"),
        ("b.m4a", "aac"),
        ("c.opus", "libopus"),
        ("d.webm", "libopus"),
    ):
        rate = 16000 if codec != "libopus" else 48000
        data = samples if rate == 16000 else np.repeat(samples, 3)
        write(tmp_path / name, data[:, None], rate, codec)
    result = transcribe(tmp_path)
    assert result.exit_code == 0
    assert result.stdout.count("boats leave for the open water") == 4


def test_long_audio_for_which_there_is_no_room_is_one_line_before_it_is_read(
    tmp_path: Path, spoken: Utterance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2e8))
    data = tone_wave(sweep(16000), 16000, size=4 * 3600 * 32000)
    with (tmp_path / "long.wav").open("wb") as file:
        file.write(data)
        file.truncate(44 + 4 * 3600 * 32000)  # nothing of it takes room on the disk
    result = transcribe(tmp_path / "long.wav", spoken.audio, "-q")
    assert result.exit_code == 1
    assert result.stdout.endswith("every basket of fish has been sold.\n")
    assert one_line(result) == (
        f"error: {tmp_path}/long.wav: audio of 4.0 h takes 0.5 GB of temporary files, and 0.2 GB are free; "
        f"TMPDIR=FOLDER puts temporary files into another folder: {tempfile.gettempdir()}"
    )


def test_a_limit_of_open_files_is_not_the_recordings_fault(
    spoken: Utterance, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def refuse(path: Path, *how: Any, **more: Any) -> Any:
        if path.name == spoken.audio.name:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return opened(path, *how, **more)

    monkeypatch.setattr(Path, "open", refuse)
    result = transcribe(spoken.audio, "-q")
    assert result.exit_code == 5
    assert result.stderr.startswith(
        f"error: {spoken.audio}: the system lets this program open no more files: `ulimit -n 1024` lets it\n"
    )


def test_a_tone_without_speech_is_no_crash(tmp_path: Path) -> None:
    write(tmp_path / "tone.wav", sweep(16000), 16000, "pcm_s16le")
    assert transcribe(tmp_path / "tone.wav").exit_code == 0


def test_what_became_of_the_speech_is_in_the_json_and_what_is_left_over_is_one_line(
    spoken: Utterance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--backend", "cpu", "-f", "json", "-o", str(tmp_path), "--quiet", "--strict"]
    result = transcribe(spoken.audio, *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    coverage = json.loads((tmp_path / "harbour.json").read_text())["tilescribe"]["coverage"]
    assert coverage["findings"] == []
    assert coverage["speech_seconds"] > coverage["covered_seconds"] - 0.01 > 10

    def mute(recogniser: Any, states: Any, *_: Any, **__: Any) -> list[Hypothesis]:
        return [Hypothesis((), "", "en", -0.1, 0.0, 0.0, 1.0) for _ in states]

    monkeypatch.setattr("models.decoding.reader.decode_with_fallback", mute)
    for strict, code in ((True, 1), (False, 0)):
        result = transcribe(spoken.audio, *arguments[: len(arguments) - (not strict)])
        assert result.exit_code == code
        assert one_line(result).startswith(f"{spoken.audio}: speech without text at 0:0")
    result = transcribe(spoken.audio, *arguments, "--no-vad")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads((tmp_path / "harbour.json").read_text())["tilescribe"]["coverage"] is None


def test_a_recording_without_speech_has_no_text_and_says_so(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 300, 160_000).astype("<i2")
    with wave.open(str(tmp_path / "noise.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(noise.tobytes())
    result = transcribe(tmp_path / "noise.wav", "--backend", "cpu")
    assert (result.exit_code, result.stdout) == (0, "")
    note = f"{tmp_path}/noise.wav: nobody speaks in it; --no-vad decodes it all the same"
    assert one_line(result) == note
