"""One model that decodes the recordings of all requests, window by window in turn.

A window of each recording is decoded before the second of any, so that a short clip behind a long file waits for a
window and not for the file. Windows are decoded one at a time, as `transcribe` decodes them: nothing of one recording
enters the arithmetic of another, and its text is the same to the bit whoever else is served.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

from app.api import DeviceLost, SegmentStream, Transcript
from app.serving.limits import ClientLeft
from models.decoding.segments import Segment

__all__ = ["Engine", "Event", "Job", "Opened"]

_LONGEST_WAIT = 60
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
        left: set where nobody waits for it any more: no further window of it is decoded.
    """

    def __init__(self, opened: Callable[[Job], SegmentStream], tell: Callable[[Event], None]) -> None:
        """Let `opened` read the recording, and call `tell` with all that becomes of it, both in other threads."""
        self.opened, self.tell = opened, tell
        self.left = False
        self.stream: SegmentStream | None = None


class Engine:
    """Reads recordings in threads of their own, so that none waits for a long one, and decodes them in one thread.

    Attributes:
        lost: the error that the NPU was lost with: nothing is decoded any more, on no other device either.
    """

    def __init__(self, readers: int) -> None:
        """Read up to so many recordings at once."""
        self.lost: DeviceLost | None = None
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._window_seconds = _USUAL_WINDOW
        self._readers = ThreadPoolExecutor(readers, "reader")
        self._decoder = threading.Thread(target=self._run, name="decoder", daemon=True)
        self._decoder.start()

    def start(self, job: Job) -> None:
        """Read its recording, and decode it in turn with the others."""
        self._readers.submit(self._read, job)

    def retry_after(self) -> int:
        """Whole seconds until each recording that waits has had a window decoded; what a client is to wait at least."""
        return min(max(1, math.ceil(len(self._waiting) * self._window_seconds)), _LONGEST_WAIT)

    def close(self, seconds: float = 10.0) -> None:
        """Decode no further window, and wait so long for the one that is being decoded."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._decoder.join(seconds)

    def _read(self, job: Job) -> None:
        try:
            stream = job.stream = job.opened(job)
        except ClientLeft:
            return
        except Exception as error:
            job.tell(error)
            return
        with self._changed:
            job.tell(Opened(stream.duration))
            self._waiting.append(job)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    return
                job = self._waiting.popleft()
            if self._goes_on(job):
                with self._changed:
                    self._waiting.append(job)

    def _goes_on(self, job: Job) -> bool:
        """Decode a window of it; whether there are more."""
        stream = job.stream
        assert stream is not None
        if job.left:
            stream.close()
            return False
        if self.lost is not None:
            stream.close()
            job.tell(self.lost)
            return False
        began = time.monotonic()
        try:
            segments = stream.next_window()
            self._window_seconds += 0.2 * (time.monotonic() - began - self._window_seconds)
            if segments:
                job.tell(segments)
            if stream.complete:
                job.tell(stream.transcript())
            return not stream.complete
        except DeviceLost as error:
            self.lost = error
            job.tell(error)
        except Exception as error:
            logging.getLogger("tilescribe.serving").exception("a window could not be decoded")
            job.tell(error)
        return False
