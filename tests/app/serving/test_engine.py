"""Whose window is next, and that it changes nobody's text."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import openai
import pytest
import requests
from material.servers import Served, serving, until, wave_file

from app import DecodeOptions, DeviceLost, Transcriber, Transcript
from app.audio.reading import load_audio
from app.output.writers import render
from app.serving import together
from app.serving.engine import Engine, Event, Job, Opened
from models.compute import has_bfloat16
from models.decoder import batch_invariant


class Windows:
    """In the place of a stream of segments: as many windows, each put down in `order`."""

    duration = 1.0

    def __init__(self, name: str, count: int, order: list[str], fails: Exception | None = None) -> None:
        self.name, self.left, self.order, self.fails = name, count, order, fails
        self.closed = False

    @property
    def complete(self) -> bool:
        return not self.left

    def next_window(self) -> list[Any]:
        if self.fails is not None:
            raise self.fails
        self.left -= 1
        self.order.append(self.name)
        return []

    def transcript(self) -> Any:
        return f"all of {self.name}"

    def close(self) -> None:
        self.closed = True


def run(*streams: Windows, left: tuple[str, ...] = ()) -> tuple[Engine, dict[str, list[Event]]]:
    """Let an engine decode them that finds them all waiting, in this order."""
    engine, begun, go = Engine(), threading.Event(), threading.Event()
    told: dict[str, list[Event]] = {stream.name: [] for stream in streams}

    class Held(Windows):
        def next_window(self) -> list[Any]:
            begun.set()
            go.wait()
            return super().next_window()

    held = Held("held", 1, [])
    engine.start(Job(lambda _: held, lambda _: None))  # type: ignore[arg-type, return-value]
    begun.wait()
    for waiting, stream in enumerate(streams):
        until(lambda waiting=waiting: engine.waiting() == waiting)
        job = Job(lambda _, stream=stream: stream, told[stream.name].append)  # type: ignore[misc]
        job.left = stream.name in left
        engine.start(job)
    until(lambda: engine.waiting() == len(streams))
    go.set()
    until(lambda: all(stream.closed for stream in streams))
    assert engine.close()
    return engine, told


def test_memory_is_given_back_where_nobody_has_asked_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    given = threading.Semaphore(0)
    monkeypatch.setattr("app.serving.engine._REST", 0.2)
    monkeypatch.setattr("app.serving.engine.give_memory_back", given.release)
    go = threading.Event()

    class Held(Windows):
        def next_window(self) -> list[Any]:
            go.wait()
            return super().next_window()

    engine, told = Engine(), list[Event]()
    for stream in (Windows("short", 1, []), Held("long", 1, [])):
        engine.start(Job(lambda _, stream=stream: stream, told.append))  # type: ignore[misc]
        until(lambda: bool(told))
    assert not given.acquire(timeout=0.5)  # one is being decoded
    go.set()
    assert given.acquire(timeout=10)
    assert engine.close()


def test_each_has_a_window_before_any_has_its_second() -> None:
    order: list[str] = []
    run(Windows("long", 4, order), Windows("short", 1, order), Windows("middle", 2, order))
    assert order == ["long", "short", "middle", "long", "middle", "long", "long"]


def test_nobody_is_decoded_for_who_has_left() -> None:
    order: list[str] = []
    gone = Windows("gone", 3, order)
    run(gone, Windows("there", 2, order), left=("gone",))
    assert order == ["there", "there"]
    assert gone.closed


def test_what_fails_fails_alone() -> None:
    order: list[str] = []
    engine, told = run(Windows("bad", 2, order, ValueError("bad")), Windows("good", 2, order))
    assert str(told["bad"][-1]) == "bad"
    assert told["good"][-1] == "all of good"
    assert engine.lost is None


def test_a_lost_device_ends_all_that_wait() -> None:
    order: list[str] = []
    engine, told = run(Windows("first", 2, order, DeviceLost("gone")), Windows("second", 2, order))
    assert [str(events[-1]) for events in told.values()] == ["gone", "gone"]
    assert str(engine.lost) == "gone"
    assert not order


def test_a_lost_device_is_a_503_that_is_not_asked_again(tiny_en: Transcriber, clip: bytes) -> None:
    with serving(tiny_en) as served:
        served.engine.lost = DeviceLost("the NPU is lost")
        with pytest.raises(openai.InternalServerError, match="the NPU is lost") as refused:
            served.client(max_retries=2).audio.transcriptions.create(file=clip, model="whisper-1")
        assert refused.value.status_code == 503
        assert refused.value.response.headers["x-should-retry"] == "false"
        assert requests.get(f"{served.url}/health", timeout=60).status_code == 503
        assert requests.get(f"{served.url}/ready", timeout=60).status_code == 503


def found_together(
    transcriber: Transcriber, asked: list[tuple[bytes, DecodeOptions]], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Any], int]:
    """The segments of recordings that an engine finds all at once, and the most windows that it decoded as one."""
    all_read = threading.Barrier(len(asked))

    def told(number: int, event: Event) -> None:
        if isinstance(event, Transcript | Exception):
            found[number] = getattr(event, "segments", event)

    sizes: list[int] = []
    engine, found = Engine(len(asked)), {}
    sharing, count = engine.of(transcriber), together.search

    def counted(*args: Any, **how: Any) -> Any:
        sizes.append(len(how["prompts"]))
        return count(*args, **how)

    monkeypatch.setattr(together, "search", counted)
    for number, (audio, options) in enumerate(asked):

        def opened(_: Job, audio: bytes = audio, options: DecodeOptions = options) -> Any:
            stream = sharing.stream(io.BytesIO(audio), options)
            all_read.wait()
            return stream

        engine.start(Job(opened, partial(told, number)))
    until(lambda: len(found) == len(asked))
    engine.close()
    return [found[number] for number in range(len(asked))], max(sizes)


def most_together(transcriber: Transcriber, windows: int) -> int:
    """How many windows can be decoded as one: all of them, but on processors of which nobody knows it."""
    decoder, dims = transcriber.recogniser.decoder, transcriber.recogniser.weights.dims
    exact = batch_invariant(decoder, dims, windows, together.ROWS)
    assert exact or has_bfloat16()
    return windows if exact else 1


def test_windows_decoded_together_are_those_of_transcribe_to_the_bit(
    tiny_en: Transcriber, clip: bytes, long_clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which is decoded again, at a higher temperature.
    doubtful = DecodeOptions(logprob_threshold=-0.2, temperature=(0.0, 0.4), best_of=2)
    rest = wave_file(load_audio(io.BytesIO(clip))[7 * 16000 :])
    asked = [
        (long_clip, DecodeOptions()),
        (rest, doubtful),
        (clip, DecodeOptions(word_timestamps=True)),
        (rest, DecodeOptions(initial_prompt="Harbour.")),
        (rest, DecodeOptions()),
    ]
    alone = [tiny_en.transcribe(io.BytesIO(audio), options).segments for audio, options in asked]
    assert alone[1][0].temperature > 0
    found, most = found_together(tiny_en, asked, monkeypatch)
    assert most >= min(3, most_together(tiny_en, len(asked)))
    assert found == alone


def test_short_windows_of_several_lengths_are_decoded_together_by_length(
    tiny_en: Transcriber, clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Transcriber.load(replace(tiny_en.configuration, audio_context="auto"))
    samples = load_audio(io.BytesIO(clip))
    audio = [wave_file(samples[: round(seconds * 16000)]) for seconds in (2.5, 7, 2.2, 7.1)]
    alone = [short.transcribe(io.BytesIO(one)).segments for one in audio]
    found, most = found_together(short, [(one, DecodeOptions()) for one in audio], monkeypatch)
    assert most == most_together(short, 2)
    assert found == alone


def test_clients_at_once_get_the_bytes_that_transcribe_gives(
    served: Served, clip: bytes, long_clip: bytes, whole: Transcript, long_whole: Transcript
) -> None:
    alone = {clip: render(whole, "srt"), long_clip: render(long_whole, "srt")}

    def ask(audio: bytes) -> str:
        return str(
            served.client().audio.transcriptions.create(file=audio, model="whisper-1", response_format="srt")
        )

    audio = [long_clip, clip, clip]
    with ThreadPoolExecutor(len(audio)) as clients:
        assert list(clients.map(ask, audio)) == [alone[one] for one in audio]


def test_a_search_ends_at_the_token_at_which_its_client_leaves(tiny_en: Transcriber, clip: bytes) -> None:
    engine, steps = Engine(8), 0
    sharing = engine.of(tiny_en)
    told: dict[str, list[Event]] = {"leaves": [], "stays": []}
    jobs = {name: Job(lambda _: sharing.stream(io.BytesIO(clip)), told[name].append) for name in told}
    run = tiny_en.recogniser.decoder.run

    def step(*args: Any, **how: Any) -> Any:
        nonlocal steps
        steps += 1
        jobs["leaves"].left = steps >= 5
        return run(*args, **how)

    decoder = SimpleNamespace(exact=False, run=step, attend_to=tiny_en.recogniser.decoder.attend_to)
    decoder.start = tiny_en.recogniser.decoder.start
    sharing.recogniser = replace(sharing.recogniser, decoder=decoder)
    engine.start(jobs["leaves"])
    until(lambda: jobs["leaves"].stream is not None and steps)
    until(lambda: not engine._threads)
    assert steps == 5
    assert [type(event) for event in told["leaves"]] == [Opened]
    engine.start(jobs["stays"])
    until(lambda: not engine._threads)
    assert isinstance(told["stays"][-1], Transcript)
    assert engine.close()
