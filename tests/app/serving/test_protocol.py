"""What OpenAI's own client gets, against what `transcribe` gives for the same audio."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import openai
import pytest
import requests
from material.servers import Served
from starlette.datastructures import FormData, UploadFile

from app import DecodeOptions, Transcriber, Transcript
from app.output.writers import render
from app.serving.fields import FIELDS, asked


def ask(client: openai.OpenAI, audio: bytes, **how: Any) -> Any:
    return client.audio.transcriptions.create(file=("a.flac", audio), **{"model": "whisper-1", **how})


def test_json_and_text_are_the_text_that_transcribe_gives(
    client: openai.OpenAI, clip: bytes, whole: Transcript
) -> None:
    answer = ask(client, clip)
    assert (answer.text, answer.usage.type, answer.usage.seconds) == (whole.text, "duration", 15)
    assert ask(client, clip, model="tiny.en", response_format="text") == whole.text + "\n"


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_subtitles_are_the_files_that_transcribe_writes(
    client: openai.OpenAI, clip: bytes, whole: Transcript, form: Any
) -> None:
    assert ask(client, clip, response_format=form) == render(whole, form)


def test_verbose_json_has_the_segments_and_what_ran(
    client: openai.OpenAI, clip: bytes, whole: Transcript
) -> None:
    answer = ask(client, clip, response_format="verbose_json")
    assert (answer.text, answer.language, answer.duration) == (whole.text, "english", whole.duration)
    assert [s.model_dump() for s in answer.segments] == [s.to_dict() for s in whole.segments]
    assert answer.words is None
    ran = answer.tilescribe
    assert (ran["backend"], ran["device"], ran["model"]) == ("int32", "emulator", "tiny.en")
    assert whole.coverage is not None
    assert ran["coverage"] == json.loads(json.dumps(whole.coverage.to_dict()))


def test_granularities_choose_words_segments_or_both(
    client: openai.OpenAI, tiny_en: Transcriber, clip: bytes
) -> None:
    timed = tiny_en.transcribe(io.BytesIO(clip), DecodeOptions(word_timestamps=True))
    words = [(w.word.strip(), w.start, w.end) for s in timed.segments for w in s.words or ()]
    for granularities in (["word"], ["segment", "word"]):
        answer = ask(client, clip, response_format="verbose_json", timestamp_granularities=granularities)
        assert [(w.word, w.start, w.end) for w in answer.words] == words
        segments = None if answer.segments is None else [(s.start, s.end) for s in answer.segments]
        assert segments == (
            [(s.start, s.end) for s in timed.segments] if "segment" in granularities else None
        )


def test_a_stream_comes_window_by_window_and_joins_to_the_text(
    client: openai.OpenAI, long_clip: bytes, long_whole: Transcript
) -> None:
    events = list(ask(client, long_clip, stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    (done,) = (event for event in events if event.type == "transcript.text.done")
    assert events[-1] is done
    assert len(deltas) > 2
    assert "".join(deltas) == done.text == long_whole.text
    assert done.usage.seconds == 41


def test_a_prompt_and_a_temperature_reach_the_search(
    client: openai.OpenAI, tiny_en: Transcriber, clip: bytes
) -> None:
    prompt = "Harbour, colour, neighbour."
    options = DecodeOptions(initial_prompt=prompt, temperature=(0.4, 0.6, 0.8, 1.0))
    expected = tiny_en.transcribe(io.BytesIO(clip), options).text
    assert ask(client, clip, prompt=prompt, temperature=0.4, language="en").text == expected


def test_models_are_listed_and_found_by_name_and_alias(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny.en", "whisper-1"]
    assert client.models.retrieve("whisper-1").object == "model"
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("large")
    assert refused.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("how", "param"),
    [
        ({"language": "klingon"}, "language"),
        ({"language": "de"}, "language"),
        ({"temperature": 2}, "temperature"),
        ({"extra_body": {"temperature": "nan"}}, "temperature"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities[]"),
        (
            {"response_format": "verbose_json", "extra_body": {"timestamp_granularities": ["line"]}},
            "timestamp_granularities[]",
        ),
        ({"include": ["logprobs"]}, "include[]"),
        ({"chunking_strategy": {"type": "server_vad"}}, "chunking_strategy[type]"),
        ({"extra_body": {"beam_size": "5"}}, "beam_size"),
        ({"stream": True, "response_format": "srt"}, "stream"),
    ],
    ids=str,
)
def test_what_is_not_known_is_refused_by_name(
    client: openai.OpenAI, clip: bytes, how: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, clip, **how)
    assert refused.value.param == param
    assert param.split("[")[0] in str(refused.value.body["message"]) or param == "language"


def test_another_model_is_not_found(client: openai.OpenAI, clip: bytes) -> None:
    with pytest.raises(openai.NotFoundError, match=r"tiny\.en or whisper-1") as refused:
        ask(client, clip, model="gpt-4o-transcribe")
    assert refused.value.param == "model"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_file_that_is_no_audio_is_refused_with_the_reason(client: openai.OpenAI, streamed: bool) -> None:
    with pytest.raises(openai.BadRequestError, match="not audio") as refused:
        ask(client, b"no audio" * 100, stream=streamed)
    assert (refused.value.param, refused.value.code) == ("file", "invalid_audio")


def test_an_english_model_does_not_translate(client: openai.OpenAI, clip: bytes) -> None:
    with pytest.raises(openai.BadRequestError, match="cannot translate"):
        client.audio.translations.create(file=("a.flac", clip), model="whisper-1")


def test_each_route_asks_for_its_task() -> None:
    multilingual = SimpleNamespace(
        is_multilingual=True, num_languages=99, dims=SimpleNamespace(n_vocab=51865)
    )

    def options(path: str, **fields: str) -> DecodeOptions:
        form = FormData([("file", UploadFile(io.BytesIO())), *fields.items()])
        return asked(form, path, ("base",), multilingual).options

    transcriptions, translations, inference = FIELDS
    assert options(transcriptions, model="base") == DecodeOptions()
    assert options(transcriptions, model="base", language="german").language == "de"
    assert options(translations, model="base") == DecodeOptions(task="translate")
    own = options(translations, model="base", language="de", stream="true")
    assert own == DecodeOptions(task="translate", language="de")
    assert options(inference, translate="true", temperature_inc="0") == DecodeOptions(
        task="translate", temperature=(0.0,)
    )


def test_whispers_cpp_clients_are_served(served: Served, clip: bytes, whole: Transcript) -> None:
    fields = {"temperature": "0.0", "temperature_inc": "0.2", "response_format": "json", "language": "auto"}
    answer = requests.post(f"{served.url}/inference", fields, files={"file": clip}, timeout=600)
    assert answer.json()["text"] == whole.text


@pytest.mark.parametrize(
    ("method", "path", "how", "status"),
    [
        ("GET", "/v1/audio/transcriptions", {}, 405),
        ("POST", "/v1/audio/speech", {}, 404),
        ("POST", "/v1/audio/transcriptions", {"json": {}}, 400),
        ("POST", "/v1/audio/transcriptions", {"files": {"model": (None, "whisper-1")}}, 400),
        ("POST", "/v1/audio/transcriptions", {"files": {"file": b"a"}}, 400),
        ("POST", "/inference", {"files": [("file", b"a"), ("file", b"b")]}, 400),
        ("POST", "/inference", {"files": {"file": (None, "/etc/passwd")}}, 400),
        ("POST", "/inference", {"data": b"--b\r\n", "headers": {"content-type": "multipart/form-data"}}, 400),
        (
            "POST",
            "/inference",
            {"data": b"--b\r\nx", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            400,
        ),
    ],
)
def test_errors_have_openais_shape(
    served: Served, method: str, path: str, how: dict[str, Any], status: int
) -> None:
    answer = requests.request(method, served.url + path, timeout=600, **how)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"] == "invalid_request_error"
