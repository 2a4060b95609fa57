"""Recordings fed to the live transcriber as they would arrive: what it says, and how long after the words were said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from app.evaluation.records import StreamedText
from models.features import SAMPLE_RATE

if TYPE_CHECKING:
    from app.live.transcriber import LiveText, LiveTranscriber

__all__ = ["streamed"]

CHUNK_SECONDS = 0.1


def streamed(live: LiveTranscriber, blocks: Iterable[npt.NDArray[np.float32]]) -> StreamedText:
    """Feed a recording in chunks of 0.1 s.

    The clock is simulated: a chunk arrives when its last sample was said, and computing takes as long as it took. What
    has arrived in the meantime is pushed together. So a recording takes no longer than its computation, and words are
    as late as they would be.

    Args:
        live: a new one.
        blocks: of mono samples at 16 kHz.
    """
    samples = np.concatenate([*blocks, np.zeros(0, np.float32)])
    words: list[str] = []
    lags: list[float] = []
    shown: list[str] = []
    retracted, clock, fed, computed = 0, 0.0, 0, time.process_time()
    step = round(CHUNK_SECONDS * SAMPLE_RATE)

    def take(compute: Callable[[], list[LiveText]]) -> None:
        nonlocal clock, retracted, shown
        begun = time.perf_counter()
        told = compute()
        clock += time.perf_counter() - begun
        for text in told:
            words.extend(word.word for word in text.words)
            lags.extend(round(clock - word.end, 3) for word in text.words)
            now = "".join([*(word.word for word in text.words), text.partial]).split()
            pairs = zip(shown, now, strict=False)
            retracted += len(shown) - sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            shown = text.partial.split()

    while fed < len(samples):
        clock = max(clock, min(fed + step, len(samples)) / SAMPLE_RATE)
        arrived = min(len(samples), max(fed + step, int(clock * SAMPLE_RATE) // step * step))
        take(partial(live.push, samples[fed:arrived], hurry=arrived - fed > SAMPLE_RATE))
        fed = arrived
    take(live.finish)
    return StreamedText(
        hypothesis="".join(words).strip(),
        lags=tuple(lags),
        retracted=retracted,
        cpu_seconds=round(time.process_time() - computed, 4),
    )
