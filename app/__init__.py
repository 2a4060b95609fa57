"""Tilescribe: the commands, the audio pipeline and the Python API.

>>> import app
>>> from datasets.sample import sample
>>> model = app.load_model("tiny.en", backend="int32")
>>> for segment in model.stream(sample().audio):
...     print(f"{segment.start:.0f} to {segment.end:.0f} s:{segment.text[:37]}")
0 to 9 s: The quiet harbor wakes before the su
9 to 14 s: By noon the market is full of voices
>>> transcript = model.transcribe(sample().audio, app.DecodeOptions(beam_size=5), batch_size=4)
>>> transcript.text[-22:], transcript.language, transcript.run.backend
('of fish has been sold.', 'en', 'int32')
"""

from app import startup as startup  # isort: skip  # first: a Ctrl-C may come while the rest is imported
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.api import Run, SegmentStream, Transcriber, Transcript, load_model
    from app.audio.containers import AudioError
    from kernels.device import DeviceError, DeviceLost
    from models.decoding.coverage import Coverage, Finding
    from models.decoding.options import DecodeOptions, OptionsError
    from models.decoding.segments import Segment, Word
    from models.voice import VadOptions
    from models.weights.loading import WeightsError

__all__ = [
    "AudioError",
    "Coverage",
    "DecodeOptions",
    "DeviceError",
    "DeviceLost",
    "Finding",
    "OptionsError",
    "Run",
    "Segment",
    "SegmentStream",
    "Transcriber",
    "Transcript",
    "VadOptions",
    "WeightsError",
    "Word",
    "load_model",
]


def __getattr__(name: str) -> Any:
    """Import on first use: the commands answer `--help` without loading PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module 'app' has no attribute {name!r}")
    from app import api

    return getattr(api, name)
