"""What is put down of requests: counts, a line each, and nobody's words."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests
from material.realtime import INTENT, asking
from material.realtime import until as until_event
from material.servers import Served, serving, until
from prometheus_client.parser import text_string_to_metric_families

from app import Transcriber
from app.audio.reading import load_audio
from app.serving import application
from app.serving.watching import LOG, write_lines
from datasets.utterance import Utterance

NAME = "secret-name.flac"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The lines that are written, so far."""
    written = io.StringIO()
    before, level = list(logging.getLogger().handlers), LOG.level
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", written)
        write_lines(as_json=request.param)
    yield lambda: written.getvalue().splitlines()
    logging.getLogger().handlers[:] = before
    LOG.setLevel(level)


def samples(served: Served) -> dict[str, float]:
    """All that /metrics has, by name and labels."""
    answer = requests.get(f"{served.url}/metrics", timeout=60)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.text)
    return {
        ",".join([one.name, *(f"{k}={v}" for k, v in sorted(one.labels.items()))]): one.value
        for family in families
        for one in family.samples
    }


@pytest.mark.parametrize("lines", [True], indirect=True)
def test_requests_are_counted_and_named(
    tiny_en: Transcriber, clip: bytes, long_clip: bytes, lines: Any
) -> None:
    with serving(tiny_en) as served:
        ask = served.client().audio.transcriptions
        text = ask.create(file=(NAME, clip), model="whisper-1")
        whole = list(ask.create(file=(NAME, long_clip), model="whisper-1", stream=True))
        with pytest.raises(openai.BadRequestError) as refused:
            ask.create(file=(NAME, b"no audio" * 100), model="whisper-1", prompt="secret prompt")
        assert requests.get(f"{served.url}/{NAME}", timeout=60).status_code == 404
        until(lambda: len(lines()) >= 4)
        found = samples(served)
    path = "path=/v1/audio/transcriptions"
    assert found[f"tilescribe_requests_total,{path},status=200"] == 2
    assert found[f"tilescribe_requests_total,{path},status=400"] == 1
    assert found["tilescribe_requests_total,path=other,status=404"] == 1
    assert found["tilescribe_errors_total,code=invalid_audio"] == 1
    assert found[f"tilescribe_request_duration_seconds_count,{path}"] == 3
    assert found["tilescribe_windows_total"] >= 4
    assert found["tilescribe_audio_seconds_total"] == pytest.approx(54.6, abs=0.5)
    assert 0 < found["tilescribe_busy_seconds_total"]
    assert 0 < found["tilescribe_speech_seconds_total"] < 54
    assert found["tilescribe_uncovered_speech_seconds_total"] < 1
    assert (found["tilescribe_healthy"], found["tilescribe_requests_taken"]) == (1, 0)
    assert (found["tilescribe_recordings_waiting"], found["tilescribe_requests_limit"]) == (0, 32)
    assert found["process_resident_memory_bytes"] > 1e6
    (build,) = (name for name in found if name.startswith("tilescribe_build_info"))
    assert "backend=int32" in build
    assert "device=emulator" in build
    assert "model=tiny.en" in build

    by_id = {line["id"]: line for line in map(json.loads, lines())}
    first, third = by_id.pop(text._request_id), by_id.pop(refused.value.request_id)
    second, other = sorted(by_id.values(), key=lambda line: line["status"])
    assert other["path"] == "other"
    assert [line["status"] for line in (first, second, third, other)] == [200, 200, 400, 404]
    assert (first["event"], first["windows"], first["device"]) == ("request", 1, "emulator")
    assert second["audio_seconds"] == pytest.approx(40.3, abs=0.5)
    assert third["code"] == "invalid_audio"
    written = " ".join(lines())
    assert not any(word in written for word in (NAME, "secret", "harbor", whole[0].delta.strip()))


@pytest.mark.parametrize("lines", [True], indirect=True)
def test_sessions_are_counted_and_named(live_tiny: Transcriber, spoken: Utterance, lines: Any) -> None:
    sound = (load_audio(spoken.audio)[:32000] * 32767).astype("<i2").tobytes()
    with serving(live_tiny) as served:
        with served.client().realtime.connect(**INTENT) as connection:
            asked = asking(format={"rate": 16000}, transcription={"prompt": "secret prompt"})
            connection.session.update(session=asked)
            connection.input_audio_buffer.append(audio=base64.b64encode(sound).decode())
            connection.send_raw(f"{{{NAME}")
            connection.input_audio_buffer.commit()
            text = until_event(connection, "completed")[-1].transcript
            assert samples(served)["tilescribe_sessions_open"] == 1
        until(lambda: len(lines()) == 1)
        found = samples(served)
    assert found["tilescribe_requests_total,path=/v1/realtime,status=101"] == 1
    assert found["tilescribe_sessions_open"] == 0
    assert found["tilescribe_session_audio_seconds_total"] == pytest.approx(2, abs=0.1)
    assert found["tilescribe_errors_total,code=invalid_json"] == 1
    (line,) = map(json.loads, lines())
    assert (line["path"], line["status"], line["items"], line["device"]) == (
        "/v1/realtime",
        101,
        1,
        "emulator",
    )
    assert line["audio_seconds"] == pytest.approx(2, abs=0.1)
    assert "harbor" in text
    # Whole words: two letters of one may be in the number of a request.
    assert not set(re.findall(r"\w+", lines()[0])) & set(re.findall(r"\w+", f"{NAME} secret {text}"))


@pytest.mark.parametrize("lines", [False], indirect=True)
def test_a_fault_is_a_500_and_a_line_with_its_place(
    tiny_en: Transcriber, clip: bytes, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError(f"all of it: {NAME}")

    monkeypatch.setattr(application, "answer", broken)
    with serving(tiny_en) as served, pytest.raises(openai.InternalServerError) as refused:
        served.client().audio.transcriptions.create(file=clip, model="whisper-1")
    assert refused.value.code == "fault"
    fault, line = lines()
    assert fault.startswith("fault id=")
    assert 'fault="ValueError" at=[' in fault
    assert "test_watching.py" in fault
    assert refused.value.request_id in fault
    assert line.startswith(
        f'request id="{refused.value.request_id}" path="/v1/audio/transcriptions" status=500'
    )
    assert NAME not in fault


def test_a_client_that_leaves_is_counted(tiny_en: Transcriber, long_clip: bytes) -> None:
    with serving(tiny_en) as served:
        with served.client().audio.transcriptions.create(
            file=long_clip, model="whisper-1", stream=True
        ) as stream:
            next(iter(stream))
        until(lambda: samples(served)["tilescribe_clients_left_total"] == 1)
