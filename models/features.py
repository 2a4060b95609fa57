"""Log-mel features of an audio stream of any length, in bounded memory.

openai-whisper computes the spectrogram of a whole recording at once and normalises it by its loudest
bin, which takes several hundred bytes of memory per millisecond. Here frames are spooled as they come, and each
window is normalised when it is read, since the loudest bin is known only once the audio has ended.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from kernels.arrays import Reals
from models.openai import asset
from models.temporary import check_room, temporary_file
from models.voice import VadOptions, VoiceActivity

__all__ = [
    "FRAMES_PER_SECOND",
    "HOP_LENGTH",
    "N_FRAMES",
    "SAMPLE_RATE",
    "LogMelFeatures",
    "check_windows",
    "quiet_pieces",
]


# As in whisper.audio.
SAMPLE_RATE = 16000
N_FFT = 400
HOP_LENGTH = 160
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH
N_FRAMES = 30 * FRAMES_PER_SECOND

_HANN = (0.5 - 0.5 * np.cos(2 * np.pi / N_FFT * np.arange(N_FFT))).astype(np.float32)
_SPOOL_BYTES = 64 * 2**20
_BLOCK_SAMPLES = 30 * SAMPLE_RATE  # transformed at once
# Frames after the content that still see some of its samples; every later frame is silence.
_TAIL_FRAMES = 3
_FLOOR = 1e-20
_SILENCE = (
    -10.0
)  # log10 of whisper's floor; what is under it counts only where the whole recording is that quiet
# A recording whose loudest bin is not between these (speech: 0 to 3) is off the scale that the model knows, 16-bit
# numbers in float or a peak under -46 dB, and its level is moved; under the lowest there is nothing but rounding.
_LOWEST, _LOW, _USUAL, _HIGH = -9.5, -3.0, 1.0, 5.0
_DYNAMIC_RANGE = 8.0  # in log10 units below the loudest bin
# A cut is the middle of the quietest 0.3 s within the last 10 s of a 30 s window.
_CUT_FRAMES = 30
_CUT_RANGE = 1000


class LogMelFeatures:
    """Log-mel frames of a recording, equal to `whisper.audio.log_mel_spectrogram(audio, padding=N_SAMPLES)`.

    Frames wait in RAM up to 64 MB, beyond that in a temporary file, so that an hour of 80-bin features (115 MB)
    costs no more memory than 35 minutes.
    """

    def __init__(
        self,
        blocks: Iterable[Reals],
        n_mels: int = 80,
        vad: VadOptions | None = None,
        expected: float | None = None,
    ) -> None:
        """Consume a stream: `blocks` of any lengths (n,), mono at 16 kHz, into frames of 80 or 128 bins.

        With `vad`, a `voice` hears the stream as well, and what is not speech by these options is not to be decoded.
        The room that the `expected` seconds take on the disk is looked for before.

        Raises:
            ValueError: a block is not one-dimensional, a sample is not finite, or there is no such `n_mels`.
            models.temporary.NoRoomError: the disk is full.
        """
        if n_mels not in (80, 128):
            raise ValueError(f"n_mels must be 80 or 128, not {n_mels}")
        self.n_mels = n_mels
        self.n_samples = 0
        with np.load(asset("mel_filters.npz")) as filters:
            mel: Reals = filters[f"mel_{n_mels}"]
        # Of each triangle only what is not 0: 2 % of the products, and no BLAS whose threads stand in OpenVINO's way.
        bins, self._frequencies = np.nonzero(mel)
        self._weights = mel[bins, self._frequencies]
        self._first = np.searchsorted(bins, np.arange(n_mels))
        self._spool: Any = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115
        self._level = array("f")
        self._maximum = _SILENCE
        self.voice = None if vad is None else VoiceActivity(vad)
        needed = (expected or 0.0) * FRAMES_PER_SECOND * 4 * n_mels
        if needed > _SPOOL_BYTES:
            check_room(needed, f"audio of {(expected or 0.0) / 3600:.1f} h")
        self._consume(blocks if self.voice is None else self.voice.listen(blocks))

    @property
    def content_frames(self) -> int:
        """Number of 10 ms frames of the audio itself, `n_samples // 160`."""
        return int(self.n_samples // HOP_LENGTH)

    @property
    def duration(self) -> float:
        """Seconds of content, as whole frames."""
        return float(self.content_frames * HOP_LENGTH / SAMPLE_RATE)

    @property
    def levels(self) -> Reals:
        """Mean log10-mel of each content frame, not normalised: float32 (content_frames,)."""
        return np.frombuffer(self._level, dtype=np.float32)[: self.content_frames]

    @property
    def loudness(self) -> Reals:
        """`levels`, where a recording is cut: what is not speech, as far as that is known, is under all that is."""
        if self.voice is None:
            return self.levels
        speech = self.voice.is_speech(np.arange(self.content_frames) / FRAMES_PER_SECOND)
        return np.where(speech, self.levels, self.levels - np.float32(100)).astype(np.float32)

    def window(self, start_frame: int, n_frames: int, *, pad_to: int | None = None) -> Reals:
        """Normalised frames from `start_frame`: float32 (n_mels, pad_to or n_frames).

        Frames past the content, and those from `n_frames` to `pad_to`, are 0, which is what
        `whisper.audio.pad_or_trim` appends to a short window.

        Raises:
            ValueError: start or length is negative.
        """
        if start_frame < 0 or n_frames < 0:
            raise ValueError(f"a window cannot start at {start_frame} or hold {n_frames} frames")
        available = max(0, min(n_frames, self.content_frames - start_frame))
        mel = self._normalise(self._read(start_frame, available))
        return np.pad(mel, ((0, 0), (0, max(n_frames, pad_to or 0) - available)))

    def leading_window(self, start_frame: int = 0) -> Reals:
        """The first 30 s, or 30 s from a frame on, for language detection: float32 (n_mels, 3000).

        Unlike `window`, audio shorter than 30 s is followed by the frames of digital silence rather than
        by zeros, as in openai-whisper, which detects the language before it cuts windows.
        """
        stored = min(N_FRAMES, self.content_frames + _TAIL_FRAMES - start_frame)
        padding = (0, 0), (0, N_FRAMES - stored)
        return self._normalise(np.pad(self._read(start_frame, stored), padding, constant_values=_SILENCE))

    def first_sound(self) -> int:
        """The first frame of the first second with speech, as far as that is known; 0 if there is none.

        Else of the first that is not silence beside the recording's loudest ones.
        """
        second = 100
        if self.voice is not None and (spans := self.voice.spans()):
            return int(spans[0][0]) * second
        levels = self.levels[: len(self.levels) // second * second].reshape(-1, second).max(axis=1)
        if not len(levels):
            return 0
        loud = float(np.quantile(levels, 0.95))  # one bang is not the measure
        quiet = min(float(levels.min()) + 1.0, loud - 1.0)
        heard = levels > (quiet + loud) / 2
        return int(heard.argmax()) * second

    def close(self) -> None:
        """Free the spool; windows cannot be read afterwards."""
        self._spool.close()

    def __enter__(self) -> LogMelFeatures:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _consume(self, blocks: Iterable[Reals]) -> None:
        waiting = np.empty(0, np.float32)
        for block in blocks:
            if block.ndim != 1:
                raise ValueError(f"an audio block must be one-dimensional, not {block.shape}")
            self.n_samples += len(block)
            for first in range(0, len(block), _BLOCK_SAMPLES):
                piece = block[first : first + _BLOCK_SAMPLES].astype(np.float32)
                waiting = self._spool_frames(np.concatenate([waiting, piece]))
        missing = self.content_frames + _TAIL_FRAMES - len(self._level)
        reach = (missing - 1) * HOP_LENGTH + N_FFT - (0 if self._level else N_FFT // 2)
        self._spool_frames(np.pad(waiting, (0, max(0, reach - len(waiting)))))

    def _spool_frames(self, samples: Reals) -> Reals:
        """Store every frame that `samples` completes, and return the samples that later frames need."""
        if not self._level:
            # whisper's transform centres its first frame on the first sample and mirrors what follows it.
            if len(samples) < N_FFT:
                return samples
            samples = np.concatenate([samples[N_FFT // 2 : 0 : -1], samples])
        if len(samples) < N_FFT:
            return samples
        frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP_LENGTH]
        with np.errstate(invalid="ignore"):  # refused below
            spectrum = np.fft.rfft(frames * _HANN)
        # A magnitude's square needs no root.
        power = spectrum.real**2 + spectrum.imag**2
        energy = np.add.reduceat(power[:, self._frequencies] * self._weights, self._first, axis=1)
        mel = np.log10(np.maximum(energy, np.float32(_FLOOR)))
        loudest = float(mel.max())  # NaN where any bin is
        if not np.isfinite(loudest):
            raise ValueError("the audio has samples that are not finite")
        self._maximum = max(self._maximum, loudest)
        self._level.frombytes(np.maximum(mel, np.float32(_SILENCE)).mean(axis=1).tobytes())
        with temporary_file():
            self._spool.write(mel.tobytes())
        return samples[len(mel) * HOP_LENGTH :].copy()

    def _read(self, start: int, count: int) -> Reals:
        frame_bytes = 4 * self.n_mels
        self._spool.seek(start * frame_bytes)
        frames = np.frombuffer(self._spool.read(count * frame_bytes), np.float32).reshape(count, self.n_mels)
        return np.ascontiguousarray(frames.T)

    def _normalise(self, mel: Reals) -> Reals:
        loudest = self._maximum
        if self.content_frames and (loudest > _HIGH or _LOWEST < loudest < _LOW):
            mel, loudest = mel + np.float32(_USUAL - loudest), _USUAL
        floor = np.float32(max(loudest - _DYNAMIC_RANGE, _SILENCE))
        return (np.maximum(mel, floor) + np.float32(4)) / np.float32(4)


def check_windows(mel: Reals, dims: Any, context: str = "full") -> None:
    """Raise ValueError where log-mel features are not windows for an encoder of these dimensions and context."""
    longest = 2 * dims.n_audio_ctx
    lengths = (longest,) if context == "full" else range(2, longest + 1, 2)
    if mel.ndim != 3 or mel.shape[1] != dims.n_mels or mel.shape[2] not in lengths:
        raise ValueError(
            f"log-mel features have to be (windows, {dims.n_mels}, {longest}), not {mel.shape}"
            + (", or of a smaller even number of frames" if context != "full" else "")
        )


def quiet_pieces(levels: Reals, start: int, end: int) -> list[tuple[int, int]]:
    """Divide the frames from `start` to before `end` into pieces of at most 30 s, where `levels` are lowest.

    Returns:
        (first, last + 1) of each piece, in order; a piece begins where the one before it ends.
    """
    bounds = [start]
    while end - bounds[-1] > N_FRAMES:
        first = bounds[-1] + N_FRAMES - _CUT_RANGE
        near = levels[first - _CUT_FRAMES // 2 : bounds[-1] + N_FRAMES + _CUT_FRAMES // 2].astype(np.float64)
        means = np.convolve(near, np.full(_CUT_FRAMES, 1 / _CUT_FRAMES), mode="valid")
        # Of several quietest places the last one makes the longest piece.
        bounds.append(first + len(means) - 1 - int(means[::-1].argmin()))
    return list(pairwise([*bounds, end])) if end > start else []
