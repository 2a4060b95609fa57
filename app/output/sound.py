"""A recording as its page holds it where browsers don't play the file: Opus, encoded as the recording is read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from app.audio.reading import SAMPLE_RATE, AudioSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BITS_PER_SECOND = 32_000


class Encoded(AudioSource):
    """A source of audio whose blocks are encoded as they pass, in 14 MB an hour; times stay as they are."""

    def __init__(self, source: AudioSource) -> None:
        self.name = source.name
        self.findings, self.expected_seconds = source.findings, source.expected_seconds
        self._source = source
        self._file = io.BytesIO()

    def blocks(self, seconds: float = 30.0) -> Iterator[NDArray[np.float32]]:
        """The source's, which are encoded."""
        import av

        self._file = io.BytesIO()
        with av.open(self._file, "w", format="webm") as container:
            stream = cast(Any, container.add_stream("libopus", rate=SAMPLE_RATE, layout="mono"))
            stream.bit_rate = _BITS_PER_SECOND
            samples = 0
            for block in self._source.blocks(seconds):
                self.findings = self._source.findings
                frame = av.AudioFrame.from_ndarray(block[None].copy(), format="flt", layout="mono")
                frame.sample_rate, frame.pts = SAMPLE_RATE, samples
                samples += len(block)
                container.mux(stream.encode(frame))
                yield block
            container.mux(stream.encode(None))

    def close(self) -> None:
        """Let go of the input."""
        self._source.close()

    def webm(self) -> bytes:
        """All of it, mono at 16 kHz, in a WebM file."""
        return self._file.getvalue()
