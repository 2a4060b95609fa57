"""Sessions as OpenAI's own client has them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import openai
import pytest
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from material.realtime import (
    INTENT,
    ITEM,
    TRANSCRIPTION,
    asking,
    checked,
    chunks,
    text_of,
    until,
    until_async,
)
from material.servers import Served
from openai.resources.realtime.realtime import RealtimeConnection
from websockets.exceptions import ConnectionClosed

from app import DeviceLost, Transcriber
from app.audio.reading import load_audio
from app.live.transcriber import LiveTranscriber
from datasets.utterance import Utterance

FIRST = "quiet harbor wakes before"


@pytest.fixture
def session(live: Served) -> Iterator[RealtimeConnection]:
    """One that has begun."""
    with live.client().realtime.connect(**INTENT) as connection:
        assert connection.recv().type == "session.created"
        yield connection


def test_turns_are_detected_and_deltas_join_to_the_transcript(live: Served, pcm: bytes) -> None:
    with live.client().realtime.connect(model="whisper-1") as connection:
        created = checked(connection.recv())
        assert created.session.audio.input.turn_detection.silence_duration_ms == 600
        assert created.session.audio.input.transcription.model == "tiny.en"
        asked = asking(
            turn_detection={"type": "server_vad", "prefix_padding_ms": 300, "silence_duration_ms": 500},
            transcription={"model": "whisper-1", "language": "en", "prompt": "Harbor."},
        )
        connection.session.update(session=asked)
        updated = checked(connection.recv())
        assert updated.session.audio.input.format.rate == 24000
        assert updated.session.audio.input.turn_detection.prefix_padding_ms == 300
        for sizes in ([2] * 50 + [1234, 3210, 20000], [len(pcm)]):
            for part in chunks(pcm, sizes):
                connection.input_audio_buffer.append(audio=part)
        first, second = until(connection, "completed"), until(connection, "completed")
    for events in (first, second):
        started, *deltas, stopped = events[: -1 - len(ITEM)]
        assert started.type == "input_audio_buffer.speech_started"
        assert stopped.type == "input_audio_buffer.speech_stopped"
        assert [event.type for event in events[-1 - len(ITEM) : -1]] == list(ITEM)
        assert {event.item_id for event in (started, *deltas, stopped, events[-1])} == {events[-2].item.id}
        assert text_of(events) == events[-1].transcript
        assert FIRST in events[-1].transcript
        assert events[-1].usage.seconds == pytest.approx(
            (stopped.audio_end_ms - started.audio_start_ms) / 1000, abs=0.01
        )
        for word in (word for delta in deltas for word in delta.tilescribe["words"]):
            assert (
                started.audio_start_ms <= 1000 * word["start"] <= 1000 * word["end"] <= stopped.audio_end_ms
            )
    assert (first[-2].previous_item_id, second[-2].previous_item_id) == (None, first[-2].item.id)
    assert second[0].audio_start_ms >= first[-2 - len(ITEM)].audio_end_ms


def test_what_is_committed_is_an_item_in_any_format(live: Served, pcm: bytes) -> None:
    samples = np.frombuffer(pcm, "<i2")[::3]
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), "s16", "mono")
    frame.sample_rate = 8000

    def encoded(codec: str) -> bytes:
        made = AudioCodecContext.create(codec, "w")
        made.sample_rate, made.layout, made.format = 8000, "mono", "s16"  # type: ignore[attr-defined]
        return b"".join(bytes(packet) for packet in made.encode(frame))  # type: ignore[attr-defined]

    async def asked() -> None:
        client = openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)
        async with client.realtime.connect(**INTENT) as connection:
            for of_input, data in (
                ({"turn_detection": None}, pcm),
                ({"format": {"type": "audio/pcmu"}}, encoded("pcm_mulaw")),
                ({"format": {"type": "audio/pcma"}}, encoded("pcm_alaw")),
                ({"format": {"type": "audio/pcm", "rate": 8000}}, samples.tobytes()),
            ):
                await connection.session.update(session=asking(**of_input))
                await until_async(connection, "session.updated")
                for part in chunks(data, [2000] * 5):
                    await connection.input_audio_buffer.append(audio=part)
                await connection.input_audio_buffer.commit()
                *deltas, _, _, _, completed = events = await until_async(connection, "completed")
                assert {event.type for event in deltas} == {f"{TRANSCRIPTION}.delta"}
                assert text_of(events) == completed.transcript
                assert FIRST in completed.transcript
                assert completed.usage.seconds == pytest.approx(len(pcm) / 48000, abs=0.02)
            await connection.input_audio_buffer.append(audio=base64.b64encode(bytes(1000)).decode())
            await connection.send({"type": "input_audio_buffer.commit", "event_id": "mine"})
            (refused,) = await until_async(connection, "error")
            assert (refused.error.code, refused.error.event_id) == ("input_audio_buffer_commit_empty", "mine")

    asyncio.run(asked())


def test_text_that_may_change_comes_where_it_is_asked_for(session: RealtimeConnection, pcm: bytes) -> None:
    session.session.update(session={"type": "transcription", "include": ["tilescribe.partial"]})
    begin, rest = chunks(pcm, [72000])
    session.input_audio_buffer.append(audio=begin)
    events = until(session, "delta")
    session.input_audio_buffer.append(audio=rest)
    events += until(session, "completed")
    partial = [e.tilescribe["partial"] for e in events if e.type == f"{TRANSCRIPTION}.delta"]
    assert any(partial)
    assert partial[-1] == ""
    assert text_of(events) == events[-1].transcript


def test_what_is_cleared_is_forgotten(session: RealtimeConnection, pcm: bytes) -> None:
    session.session.update(session=asking(turn_detection=None))
    session.input_audio_buffer.append(audio=base64.b64encode(pcm).decode())
    session.input_audio_buffer.clear()
    until(session, "cleared")
    session.input_audio_buffer.append(audio=base64.b64encode(bytes(48000)).decode())
    session.input_audio_buffer.commit()
    *_, completed = until(session, "completed")
    assert (completed.transcript, completed.usage.seconds) == ("", 1.0)


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ("{", "invalid_json", None),
        (b"\0\0", "invalid_json", None),
        ("[" * 100_000, "invalid_json", None),
        ([], "missing_required_parameter", "type"),
        ({"type": "response.create"}, "invalid_value", "type"),
        ({"type": "transcription_session.update"}, "invalid_value", "type"),
        ({"type": "input_audio_buffer.append"}, "missing_required_parameter", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "?"}, "invalid_value", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "invalid_value", "audio"),
        ({"type": "input_audio_buffer.append", "audio": [1]}, "invalid_value", "audio"),
        ({"type": "input_audio_buffer.clear", "all": True}, "unknown_parameter", "all"),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty", None),
        ({"type": "session.update"}, "missing_required_parameter", "session"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_not_known_is_refused_and_the_session_goes_on(
    session: RealtimeConnection, event: Any, code: str, param: str | None
) -> None:
    name = "mine" if isinstance(event, dict) else None
    session.send_raw(
        event if isinstance(event, str | bytes) else json.dumps(event | {"event_id": name} if name else event)
    )
    refused = checked(session.recv())
    error = refused.error
    assert (error.type, error.code, error.param) == ("invalid_request_error", code, param)
    assert error.event_id == name
    assert error.message
    session.input_audio_buffer.clear()
    assert session.recv().type == "input_audio_buffer.cleared"


@pytest.mark.parametrize(
    ("changes", "param", "message"),
    [
        ({"type": "realtime"}, "session", "sessions here are for transcription"),
        ({"instructions": "x"}, "session.instructions", "unknown field"),
        ({"include": ["item.input_audio_transcription.logprobs"]}, "session", "logprobs' is not supported"),
        ({"turn_detection": {"type": "semantic_vad"}}, "turn_detection", "server_vad is, or null"),
        ({"turn_detection": {"type": "server_vad", "threshold": 2}}, "turn_detection.threshold", "< 1.0"),
        ({"turn_detection": {"create_response": True}}, "turn_detection.create_response", "unknown field"),
        ({"turn_detection": {"silence_duration_ms": 10**9}}, "turn_detection.silence_duration_ms", "<= 5000"),
        ({"noise_reduction": {"type": "near_field"}}, "noise_reduction", "Expected `null`"),
        ({"format": {"type": "audio/opus"}}, "format", "audio/pcm, audio/pcmu, audio/pcma"),
        ({"format": {"rate": 96000}}, "format", "8000 to 48000 Hz"),
        ({"transcription": None}, "transcription", "Expected `object`"),
        ({"transcription": {"model": "gpt-live-transcribe"}}, "transcription.model", "tiny.en or whisper-1"),
        ({"transcription": {"language": "de"}}, "transcription.language", "English-only"),
        ({"transcription": {"keywords": ["a"]}}, "transcription.keywords", "unknown field"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_sessions_that_can_not_be_had_are_refused_by_name(
    session: RealtimeConnection, changes: dict[str, Any], param: str, message: str
) -> None:
    of_input = next(iter(changes)) in ("turn_detection", "noise_reduction", "format", "transcription")
    session.session.update(session=asking(**changes) if of_input else changes)  # type: ignore[arg-type]
    error = checked(session.recv()).error
    assert error.param == (f"session.audio.input.{param}" if of_input else param)
    assert message in error.message


def test_ten_at_once_share_nothing(live: Served, spoken: Utterance) -> None:
    samples = (load_audio(spoken.audio) * 32767).astype("<i2")
    clips = [samples[round(1.2 * i * 16000) :][:40000].tobytes() for i in range(10)]

    def said(clip: bytes) -> str:
        with live.client().realtime.connect(**INTENT) as connection:
            connection.session.update(session=asking(turn_detection=None, format={"rate": 16000}))
            connection.input_audio_buffer.append(audio=base64.b64encode(clip).decode())
            connection.input_audio_buffer.commit()
            events = until(connection, "completed")
            assert text_of(events) == events[-1].transcript
            transcript: str = events[-1].transcript
            return transcript

    alone = [said(clip) for clip in clips]
    assert len(set(alone)) == 10
    with ThreadPoolExecutor(10) as threads:
        assert list(threads.map(said, clips)) == alone


def test_what_fails_is_told_with_its_item(
    live_tiny: Transcriber, session: RealtimeConnection, pcm: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = base64.b64encode(pcm).decode()
    with monkeypatch.context() as patch:
        patch.setattr(LiveTranscriber, "_continue", broken(ValueError("of words")))
        session.session.update(session=asking(turn_detection=None))
        session.input_audio_buffer.append(audio=audio)
        session.input_audio_buffer.commit()
        updated, *item, failed = until(session, "failed")
    assert updated.type == "session.updated"
    assert [event.type for event in item] == list(ITEM)
    assert (failed.error.code, failed.error.type, failed.item_id) == (
        "fault",
        "server_error",
        item[0].item_id,
    )
    assert "of words" not in failed.error.message
    session.input_audio_buffer.append(audio=audio)
    session.input_audio_buffer.commit()
    assert FIRST in until(session, "completed")[-1].transcript


def test_a_lost_device_ends_a_session(
    live_tiny: Transcriber, pcm: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from material.servers import serving

    monkeypatch.setattr(LiveTranscriber, "_continue", broken(DeviceLost("the NPU is lost")))
    with serving(live_tiny) as served, served.client().realtime.connect(**INTENT) as connection:
        for part in chunks(pcm, [24000] * 6):
            connection.input_audio_buffer.append(audio=part)
        *_, failed = until(connection, "failed")
        assert (failed.error.type, failed.error.code) == ("server_error", "device_lost")
        with pytest.raises(ConnectionClosed) as closed:
            until(connection, "never")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        assert str(served.engine.lost) == "the NPU is lost"


def broken(error: Exception) -> Any:
    def raised(*_: Any) -> None:
        raise error

    return raised
