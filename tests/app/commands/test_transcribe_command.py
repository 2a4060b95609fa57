from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shutil
import wave
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from material.audio_files import sweep, write
from material.transcribing import NO_NPU, TEXT, notes, one_line, transcribe
from typer.testing import CliRunner

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

pytestmark = pytest.mark.usefixtures("one_load")


def test_the_transcript_alone_goes_to_standard_output(spoken: Utterance) -> None:
    result = transcribe(spoken.audio)
    assert result.exit_code == 0
    assert result.stdout.startswith(TEXT)
    assert result.stdout.rstrip().endswith("every basket of fish has been sold.")
    (line,) = notes(result)
    if NO_NPU:
        assert line.startswith("tiny.en: int32 attention on the emulator on the CPU: there is no NPU here")


@pytest.mark.skipif(not NO_NPU, reason="this machine has an NPU")
def test_emulator_work_is_never_called_npu_work(sentence: Path, tmp_path: Path) -> None:
    transcribe(sentence, "-o", tmp_path, "-f", "json")
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
def test_other_backends_say_what_they_are(sentence: Path, backend: str, compute_type: str, said: str) -> None:
    how = ("--backend", backend, "--device", "emulator", "--compute-type", compute_type)
    result = transcribe(sentence, *how)
    assert (result.exit_code, notes(result)) == (0, [said])
    assert result.stdout.startswith(TEXT)


@pytest.mark.parametrize(
    ("compute_type", "instructions"), [("bfloat16", "avx512_bf16"), ("bfloat16", None), ("int8", None)]
)
def test_a_compute_type_is_named_as_it_ran_with_and_without_its_instructions(
    sentence: Path, compute_type: str, instructions: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if instructions is not None and instructions not in cpuinfo()["flags"].split():
        pytest.skip(f"this processor has no {instructions}")
    monkeypatch.setattr("models.compute.cpuinfo", lambda: {"flags": instructions or ""})
    result = transcribe(sentence, "--backend", "cpu", "--compute-type", compute_type)
    kind = "float32" if (compute_type, instructions) == ("bfloat16", None) else compute_type
    assert (result.exit_code, notes(result)) == (
        0,
        [f"tiny.en: floating-point attention, compute type {kind}"],
    )
    assert result.stdout.startswith(TEXT)


def test_underscores_and_dashes_are_one(sentence: Path, tmp_path: Path) -> None:
    result = transcribe(
        sentence, "--output_dir", tmp_path, "--output_format", "all", "--word_timestamps", "-q"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"harbour.{f}" for f in ("json", "srt", "tsv", "txt", "vtt")
    ]
    assert (tmp_path / "harbour.txt").read_text() == result.stdout
    words = [w for s in json.loads((tmp_path / "harbour.json").read_text())["segments"] for w in s["words"]]
    assert " ".join(w["word"].strip() for w in words).startswith(TEXT)
    assert all(0 <= a["start"] <= a["end"] <= b["end"] <= 14.2 for a, b in pairwise(words))


def test_one_format_can_go_to_standard_output(sentence: Path) -> None:
    result = transcribe(sentence, "-o", "-", "-f", "srt")
    assert result.stdout.startswith("1\n00:00:00,000 --> ")
    assert transcribe(sentence, "-o", "-", "-f", "all").exit_code == 2


@pytest.mark.parametrize("how", [(), ("--word-timestamps",)])
def test_what_is_printed_is_what_is_written(sentence: Path, tmp_path: Path, how: tuple[str, ...]) -> None:
    transcribe(sentence, "-o", tmp_path, "-f", "all", *how)
    for form in ("txt", "srt", "vtt", "tsv"):
        printed = transcribe(sentence, "-o", "-", "-f", form, *how).stdout
        assert (tmp_path / f"harbour.{form}").read_text() == printed != ""


def test_standard_input_is_read(sentence: Path) -> None:
    result = transcribe("-", standard_input=sentence.read_bytes())
    assert (result.exit_code, result.stdout[: len(TEXT)]) == (0, TEXT)


def test_a_file_that_ends_early_is_transcribed_where_that_is_allowed(
    spoken: Utterance, tmp_path: Path
) -> None:
    whole = spoken.audio.read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    result = transcribe(tmp_path / "cut.flac", "--allow-truncated")
    assert (result.exit_code, result.stdout[: len(TEXT)]) == (0, TEXT)


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


def test_what_is_done_already_can_be_skipped(sentence: Path, tmp_path: Path) -> None:
    (tmp_path / "harbour.txt").write_text("kept")
    result = transcribe(sentence, "-o", tmp_path, "--skip-existing")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "harbour.txt").read_text() == "kept"
    result = transcribe(sentence, "-o", tmp_path, "-f", "srt", "--skip-existing")
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
    where: tuple[str, ...], sentence: Path, tmp_path: Path
) -> None:
    copy = shutil.copy(sentence, tmp_path / "b.flac")
    one = transcribe(sentence, *where).stdout
    both = transcribe(sentence, copy, *where).stdout
    assert both == f"==> {sentence} <==\n{one}\n==> {copy} <==\n{one}"


def test_a_name_with_a_line_break_is_one_line_wherever_it_is_said(sentence: Path, tmp_path: Path) -> None:
    name = shutil.copy(sentence, tmp_path / "two\nlines\x1b.flac")
    result = transcribe(name, name, tmp_path / "no\nne.*", "-o", tmp_path / "out", "--no-progress")
    assert result.exit_code == 1
    first, *_, last = notes(result)
    assert first == f"error: {tmp_path}/no\\nne.*: no match"
    assert last == f"wrote {tmp_path}/out/two\\nlines\\x1b.txt"


def test_a_progress_bar_keeps_out_of_the_transcript(sentence: Path) -> None:
    result = transcribe(sentence, "--progress")
    assert result.stdout.startswith(TEXT)
    assert "harbour.flac" in result.stderr
    assert "%" in result.stderr


def test_tilescribe_carries_every_command() -> None:
    result = CliRunner().invoke(tilescribe, ["--help"])
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("transcribe", "models"))
    assert CliRunner().invoke(tilescribe, ["--version"]).stdout.count(".") == 2
    assert CliRunner().invoke(command, ["--version"]).stdout.count(".") == 2


def test_a_readable_format_of_any_kind_is_heard_alike(tmp_path: Path, spoken: Utterance) -> None:
    with av.open(str(spoken.audio)) as source:
        samples = np.concatenate([f.to_ndarray().ravel() for f in source.decode(audio=0)]).astype(np.int16)
    samples = samples[: round(5.3 * 16000)]
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


def test_a_tone_without_speech_is_no_crash(tmp_path: Path) -> None:
    write(tmp_path / "tone.wav", sweep(16000), 16000, "pcm_s16le")
    assert transcribe(tmp_path / "tone.wav").exit_code == 0


def test_what_became_of_the_speech_is_in_the_json_and_what_is_left_over_is_one_line(
    spoken: Utterance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["-f", "json", "-o", str(tmp_path), "--quiet", "--strict"]
    result = transcribe(spoken.audio, *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    coverage = json.loads((tmp_path / "harbour.json").read_text())["tilescribe"]["coverage"]
    assert coverage["findings"] == []
    assert coverage["speech_seconds"] > coverage["covered_seconds"] - 0.01 > 10

    def mute(recogniser: Any, memory: Any, *_: Any, **__: Any) -> list[Hypothesis]:
        return [Hypothesis((), "", "en", -0.1, 0.0, 0.0, 1.0) for _ in range(len(memory))]

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
    result = transcribe(tmp_path / "noise.wav")
    assert (result.exit_code, result.stdout) == (0, "")
    name = f"{tmp_path}/noise.wav"
    assert one_line(result) == f"{name}: nobody speaks in it; --no-vad decodes it all the same"
    result = transcribe(tmp_path / "noise.wav", "--clip-timestamps", "2,8")
    note = f"{name}: nobody speaks in the parts that are read of it; --no-vad decodes it all the same"
    assert one_line(result) == note
    result = transcribe(tmp_path / "noise.wav", "--clip-timestamps", "12")
    assert one_line(result) == f"{name}: clip_timestamps 12: past the end, which is at 10.00 s"
