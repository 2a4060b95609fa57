"""One model that decodes the recordings of all requests, window by window in turn.

A window of each recording is decoded before the second of any, so that a short clip behind a long file waits for
windows and not for the file. Where the texts of several windows are searched for at once, none enters the arithmetic of
another: a recording's text is the same to the bit whoever else is served.
"""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from app.api import DeviceLost, SegmentStream, Transcriber, Transcript
from app.machine import give_memory_back
from app.serving.limits import ClientLeft
from app.serving.together import ROWS, Together
from app.serving.watching import LOG
from models.decoder import batch_invariant
from models.decoding.segments import Segment

__all__ = ["Engine", "Event", "Job", "Opened"]

_LONGEST_WAIT = 60
_REST = 10.0  # seconds without a recording until memory is given back
_USUAL_WINDOW = 1.0  # seconds, until one has been decoded


@dataclass(frozen=True)
class Opened:
    """A recording has been read, and is to be decoded.

    Attributes:
        duration: seconds of audio.
    """

    duration: float


Event: TypeAlias = Opened | list[Segment] | Transcript | Exception
"""What becomes of a job: it is opened, windows come, and it ends with the transcript, or with what went wrong."""


class Job:
    """A recording to be transcribed for a client.

    Attributes:
        left: set where nobody waits for it any more: no further token of it is decoded.
    """

    def __init__(self, opened: Callable[[Job], SegmentStream], tell: Callable[[Event], None]) -> None:
        """Let `opened` read the recording, and call `tell` with all that becomes of it, both in another thread."""
        self.opened, self.tell = opened, tell
        self.left = False
        self.stream: SegmentStream | None = None


class Engine:
    """Reads and decodes each recording in a thread of its own, of which one computes at a time.

    Attributes:
        lost: the error that the NPU was lost with: nothing is decoded any more, on no other device either.
        on_window: is told of each window that was decoded, and of the seconds since the one before, or since its turn.
    """

    def __init__(self, at_once: int = 1) -> None:
        """Search for the texts of up to so many windows at once."""
        self.lost: DeviceLost | None = None
        self.on_window: Callable[[float], None] = lambda seconds: None
        self._together = Together(at_once)
        self._threads: set[threading.Thread] = set()
        self._ended = False
        self._window_seconds = _USUAL_WINDOW
        self._last = 0.0
        self._asked = 0.0

    def of(self, transcriber: Transcriber) -> Transcriber:
        """The same transcriber, which searches together with others; its streams are for jobs of this engine.

        Where sums depend on how many windows are decoded, as in PyTorch, each is decoded alone.
        """
        sharing = copy.copy(transcriber)
        decoder, dims = transcriber.recogniser.decoder, transcriber.recogniser.weights.dims
        if self._together.at_once > 1 and not batch_invariant(decoder, dims, self._together.at_once, ROWS):
            self._together.at_once = 1
            LOG.info(
                "windows are decoded alone", extra={"fields": {"reason": "batches change float sums here"}}
            )
        sharing.recogniser = replace(transcriber.recogniser, search=self._together.search)
        return sharing

    def start(self, job: Job) -> None:
        """Read its recording, and decode it in turn with the others."""
        thread = threading.Thread(target=self._run, args=[job], name="recording", daemon=True)
        self._threads.add(thread)
        self._asked = time.monotonic()
        thread.start()

    def waiting(self) -> int:
        """How many recordings wait for a window to be decoded."""
        return self._together.waiting()

    def retry_after(self) -> int:
        """Whole seconds until each recording that waits has had a window decoded; what a client is to wait at least."""
        return min(max(1, math.ceil(self.waiting() * self._window_seconds)), _LONGEST_WAIT)

    def close(self, seconds: float = 10.0) -> bool:
        """Decode no further token, and wait so long for what cannot be broken off; whether that has ended."""
        self._ended = True
        until = time.monotonic() + seconds
        for thread in list(self._threads):
            thread.join(max(0.0, until - time.monotonic()))
        return not self._threads

    def _run(self, job: Job) -> None:
        try:
            job.stream = job.opened(job)
            job.tell(Opened(job.stream.duration))
            while not job.stream.complete:
                self._decode_window(job, job.stream)
            job.tell(job.stream.transcript())
        except ClientLeft:
            pass
        except Exception as error:
            job.tell(error)
        finally:
            if job.stream is not None:
                job.stream.close()
            self._threads.discard(threading.current_thread())
            if not self._threads:
                self.rest_later()

    def rest_later(self) -> None:
        """Give memory back in a while, unless a recording comes until then; after the last one, or a session."""
        rest = threading.Timer(_REST, self._rest)
        rest.daemon = True
        rest.start()

    def _rest(self) -> None:
        if not self._threads and time.monotonic() - self._asked >= _REST:
            self._together.release()
            give_memory_back()

    @contextmanager
    def turn(self, left: Callable[[], bool]) -> Iterator[None]:
        """Wait for a turn to compute in, behind all that wait for theirs, and have it for a window.

        Raises:
            app.api.DeviceLost: the device was lost, now or before.
            ClientLeft: nobody waits for the window any more, by `left`.
        """
        with self._together.turn(lambda: left() or self._ended):
            if self.lost is not None:
                raise self.lost
            began = time.monotonic()
            try:
                yield
            except DeviceLost as error:  # before the next has its turn
                self.lost = error
                LOG.error("device lost", extra={"fields": {"reason": str(error)}})
                raise
            ended = time.monotonic()
            seconds = ended - max(began, self._last)
            self._last = ended
            self._window_seconds += 0.2 * (seconds - self._window_seconds)
        self.on_window(seconds)

    def _decode_window(self, job: Job, stream: SegmentStream) -> None:
        with self.turn(lambda: job.left):
            segments = stream.next_window()
        job.tell(segments or [])
