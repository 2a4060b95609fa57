"""Voice activity: where in a recording somebody speaks, by silero-vad's network.

The network is the whole-sequence form in silero-vad's wheel, run by OpenVINO; the rules that make stretches of its
probabilities are that package's `get_speech_timestamps`, with faster-whisper's names and defaults, without importing
it, which would import PyTorch. It listens at three levels, 0, +30 and +60 dB, since a quiet voice is a voice:
at 40 dB under its usual level the network hears half of one speaker's words, and at 60 dB none. Noise, hum and music
without words stay under the threshold at each. A level is left out for 16 s where the one below it clips already.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from kernels.arrays import Doubles, Reals
from models.compute import core

__all__ = ["FRAME", "Ear", "Span", "VadOptions", "VoiceActivity", "common", "speech_spans", "without"]

_N = TypeVar("_N", int, float)
Span: TypeAlias = tuple[float, float]
"""From, to: seconds of the recording."""

_SAMPLE_RATE = 16000  # of the network's training
FRAME = 512
_FRAME_SECONDS = FRAME / _SAMPLE_RATE
_CONTEXT = 64
_AT_ONCE = 512  # frames: 16 s
_STEP = _AT_ONCE * FRAME
_GAINS = (1.0, 10**1.5, 10**3.0)
_CLIPS = 0.01  # of the samples
# A level that hears so much of what the best one hears is enough to tell where a voice ends; louder ones hear breath
# and room after it, up to 0.8 s on 15 utterances.
_MOST = 0.7
_BREATH = 1.0  # seconds; more of it is a voice


@dataclass(frozen=True)
class VadOptions:
    """What counts as speech; names and defaults are faster-whisper's `VadOptions`, but for `min_speech_duration_ms`.

    Attributes:
        threshold: speech begins where the probability reaches it.
        neg_threshold: speech ends where the probability falls under it; 0.15 under `threshold` where it is None.
        min_speech_duration_ms: what is shorter is not speech.
        min_silence_duration_ms: silence that is shorter does not divide speech, nor is it left out at either end.
        speech_pad_ms: heard on either side of speech as well.
        recover: decode speech that got no text once more; see `models.decoding.coverage`.
        drop_unspoken: drop text where nobody speaks; it is reported in any case.
        snap_ends: begin and end what is said beside a pause where the voice does; see `models.decoding.coverage`.

    Raises:
        ValueError: a threshold is not between 0 and 1, or a duration is negative.
    """

    threshold: float = 0.5
    neg_threshold: float | None = None
    min_speech_duration_ms: int = 100
    min_silence_duration_ms: int = 2000
    speech_pad_ms: int = 400
    recover: bool = True
    drop_unspoken: bool = True
    snap_ends: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"vad_threshold must be between 0 and 1, not {self.threshold:g}")
        if self.neg_threshold is not None and not 0 <= self.neg_threshold <= self.threshold:
            raise ValueError(
                f"vad_neg_threshold must be between 0 and the threshold, not {self.neg_threshold:g}"
            )
        for name in ("min_speech_duration_ms", "min_silence_duration_ms", "speech_pad_ms"):
            if getattr(self, name) < 0:
                raise ValueError(f"vad_{name} must be 0 or more, not {getattr(self, name)}")


class Ear:
    """silero-vad's network over a stream of mono samples at 16 kHz, at each level."""

    def __init__(self, step: int = _STEP) -> None:
        """Hear so many samples at once, a multiple of FRAME; whether a level is worth hearing is known for them all."""
        self._requests = [_network().create_infer_request() for _ in _GAINS]
        self._states = [(_zeros(), _zeros()) for _ in _GAINS]
        self._waiting = np.zeros(_CONTEXT, np.float32)
        self._step = step

    def hear(self, block: Reals) -> Reals:
        """Take a block (n,) of any length.

        Returns:
            The probability of speech in each frame of 32 ms that is heard now: float32 (levels, frames).
        """
        samples = np.concatenate([self._waiting, block.astype(np.float32)])
        whole = (len(samples) - _CONTEXT) // self._step * self._step
        self._waiting = samples[whole:]
        return self._hear(samples[: whole + _CONTEXT])

    def end(self) -> Reals:
        """Of the frames that are left, the last one followed by silence where it is not complete."""
        waiting, self._waiting = self._waiting, np.zeros(_CONTEXT, np.float32)
        return self._hear(np.pad(waiting, (0, (_CONTEXT - len(waiting)) % FRAME)))

    def _hear(self, samples: Reals) -> Reals:
        """Take in the frames after the context, of which there is a whole number."""
        found = [np.zeros((len(_GAINS), 0), np.float32)]
        if len(samples) > _CONTEXT:
            frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME + _CONTEXT)[::FRAME]
            most = min(_AT_ONCE, self._step // FRAME)
            for first in range(0, len(frames), most):
                block = frames[first : first + most]
                found.append(np.stack([self._infer(i, block) for i in range(len(_GAINS))]))
        return np.concatenate(found, axis=1)

    def _infer(self, level: int, frames: Reals) -> Reals:
        """The probabilities at one level; none, and nothing to remember, where the level below it clips."""
        if level and np.mean(np.abs(frames) * _GAINS[level - 1] > 1) > _CLIPS:
            self._states[level] = _zeros(), _zeros()
            return np.zeros(len(frames), np.float32)
        hidden, cell = self._states[level]
        heard = np.clip(frames * np.float32(_GAINS[level]), -1, 1)
        result = self._requests[level].infer({"input": heard, "h": hidden, "c": cell})
        self._states[level] = result["hn"].copy(), result["cn"].copy()
        return np.ravel(result["speech_probs"]).copy()


class VoiceActivity:
    """Hears a stream of samples; `probabilities` are complete when it has ended."""

    def __init__(self, options: VadOptions | None = None) -> None:
        self.options = options or VadOptions()
        self._ear = Ear()
        self._found: list[Reals] = []
        self.samples = 0

    @property
    def probabilities(self) -> Reals:
        """That somebody speaks in each 32 ms: float32 (frames,), the last one of what there is of it."""
        found: Reals = self._levels.max(axis=0)
        return found

    @property
    def duration(self) -> float:
        """Seconds that were heard."""
        return self.samples / _SAMPLE_RATE

    def listen(self, blocks: Iterable[Reals]) -> Iterator[Reals]:
        """Pass a stream on, in blocks (n,) of mono samples at 16 kHz of any lengths, and hear it."""
        for block in blocks:
            self.samples += len(block)
            self._found.append(self._ear.hear(block))
            yield block
        self._found.append(self._ear.end())

    def spans(self, **changes: Any) -> list[Span]:
        """The stretches of speech, as `speech_spans` finds them by the options, or with some of those changed."""
        return speech_spans(self.probabilities, self.duration, replace(self.options, **changes))

    def ends(self) -> list[Span]:
        """When each stretch of speech begins, and when its voice ends, as the faintest level has it that hears it."""
        speech = self._levels >= self.options.threshold
        ends = []
        for start, end in self.spans(speech_pad_ms=0):
            first = int(start / _FRAME_SECONDS + 0.5)
            part = speech[:, first : int(end / _FRAME_SECONDS) + 1]
            together = part.max(axis=0)
            heard = part.sum(axis=1)
            voice = part[int(np.argmax(heard >= _MOST * heard.max()))]
            own, latest = (int(np.flatnonzero(frames)[-1]) + 1 for frames in (voice, together))
            if together[own:].sum() * _FRAME_SECONDS > _BREATH:
                own = latest
            ends.append((start, min((first + own) * _FRAME_SECONDS, self.duration)))
        return ends

    @property
    def _levels(self) -> Reals:
        """What each level hears: float32 (levels, frames)."""
        return np.concatenate(self._found, axis=1) if self._found else np.zeros((len(_GAINS), 0), np.float32)

    def is_speech(self, seconds: Doubles) -> npt.NDArray[np.bool_]:
        """Whether somebody speaks at each of these times, by the threshold alone: the same shape."""
        speech = np.append(self.probabilities >= self.options.threshold, False)
        return speech[np.minimum((seconds / _FRAME_SECONDS).astype(np.int64), len(speech) - 1)]


def speech_spans(probabilities: Reals, duration: float, options: VadOptions) -> list[Span]:
    """The stretches of speech in a recording of `duration` seconds, in order, apart from each other.

    Silence at either end that is shorter than the shortest one that divides speech is heard with it.
    """
    low = options.neg_threshold
    if low is None:
        low = max(options.threshold - 0.15, 0.01)
    silence = options.min_silence_duration_ms / 1000
    spans: list[Span] = []
    start = quiet_from = None
    for i, probability in enumerate(probabilities):
        at = i * _FRAME_SECONDS
        if probability >= options.threshold:
            quiet_from = None
            start = at if start is None else start
        elif start is not None and probability < low:
            quiet_from = at if quiet_from is None else quiet_from
            if at - quiet_from >= silence:
                spans.append((start, quiet_from))
                start = quiet_from = None
    if start is not None:
        spans.append((start, duration if quiet_from is None else quiet_from))
    spans = [(a, b) for a, b in spans if b - a > options.min_speech_duration_ms / 1000]
    return _padded(spans, duration, options.speech_pad_ms / 1000, silence)


def _padded(spans: Sequence[Span], duration: float, pad: float, silence: float) -> list[Span]:
    padded = [[max(0.0, start - pad), min(duration, end + pad)] for start, end in spans]
    for one, other in pairwise(padded):
        if one[1] > other[0]:
            one[1] = other[0] = (one[1] + other[0]) / 2
    if padded and spans[0][0] < silence:
        padded[0][0] = 0.0
    if padded and duration - spans[-1][1] < silence:
        padded[-1][1] = duration
    return [(start, end) for start, end in padded]


def common(spans: Sequence[tuple[_N, _N]], others: Sequence[tuple[_N, _N]]) -> list[tuple[_N, _N]]:
    """What lies in both; each is in order and without overlaps."""
    few, many = sorted((spans, others), key=len)
    both = []
    for start, end in few:
        first = bisect_right(many, start, key=lambda span: span[1])
        last = bisect_left(many, end, key=lambda span: span[0])
        both += [(max(start, a), min(end, b)) for a, b in many[first:last] if max(start, a) < min(end, b)]
    return both


def without(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """What lies in the first and not in the second; each is in order and without overlaps."""
    edges = [(0.0, 0.0), *others, (float("inf"), float("inf"))]
    return common(spans, [(a[1], b[0]) for a, b in pairwise(edges)])


def _zeros() -> Reals:
    return np.zeros((1, 1, 128), np.float32)


@cache
def _network() -> Any:
    spec = find_spec("silero_vad")
    assert spec is not None
    folder = Path((spec.submodule_search_locations or [""])[0])
    network = core().read_model(folder / "data" / "silero_vad_16k_sequence.onnx")
    hints = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return core().compile_model(network, "CPU", hints)
