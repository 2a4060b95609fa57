"""Load for `tilescribe serve`: clients that ask all the time, that leave, that send too much or nonsense; and its end.

    python scripts/load_serve.py --data-dir LibriSpeech/test-clean --clients 1 4 8 32 --seconds 300 --peer

It starts the server itself. Each answer's bytes are compared with what `transcribe` writes for the recording. With
`--peer` faster-whisper with the same weights, behind the thinnest server, is asked for the same. Exit code 1: something
was lost, wrong, or grew.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
from malformed import malformed
from peers.racers import RACERS

from app import load_model
from app.audio.reading import load_audio
from app.output.writers import render

Ask = Callable[[str, bytes], bytes]
MIB = 1 << 20


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="a folder with FLAC files")
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--backend", default="int32")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 4, 8, 32])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--requests", type=int, default=500, help="that are to leave memory flat")
    parser.add_argument("--leaving", type=int, default=100, help="clients that leave at random")
    parser.add_argument("--malformed", type=int, default=2000, help="requests")
    parser.add_argument("--peer", action="store_true")
    return parser.parse_args()


class Failures:
    """What went wrong, said at once."""

    def __init__(self) -> None:
        self.count = 0

    def check(self, holds: bool, text: str) -> None:
        """Say whether it holds."""
        print(f"{'ok  ' if holds else 'FAIL'} {text}", flush=True)
        self.count += not holds


@contextmanager
def started(command: Sequence[str], **how: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server and its address."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, text=True, **how)
        try:
            while True:
                said.seek(0)
                text = said.read()
                if found := re.search(r"listening on (http://\S+)", text):
                    break
                if process.poll() is not None:
                    sys.exit(text)
                time.sleep(0.1)
            yield process, found[1]
        finally:
            process.kill()
            process.wait()


def ask(url: str, audio: bytes) -> bytes:
    fields = {"model": "whisper-1", "response_format": "srt"}
    answer = requests.post(
        f"{url}/v1/audio/transcriptions", fields, files={"file": ("a.flac", audio)}, timeout=600
    )
    answer.raise_for_status()
    return answer.content


def ask_peer(url: str, audio: bytes) -> bytes:
    answer = requests.post(url, audio, timeout=600)
    answer.raise_for_status()
    return answer.content


def load(
    url: str, ask: Ask, audio: Sequence[bytes], clients: int, seconds: float
) -> tuple[list[tuple[int, float, bytes]], list[float]]:
    """What clients got in so many seconds: the file, how long it took, the answer; and the times of /health."""
    until, asked, health = time.monotonic() + seconds, threading.Event(), list[float]()

    def client(number: int) -> list[tuple[int, float, bytes]]:
        chance, found = random.Random(number), []
        while time.monotonic() < until:
            chosen, began = chance.randrange(len(audio)), time.monotonic()
            answer = ask(url, audio[chosen])
            found.append((chosen, time.monotonic() - began, answer))
        return found

    def supervisor() -> None:
        while not asked.wait(0.2):
            began = time.monotonic()
            requests.get(f"{url}/health", timeout=60).raise_for_status()
            health.append(time.monotonic() - began)

    watching = threading.Thread(target=supervisor)
    watching.start()
    try:
        with ThreadPoolExecutor(clients) as pool:
            return [one for its in pool.map(client, range(clients)) for one in its], health
    finally:
        asked.set()
        watching.join()


def percentile(values: Sequence[float], share: int) -> float:
    return statistics.quantiles(values, n=100)[share - 1] if len(values) > 1 else values[0]


def measured(
    name: str,
    url: str,
    ask: Ask,
    audio: Sequence[bytes],
    durations: Sequence[float],
    clients: int,
    seconds: float,
) -> list[tuple[int, float, bytes]]:
    """Load, and its row."""
    began = time.monotonic()
    found, health = load(url, ask, audio, clients, seconds)
    taken = time.monotonic() - began
    rate = sum(durations[i] for i, _, _ in found) / taken
    times = [one for _, one, _ in found]
    p50, p95, p99 = (percentile(times, share) for share in (50, 95, 99))
    print(
        f"{name:14} {clients:2} clients: {len(found):5} requests, {rate:6.1f} times real time, p50 {p50:.2f} s, "
        f"p95 {p95:.2f}, p99 {p99:.2f}; /health p99 {percentile(health, 99) * 1000:.0f} ms",
        flush=True,
    )
    return found


def memory(url: str) -> float:
    """Megabytes that the server has resident, as its metrics say."""
    text = requests.get(f"{url}/metrics", timeout=60).text
    return float(re.findall(r"^process_resident_memory_bytes (\S+)", text, re.M)[0]) / MIB


def until_idle(url: str) -> None:
    while requests.get(f"{url}/health", timeout=60).json()["requests"]:
        time.sleep(0.1)


def leave(url: str, audio: Sequence[bytes], count: int) -> None:
    """Clients that ask, some for a stream, and leave at a random moment."""

    def client(number: int) -> None:
        chance = random.Random(number)
        fields = {"model": "whisper-1", "stream": chance.choice(("true", "false"))}
        body = requests.Request(
            "POST", f"{url}/v1/audio/transcriptions", data=fields, files={"file": chance.choice(audio)}
        ).prepare()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as to:
            head = "".join(f"{name}: {value}\r\n" for name, value in body.headers.items())
            to.sendall(f"POST {body.path_url} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode())
            to.sendall(body.body[: chance.choice((len(body.body) // 2, len(body.body)))])
            time.sleep(chance.uniform(0, 2))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(client, range(count)))


def send(url: str, raw: bytes) -> bytes:
    """What comes back on a connection of its own."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=60) as to:
        with suppress(OSError):  # it has been refused
            to.sendall(raw)
        answer = b""
        while more := to.recv(1 << 16):
            answer += more
        return answer


def flood(url: str) -> int:
    """The status that 200 MB get."""

    def body() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(200):
            yield bytes(MIB)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    return requests.post(f"{url}/inference", body(), headers=headers, timeout=600).status_code


def main() -> None:
    given, failures = arguments(), Failures()
    paths = sorted(given.data_dir.rglob("*.flac"))[: given.files]
    audio = [path.read_bytes() for path in paths]
    durations = [len(load_audio(path)) / 16000 for path in paths]
    transcriber = load_model(given.model, given.backend, "emulator")
    expected = [render(transcriber.transcribe(path), "srt").encode() for path in paths]
    del transcriber
    program = str(Path(sys.executable).parent / "tilescribe")
    command = [program, "serve", "--model", given.model, "--backend", given.backend, "--device", "emulator"]
    command += ["--port", "0", "--batch-size", str(given.batch_size)]

    def right(found: Sequence[tuple[int, float, bytes]], what: str) -> None:
        wrong = sum(answer != expected[i] for i, _, answer in found)
        failures.check(not wrong, f"{what}: {len(found)} answers, {wrong} other than transcribe's")

    with started(command) as (process, url):
        right(load(url, ask, audio, 8, 10)[0], "at first")
        for clients in given.clients:
            found = measured("tilescribe", url, ask, audio, durations, clients, given.seconds)
            right(found, f"{clients} clients")
        before = memory(url)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: ask(url, audio[i % len(audio)]), range(given.requests)))
        failures.check(
            memory(url) < before + 32, f"{given.requests} requests: {before:.0f} MiB, then {memory(url):.0f}"
        )
        leave(url, audio, given.leaving)
        until_idle(url)
        right(load(url, ask, audio, 4, 5)[0], f"after {given.leaving} clients that left")
        before = memory(url)
        status = flood(url)
        failures.check(
            status == 413 and memory(url) < before + 32, f"200 MB: {status}, {memory(url) - before:+.0f} MiB"
        )
        statuses = [send(url, one.raw)[9:12] for one in malformed(1, given.malformed, audio[0])]
        clear = sum(status.startswith(b"4") for status in statuses)
        failures.check(
            clear == len(statuses), f"{len(statuses)} malformed requests: {clear} got a 4xx; {set(statuses)}"
        )
        failures.check(memory(url) < before + 32, f"then {memory(url):.0f} MiB")
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, url, one) for one in audio[:8]]
            while requests.get(f"{url}/health", timeout=60).json()["requests"] < 8 and not all(
                a.done() for a in asked
            ):
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            answers = [one.result() for one in asked]
        failures.check(answers == expected[:8], "SIGTERM: what ran was answered")
        failures.check(process.wait(60) == 0, f"and it ended with {process.returncode}")
    with started(command) as (process, url), ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, url, one) for one in audio[:8]]
        time.sleep(1)
        process.kill()
        for one in asked:
            one.exception()
    with started(command) as (_, url):
        right([(0, 0.0, ask(url, audio[0]))], "after kill -9")
    if given.peer:
        peer = RACERS["faster-whisper"]
        assert peer.environment is not None
        peer.environment.install()
        with tempfile.TemporaryDirectory() as scratch:
            thin = [str(peer.environment.python), str(Path(__file__).parent / "peers" / "thin_server.py")]
            thin += [peer.model(given.model, Path(scratch)), str(len(os.sched_getaffinity(0)))]
            apart = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
            with started(thin, env=apart) as (_, url):
                load(url, ask_peer, audio, 8, 10)
                for clients in given.clients:
                    measured("faster-whisper", url, ask_peer, audio, durations, clients, given.seconds)
    sys.exit(bool(failures.count))


if __name__ == "__main__":
    main()
