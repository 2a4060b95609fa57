"""What Prometheus reads of a server at /metrics: counts and times, and nothing of what anybody said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector
from starlette.responses import Response

from app.api import Transcriber, Transcript

__all__ = ["Metrics"]

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """A server's.

    Attributes:
        requests: that have been answered, by path and status; 499 where the client left before that.
        duration: of them, from the first byte to the last.
        errors: that clients were told of, by code.
        left: clients that did not wait for the end.
        windows: that have been decoded.
        audio: seconds of recordings that have been decoded.
        heard: seconds of sound in sessions.
        busy: seconds that this took: what `audio` grows by while it grows by one is the speed in times real time.
    """

    def __init__(self, transcriber: Transcriber) -> None:
        """Count from nothing."""
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"tilescribe_{name}", about, labels, registry=registry)

        self.requests = counter(
            "requests_total", "Requests answered; 499: the client left.", "path", "status"
        )
        self.duration = Histogram(
            "tilescribe_request_duration_seconds",
            "Of requests, from the first byte to the last.",
            ["path"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.errors = counter("errors_total", "Errors that clients were told of, by code.", "code")
        self.left = counter("clients_left_total", "Clients that did not wait for the end of their answer.")
        self.windows = counter("windows_total", "Windows of up to 30 s, and steps of sessions, decoded.")
        self.audio = counter("audio_seconds_total", "Seconds of recordings decoded.")
        self.heard = counter("session_audio_seconds_total", "Seconds of sound heard in sessions.")
        self.busy = counter("busy_seconds_total", "Seconds in which windows were decoded.")
        self._speech = counter("speech_seconds_total", "Seconds of speech heard in recordings.")
        self._uncovered = counter("uncovered_speech_seconds_total", "Seconds of it that got no text.")
        self._findings = counter("findings_total", "Where speech and text disagreed, by kind.", "kind")
        attention = transcriber.attention
        Info("tilescribe_build", "What serves.", registry=registry).info(
            {
                "version": version("tilescribe"),
                "model": transcriber.weights.name.rpartition("/")[2],
                "backend": attention.name,
                "device": attention.device,
                "compute_type": transcriber.compute_type,
            }
        )

    def watch(self, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        """Read gauges when they are asked for: by name what they are about, and their value."""
        for name, (about, value) in gauges.items():
            Gauge(f"tilescribe_{name}", about, registry=self._registry).set_function(value)

    def window(self, seconds: float) -> None:
        """Count a window that took so long to decode."""
        self.windows.inc()
        self.busy.inc(seconds)

    def progress(self) -> Callable[[float, float], None]:
        """What counts a recording's seconds as they are decoded."""
        counted = 0.0

        def on_progress(done: float, _: float) -> None:
            nonlocal counted
            self.audio.inc(max(0.0, done - counted))
            counted = max(counted, done)

        return on_progress

    def transcribed(self, transcript: Transcript) -> None:
        """Count what became of a recording's speech."""
        covered = transcript.coverage
        if covered is not None:
            self._speech.inc(covered.speech)
            self._uncovered.inc(max(0.0, covered.speech - covered.covered))
            for finding in covered.findings:
                self._findings.labels(finding.kind).inc()

    def response(self) -> Response:
        """All of it in Prometheus' text format."""
        return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})
