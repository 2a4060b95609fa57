"""The picture of a recording: its mel spectrogram, drawn as the recording is read."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

from app.audio.reading import SAMPLE_RATE, AudioSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROW_SECONDS = 30.0
"""Of a picture."""

_HOP = SAMPLE_RATE // 20
_N_FFT = 1024
_BANDS = 80
_ROW_COLUMNS = round(ROW_SECONDS * SAMPLE_RATE) // _HOP
# Levels are kept in a byte each, since the loudest one, which is white, is known in the end.
_LEAST_DB = -130.0
_STEP_DB = 0.75
_SHOWN = round(65 / _STEP_DB)


class Spectrogram(AudioSource):
    """A source of audio whose blocks are drawn as they pass: 80 mel bands in columns of 50 ms, 6 MB an hour."""

    def __init__(self, source: AudioSource) -> None:
        self.name = source.name
        self.findings, self.expected_seconds = source.findings, source.expected_seconds
        self._source = source
        self._columns = bytearray()

    def blocks(self, seconds: float = 30.0) -> Iterator[NDArray[np.float32]]:
        """The source's, which are drawn."""
        import numpy as np

        self._columns = bytearray()
        # Each window is centred on its column.
        waiting = np.zeros((_N_FFT - _HOP) // 2, np.float32)
        samples = 0
        for block in self._source.blocks(seconds):
            self.findings = self._source.findings
            samples += len(block)
            waiting = self._draw(np.concatenate([waiting, block]))
            yield block
        missing = -(-samples // _HOP) - len(self._columns) // _BANDS
        if missing:
            self._draw(np.pad(waiting, (0, (missing - 1) * _HOP + _N_FFT - len(waiting))))

    def close(self) -> None:
        """Let go of the input."""
        self._source.close()

    def pictures(self) -> list[bytes]:
        """A PNG for each 30 s, the last one as wide as what is left: grey, white being 65 dB over black."""
        import numpy as np

        levels = np.frombuffer(self._columns, np.uint8).reshape(-1, _BANDS)
        rows = [levels[first : first + _ROW_COLUMNS] for first in range(0, len(levels), _ROW_COLUMNS)]
        counts = sum((np.bincount(row.ravel(), minlength=256) for row in rows), np.zeros(256, np.int64))
        # A click is not the measure.
        loudest = int(np.searchsorted(np.cumsum(counts), counts.sum() * 0.9995))
        black = max(loudest - _SHOWN, 0)
        shades = np.clip((np.arange(256) - black) * (255 / _SHOWN), 0, 255).astype(np.uint8)
        return [_png(np.ascontiguousarray(shades[row[:, ::-1].T])) for row in rows]

    def _draw(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Draw every column that `samples` complete, and return those that later columns need."""
        import numpy as np
        from librosa import power_to_db
        from librosa.feature import melspectrogram

        columns = (len(samples) - _N_FFT) // _HOP + 1
        if columns < 1:
            return samples
        drawn = samples[: (columns - 1) * _HOP + _N_FFT]
        power = melspectrogram(
            y=drawn, sr=SAMPLE_RATE, n_fft=_N_FFT, hop_length=_HOP, n_mels=_BANDS, center=False
        )
        decibels = power_to_db(power, amin=10 ** (_LEAST_DB / 10), top_db=None)
        levels = np.clip(np.rint((decibels - _LEAST_DB) / _STEP_DB), 0, 255).astype(np.uint8)
        self._columns += levels.T.tobytes()
        return samples[columns * _HOP :]


def _png(shades: NDArray[np.uint8]) -> bytes:
    """A picture of grey shades (height, width)."""
    import av

    encoder = cast(Any, av.CodecContext.create("png", "w"))
    encoder.height, encoder.width = shades.shape
    encoder.pix_fmt = "gray"
    encoder.time_base = Fraction(1)
    frame = av.VideoFrame.from_ndarray(shades, format="gray")
    return b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))
