"""What a session may cost, who may have one, and how it ends."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import openai
import pytest
import requests
from material.realtime import INTENT, ITEM, asking, chunks, until
from material.servers import Served, serving
from material.servers import until as wait_until
from openai.resources.realtime.realtime import RealtimeConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from app import DeviceLost, Transcriber
from app.serving.limits import Limits

FIRST = "quiet harbor wakes before"


def refusal(begin: Callable[[], Any]) -> tuple[int, dict[str, Any]]:
    """The status and the error of a session that is not begun."""
    with pytest.raises(InvalidStatus) as refused:
        begin()
    response = refused.value.response
    assert response.body is not None
    return response.status_code, json.loads(response.body)["error"]


def begin(served: Served, key: str = "none", **how: Any) -> RealtimeConnection:
    connection: RealtimeConnection = served.client(api_key=key).realtime.connect(**(how or INTENT)).enter()
    assert connection.recv().type == "session.created"
    return connection


def place_of(served: Served) -> str:
    return f"{served.url}/v1/realtime".replace("http", "ws")


def closing(connection: RealtimeConnection) -> tuple[int, list[Any]]:
    """The code that the server closes with, and the events before."""
    events: list[Any] = []
    while True:
        try:
            events.append(connection.recv())
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006, events


@pytest.mark.parametrize(
    ("how", "status", "param"),
    [
        ({"extra_query": {"intent": "conversation"}}, 400, "intent"),
        ({"model": "gpt-realtime"}, 404, "model"),
        ({"call_id": "call"}, 400, "call_id"),
        ({"extra_headers": {"Origin": "https://attacker.example"}}, 403, None),
        ({"extra_headers": {"Origin": "null"}}, 403, None),
    ],
    ids=str,
)
def test_what_is_not_begun_says_why(live: Served, how: Any, status: int, param: str | None) -> None:
    found, error = refusal(lambda: begin(live, **how))
    assert (found, error["param"]) == (status, param)
    assert error["message"]


def test_a_key_comes_in_a_header_or_as_browsers_send_it(live_tiny: Transcriber) -> None:
    with serving(live_tiny, key="secret", local=False) as served:
        begin(served, "secret").close()
        for key in ("secre", "secret2"):
            assert refusal(lambda key=key: begin(served, key))[0] == 401
        place, form = place_of(served), "openai-insecure-api-key."
        assert refusal(lambda: connect(place))[1]["code"] == "invalid_api_key"
        assert refusal(lambda: connect(place, subprotocols=["realtime", f"{form}wrong"]))[0] == 401  # type: ignore[list-item]
        page = {"origin": served.url, "subprotocols": ["realtime", f"{form}secret"]}
        with connect(place, **page) as connection:  # type: ignore[arg-type]
            assert connection.subprotocol == "realtime"
            assert json.loads(connection.recv())["type"] == "session.created"


def test_sessions_have_places_among_the_requests(live_tiny: Transcriber, clip: bytes) -> None:
    with serving(live_tiny, Limits(requests=1)) as served:
        connection = begin(served)
        status, error = refusal(lambda: begin(served))
        assert (status, error["code"]) == (429, "rate_limit_exceeded")
        with pytest.raises(openai.RateLimitError):
            served.client().audio.transcriptions.create(file=clip, model="whisper-1")
        connection.close()
        wait_until(lambda: requests.get(f"{served.url}/ready", timeout=60).ok)
        begin(served).close()
        served.engine.lost = DeviceLost("the NPU is lost")
        assert refusal(lambda: begin(served))[0] == 503


def test_a_client_that_stops_sending_keeps_its_words(live_tiny: Transcriber, pcm: bytes) -> None:
    with serving(live_tiny, Limits(idle_seconds=2)) as served:
        connection = begin(served)
        connection.input_audio_buffer.append(audio=base64.b64encode(pcm[:110_000]).decode())
        code, events = closing(connection)
        wait_until(lambda: len(served.sessions) == 0)
    assert code == 1000
    assert [event.error.code for event in events if event.type == "error"] == ["idle_timeout"]
    assert FIRST[:15] in events[-1].transcript.lower()


def test_a_client_that_vanishes_frees_its_place(live_tiny: Transcriber, pcm: bytes) -> None:
    with serving(live_tiny) as served:
        connection = begin(served)
        with served.engine.turn(lambda: False):
            for part in chunks(pcm, [9600] * 10):
                connection.input_audio_buffer.append(audio=part)
            wait_until(lambda: served.engine.waiting() == 1)
            connection._connection.socket.shutdown(socket.SHUT_RDWR)
            wait_until(lambda: len(served.sessions) == 0)
        health = requests.get(f"{served.url}/health", timeout=60).json()
        assert health["requests"] == 0
        begin(served).close()


def test_no_more_is_read_than_may_wait_and_nothing_is_lost(live_tiny: Transcriber, pcm: bytes) -> None:
    with serving(live_tiny, Limits(waiting_seconds=2)) as served:
        connection = begin(served)
        connection.session.update(session=asking(turn_detection=None))
        quiet = base64.b64encode(bytes(48000)).decode()

        def send() -> None:
            for _ in range(30):
                connection.input_audio_buffer.append(audio=quiet)
            connection.input_audio_buffer.commit()

        with served.engine.turn(lambda: False):
            connection.input_audio_buffer.append(audio=base64.b64encode(pcm).decode())
            wait_until(lambda: served.engine.waiting() == 1)
            sending = threading.Thread(target=send)
            sending.start()
            (open_one,) = served.sessions._open
            wait_until(lambda: sum(len(one.data) for one in list(open_one._waiting)) >= 2 * 48000)  # type: ignore[union-attr]
            time.sleep(0.3)
            waiting = sum(len(one.data) for one in open_one._waiting)  # type: ignore[union-attr]
        assert waiting <= 3 * 48000
        *_, completed = until(connection, "completed")
        sending.join()
        assert FIRST in completed.transcript
        assert completed.usage.seconds == pytest.approx(30 + len(pcm) / 48000, abs=0.1)
        connection.close()


def test_an_event_has_a_size(live: Served) -> None:
    connection = begin(live)
    with suppress(ConnectionClosed):  # while it sends
        connection.send_raw("x" * (5 << 20))
    assert closing(connection)[0] in (1009, 1006)
    wait_until(lambda: len(live.sessions) == 0)


def test_a_server_that_ends_lets_sessions_say_their_last_words(live_tiny: Transcriber, pcm: bytes) -> None:
    with serving(live_tiny) as served:
        connection, idle = begin(served), begin(served)
        connection.input_audio_buffer.append(audio=base64.b64encode(pcm[:110_000]).decode())
        until(connection, "delta")
        served.server.should_exit = True
        code, events = closing(connection)
        assert code == 1001
        assert [event.type for event in events[-1 - len(ITEM) : -1]] == list(ITEM)
        assert FIRST[:15] in events[-1].transcript.lower()
        assert closing(idle) == (1001, [])


def test_a_session_has_its_turn_between_windows(live_tiny: Transcriber, pcm: bytes, long_clip: bytes) -> None:
    gate = threading.Semaphore(1)
    with serving(live_tiny, gate=gate, at_once=1) as served:
        connection = begin(served)
        connection.input_audio_buffer.append(audio=base64.b64encode(pcm).decode())
        until(connection, "completed")
        stream = served.client().audio.transcriptions.create(
            file=("a.wav", long_clip), model="whisper-1", stream=True
        )
        events = iter(stream)
        next(events)
        connection.input_audio_buffer.append(audio=base64.b64encode(pcm).decode())
        wait_until(lambda: served.engine.waiting() == 1)
        gate.release()  # the second of three windows, behind which the session is
        assert FIRST in until(connection, "completed")[-1].transcript
        gate.release(10)
        assert [event.type for event in events][-1] == "transcript.text.done"
        connection.close()
