"""What a request may cost, and who may send one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import openai
import pytest
import requests
from material.servers import Served, serving, until

from app import Transcriber
from app.serving.limits import Limits


def test_a_body_over_the_limit_is_refused_whether_it_says_so_or_not(tiny_en: Transcriber) -> None:
    with serving(tiny_en, Limits(body_bytes=100_000)) as served:
        with pytest.raises(openai.APIStatusError, match="larger than 100,000 bytes") as refused:
            served.client().audio.transcriptions.create(file=bytes(200_000), model="whisper-1")
        assert refused.value.status_code == 413

        def endless() -> Iterator[bytes]:
            yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
            for _ in range(50):
                yield bytes(10_000)

        answer = requests.post(
            f"{served.url}/inference",
            data=endless(),
            headers={"content-type": "multipart/form-data; boundary=b"},
            timeout=600,
        )
        assert answer.status_code == 413
        assert not served.jobs


def test_audio_over_the_limit_is_refused_by_what_it_decodes_to(tiny_en: Transcriber, clip: bytes) -> None:
    with serving(tiny_en, Limits(audio_seconds=10)) as served:
        with pytest.raises(openai.BadRequestError, match="longer than 10 s") as refused:
            served.client().audio.transcriptions.create(file=clip, model="whisper-1")
        assert refused.value.code == "audio_too_long"


def test_a_body_that_does_not_come_gives_its_place_back(tiny_en: Transcriber) -> None:
    with serving(tiny_en, Limits(upload_seconds=0.2)) as served:
        with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as slow:
            head = "POST /inference HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
            slow.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n--b".encode())
            assert b" 408 " in slow.recv(100)
        until(lambda: requests.get(f"{served.url}/health", timeout=60).json()["requests"] == 0)


def test_one_more_than_all_places_is_told_to_come_again_and_a_client_that_leaves_frees_its_own(
    tiny_en: Transcriber, clip: bytes, long_clip: bytes
) -> None:
    gate = threading.Semaphore(1)
    with serving(tiny_en, Limits(requests=1), gate=gate) as served:
        transcriptions = served.client().audio.transcriptions
        with transcriptions.create(file=long_clip, model="whisper-1", stream=True) as stream:
            next(iter(stream))
            with pytest.raises(openai.RateLimitError) as refused:
                transcriptions.create(file=clip, model="whisper-1")
            assert int(refused.value.response.headers["retry-after"]) >= 1
            assert requests.get(f"{served.url}/ready", timeout=60).status_code == 429
            assert requests.get(f"{served.url}/health", timeout=60).status_code == 200
        until(lambda: requests.get(f"{served.url}/ready", timeout=60).ok)
        gate.release(10)
        assert transcriptions.create(file=clip, model="whisper-1").text
        left, stayed = served.jobs
        assert left.stream is not None
        assert not left.stream.complete
        assert stayed.stream is not None
        assert stayed.stream.complete


def test_a_client_that_leaves_before_its_answer_ends_the_work(tiny_en: Transcriber, long_clip: bytes) -> None:
    gate = threading.Semaphore(0)
    with serving(tiny_en, gate=gate) as served:
        request = requests.Request("POST", f"{served.url}/inference", files={"file": long_clip}).prepare()
        with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as leaving:
            headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            leaving.sendall(f"POST /inference HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
            leaving.sendall(request.body)
            until(lambda: served.jobs and served.jobs[0].stream is not None)
        until(lambda: requests.get(f"{served.url}/health", timeout=60).json()["requests"] == 0)
        (job,) = served.jobs
        assert job.left
        gate.release(10)
        assert job.stream is not None
        assert not job.stream.complete


def test_a_key_is_asked_of_all_but_a_supervisor(tiny_en: Transcriber) -> None:
    with serving(tiny_en, key="secret", local=False) as served:
        assert len(list(served.client(api_key="secret").models.list())) == 2
        for wrong in ("secre", "secret2"):
            with pytest.raises(openai.AuthenticationError):
                served.client(api_key=wrong).models.list()
        for header in ("secret", "Basic secret", "Bearer ключ".encode(), ""):
            answer = requests.get(f"{served.url}/v1/models", headers={"Authorization": header}, timeout=60)
            assert answer.status_code == 401
        assert requests.post(f"{served.url}/inference", files={"file": b"a"}, timeout=60).status_code == 401
        assert requests.get(f"{served.url}/health", timeout=60).ok


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "attacker.example"},
        {"Host": "127.0.0.1.attacker.example:80"},
        {"Origin": "https://attacker.example"},
        {"Origin": "null"},
    ],
    ids=str,
)
def test_pages_of_other_sites_are_not_let_in(served: Served, headers: dict[str, str]) -> None:
    answer = requests.get(f"{served.url}/v1/models", headers=headers, timeout=60)
    assert answer.status_code == 403
    assert requests.get(f"{served.url}/v1/models", headers={"Origin": served.url}, timeout=60).ok
