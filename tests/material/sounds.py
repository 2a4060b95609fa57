"""What is no speech, and speech as it is seldom recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
from librosa import lpc
from numpy.typing import NDArray
from scipy.signal import lfilter

SECOND = 16000
Samples = NDArray[np.float32]

_ORDER = 18
_FRAME, _HOP = 512, 128


def noises(seconds: float, seed: int = 3) -> dict[str, NDArray[Any]]:
    """What is no speech."""
    count = round(seconds * SECOND)
    at = np.arange(count) / SECOND
    white = np.random.default_rng(seed).standard_normal(count)
    spectrum = np.fft.rfft(white)
    pink = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), count)
    pink /= abs(pink).max()
    chord = sum(np.sin(2 * np.pi * f * at) for f in (261.6, 329.6, 392.0)) / 10
    return {
        "digital silence": np.zeros(count),
        "one step of 16 bits": np.round(white) / 2**15,
        "faint white noise": white * 0.002,
        "white noise": white * 0.05,
        "loud noise": np.clip(white * 0.5, -1, 1),
        "pink noise": pink * 0.3,
        "hum": 0.2 * np.sin(2 * np.pi * 50 * at) + 0.1 * np.sin(2 * np.pi * 150 * at),
        "a tone": 0.3 * np.sin(2 * np.pi * 440 * at),
        "a chord": chord,
        "chords": chord * (np.sin(2 * np.pi * at) > 0),
        "like breathing": pink * 0.2 * np.clip(np.sin(np.pi * at / 2), 0, 1) ** 2,
    }


def whispered(samples: Samples, decibels: float = -20.0, seed: int = 0) -> Samples:
    """The same words without a voice: what shapes each 32 ms of them, by linear prediction, shapes noise instead.

    A whisper has no pulses of the vocal folds, less under 1 kHz, and is 20 dB fainter.
    """
    noise = np.random.default_rng(seed).standard_normal(len(samples) + 2 * _FRAME)
    padded = np.pad(samples.astype(np.float64), _FRAME)
    window = np.hanning(_FRAME + 1)[:-1]
    made = np.zeros(len(padded))
    for first in range(0, len(padded) - _FRAME, _HOP):
        part = padded[first : first + _FRAME] * window
        if not part.any():
            continue
        shape = lpc(part + 1e-9, order=_ORDER)
        gain = np.sqrt(np.mean(lfilter(shape, [1.0], part) ** 2) / np.mean(window**2))
        made[first : first + _FRAME] += lfilter([1.0], shape, gain * noise[first : first + _FRAME]) * window
    made = np.append(made[:1], made[1:] - 0.7 * made[:-1])[_FRAME : _FRAME + len(samples)]
    level = np.sqrt(np.mean(samples.astype(np.float64) ** 2) / max(np.mean(made**2), 1e-20))
    return (made * level * 10 ** (decibels / 20)).astype(np.float32)
