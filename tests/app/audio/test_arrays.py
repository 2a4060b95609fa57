"""Samples that are in memory already."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from material.audio_files import wave
from numpy.typing import NDArray

from app.audio.reading import AudioError, array_blocks, load_audio


def test_an_array_reads_as_a_file_of_its_samples_does() -> None:
    rng = np.random.default_rng(2)
    for rate, channels in ((44100, 2), (8000, 1), (48000, 6), (16000, 2)):
        for samples in (
            rng.integers(-20000, 20000, (rate * 2 + 17, channels), dtype=np.int16),
            rng.uniform(-0.9, 0.9, (rate * 2 + 17, channels)).astype(np.float32),
        ):
            expected = load_audio(io.BytesIO(wave(samples, rate)))
            for form in (samples, samples.T):
                source = array_blocks(form, rate)
                heard = np.concatenate(list(source.blocks(0.7)))
                np.testing.assert_array_equal(heard, expected)


def test_a_16_khz_mono_array_passes_unchanged() -> None:
    floats = np.random.default_rng(5).uniform(-1, 1, 40000)
    for samples, expected in (
        (floats.astype(np.float32), floats.astype(np.float32)),
        (floats, floats.astype(np.float32)),
        ((floats * 32767).astype(np.int16), (floats * 32767).astype(np.int16) / np.float32(32768)),
        (np.array([-(2**31), 2**30], np.int32), np.array([-1.0, 0.5], np.float32)),
    ):
        with array_blocks(samples) as source:
            blocks = list(source.blocks(1.0))
            np.testing.assert_array_equal(np.concatenate(blocks), expected)
            np.testing.assert_array_equal(np.concatenate(list(source.blocks())), expected)
        assert all(block.dtype == np.float32 for block in blocks)


@pytest.mark.parametrize(
    ("samples", "rate", "reason"),
    [
        (np.zeros(0, np.float32), 16000, "no samples"),
        (np.zeros((0, 2), np.float32), 16000, "no samples"),
        (np.zeros((2, 2, 100), np.float32), 16000, "3 axes"),
        (np.float32(1), 16000, "0 axes"),
        (np.zeros((20, 3), np.float32), 16000, "which axis"),
        (np.zeros((200, 300), np.float32), 16000, "which axis"),
        (np.zeros(100, np.uint8), 16000, "type uint8"),
        (np.zeros(100, np.float32), 0, "rate of 0 Hz"),
    ],
)
def test_arrays_that_are_no_audio(samples: NDArray[Any], rate: int, reason: str) -> None:
    with pytest.raises(AudioError, match=f"^array: .*{reason}"):
        array_blocks(np.asarray(samples), rate)
