from __future__ import annotations

import inspect
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

import app
from app.audio.reading import load_audio
from app.configuration import Configuration
from datasets.utterance import Utterance
from kernels.arrays import Reals
from models.compute import compute_reason, resolve_compute_type
from models.decoding.segments import Segment
from models.encoder import Encoder
from models.graphs.encoder import GraphEncoder


def test_what_is_public_can_be_imported() -> None:
    assert {name for name in app.__all__ if getattr(app, name).__name__ == name} == set(app.__all__)
    with pytest.raises(AttributeError, match="module 'app' has no attribute 'nothing'"):
        _ = app.nothing


def test_load_model_takes_a_configuration_field_by_field() -> None:
    taken = inspect.signature(app.load_model).parameters
    assert {name: p.default for name, p in taken.items() if name != "download"} == asdict(Configuration())


def test_a_path_a_file_and_an_array_give_the_same_transcript(
    tiny_en: app.Transcriber, spoken: Utterance, sentences: Reals
) -> None:
    whole = tiny_en.transcribe(spoken.audio)
    with spoken.audio.open("rb") as file:
        assert tiny_en.transcribe(file).segments == whole.segments
    assert tiny_en.transcribe(sentences).segments == whole.segments
    twice = np.repeat(sentences, 2)
    assert tiny_en.transcribe(twice, sample_rate=32000).text[:20] == whole.text[:20]


def test_a_transcript_says_what_made_it(tiny_en: app.Transcriber, spoken: Utterance) -> None:
    transcript = tiny_en.transcribe(str(spoken.audio), app.DecodeOptions(word_timestamps=True))
    assert transcript.text == "".join(s.text for s in transcript.segments).strip()
    assert transcript.duration == pytest.approx(14.09, abs=0.01)
    assert (transcript.language, transcript.language_probability) == ("en", None)
    run = transcript.run
    assert (run.model, run.backend, run.device, run.device_reason) == (
        "tiny.en",
        "int32",
        "emulator",
        "asked for",
    )
    assert (run.compute_type, run.compute_reason) == (resolve_compute_type("auto"), compute_reason("auto"))
    written = transcript.to_dict()["tilescribe"]
    assert (written["compute_type"], written["compute_reason"]) == (run.compute_type, run.compute_reason)
    assert run.model_sha256 == tiny_en.weights.sha256
    assert run.options.word_timestamps
    assert all(word.start <= word.end for s in transcript.segments for word in s.words or ())


def test_segments_come_one_by_one_and_the_rest_on_demand(tiny_en: app.Transcriber, sentences: Reals) -> None:
    three = np.tile(sentences, 3)
    seen: list[tuple[float, float]] = []
    greedy = app.DecodeOptions(
        temperature=0.0
    )  # no second tries: what is said again and again looks like a loop
    stream = tiny_en.stream(three, greedy, on_progress=lambda done, total: seen.append((done, total)))
    first = next(stream)
    assert isinstance(first, Segment)
    assert first.start < 1
    assert len(seen) < 2, "the second window was decoded before the first one's segments were taken"
    transcript = stream.transcript()
    assert transcript.segments[0] == first
    assert [s.id for s in transcript.segments] == list(range(len(transcript.segments)))
    assert transcript.text.count("every basket of fish") == 3
    assert seen[-1] == (pytest.approx(42.28, abs=0.02), pytest.approx(42.28, abs=0.02))


def test_batches_cover_the_recording_once(tiny_en: app.Transcriber, sentences: Reals) -> None:
    three = np.tile(sentences, 3)
    transcript = tiny_en.transcribe(three, batch_size=4)
    assert transcript.text.count("every basket of fish") == 3
    assert transcript.text.count("has been sold") == 3
    assert transcript.run.batch_size == 4


def test_other_options_reach_the_decoder(tiny_en: app.Transcriber, spoken: Utterance) -> None:
    clipped = tiny_en.transcribe(spoken.audio, app.DecodeOptions(clip_timestamps="0,4", beam_size=3))
    assert "harbor" in clipped.text
    assert "market" not in clipped.text


@pytest.fixture(scope="module")
def base() -> app.Transcriber:
    return app.load_model("base", "int8", "emulator")


def test_a_multilingual_model_finds_the_language(spoken: Utterance, base: app.Transcriber) -> None:
    transcript = base.transcribe(spoken.audio)
    assert transcript.language == "en"
    assert transcript.language_probability is not None
    assert transcript.language_probability > 0.5
    assert "lighthouse turns its last slow circle" in transcript.text


@pytest.mark.parametrize(
    ("before", "loudness"), [(30, 0.0), (60, 0.0), (40, 0.1)], ids=["30 s", "60 s", "40 s of noise"]
)
def test_the_language_of_speech_after_much_silence_is_its_own(
    before: int, loudness: float, base: app.Transcriber
) -> None:
    # Made by espeak-ng (-v es -s 140).
    speech = load_audio(ROOT / "tests" / "material" / "spanish.ogg")
    noise = np.random.default_rng(0).standard_normal(before * 16000).astype(np.float32) * loudness
    audio = np.concatenate([noise, speech])
    segments = base.stream(audio, app.DecodeOptions(language="auto", temperature=0.0))
    first = next(segments)
    assert segments.language == "es"
    assert first.start > before - 1
    assert "Buenos días. Hoy vamos a hablar del tiempo" in first.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights for a moment")
def test_a_file_without_permission_is_one_line(
    tiny_en: app.Transcriber, spoken: Utterance, tmp_path: Path
) -> None:
    path = tmp_path / "secret.flac"
    path.write_bytes(spoken.audio.read_bytes())
    path.chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(app.AudioError, match="denied"):
            tiny_en.stream(path)
    finally:
        os.seteuid(0)


def test_the_npus_programs_have_the_whole_context(monkeypatch: pytest.MonkeyPatch) -> None:
    model = app.load_model("tiny.en", "int32", "emulator", audio_context="auto")
    assert (model.audio_context, model.context_note) == ("auto", "")
    monkeypatch.setattr(model.attention, "device", "npu")  # stands in for a device that is not here
    there = app.Transcriber(model.weights, model.configuration, model.attention)
    assert (there.audio_context, there.recogniser.context) == ("full", "full")
    assert there.context_note == "the NPU's programs are for windows of 30 s: the context is full"


def test_the_compute_type_that_was_asked_for_is_the_encoders() -> None:
    for compute_type, encoder in (("float32", Encoder), ("int8", GraphEncoder)):
        model = app.load_model("tiny.en", "cpu", compute_type=compute_type)
        assert model.compute_type == compute_type
        assert isinstance(model.encoder, encoder)
    with pytest.raises(ValueError, match="compute type 'half': it has to be one of auto"):
        app.load_model("tiny.en", "cpu", compute_type="half")  # type: ignore[arg-type]


def test_what_is_no_audio_is_refused(tiny_en: app.Transcriber) -> None:
    with pytest.raises(app.AudioError, match="array: "):
        tiny_en.transcribe(np.zeros(0, np.float32))
    with pytest.raises(app.AudioError, match=r"array: .*not numbers"):
        tiny_en.transcribe(np.full(16000, np.nan, np.float32))


def test_options_that_do_not_suit_the_model_are_refused_before_the_audio_is_read(
    tiny_en: app.app.Transcriber,
) -> None:
    with pytest.raises(app.OptionsError, match="English-only"):
        tiny_en.stream("no such file", app.DecodeOptions(language="de"))


def test_a_clip_past_the_end_is_said(tiny_en: app.Transcriber, spoken: Utterance) -> None:
    stream = tiny_en.stream(spoken.audio, app.DecodeOptions(clip_timestamps="2,4,15,20,21"))
    assert stream.findings.notes == ["clip_timestamps 15, 21: past the end, which is at 14.09 s"]
    assert tiny_en.stream(spoken.audio, app.DecodeOptions(clip_timestamps="2,40")).findings.notes == []


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("level", [0.0, 0.002, 0.3])
def test_there_is_no_word_where_nobody_speaks(
    level: float, batch_size: int, tiny_en: app.Transcriber
) -> None:
    noise = np.clip(np.random.default_rng(0).normal(0, level, 60 * 16000), -1, 1).astype(np.float32)
    transcript = tiny_en.transcribe(noise, batch_size=batch_size)
    assert (transcript.text, transcript.segments) == ("", ())
    assert transcript.coverage == app.Coverage(0.0, 0.0, 0.0, ())
