"""Tilescribe: the commands, the audio pipeline and the Python API.

import app

model = app.load_model("base", backend="int32")
print(model.transcribe("audio.wav").text)
for segment in model.stream("audio.wav"):
print(segment.start, segment.end, segment.text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.api import Run, SegmentStream, Transcriber, Transcript, load_model
    from app.audio.reading import AudioError
    from kernels.device import DeviceError, DeviceLost
    from models.decoding.options import DecodeOptions, OptionsError
    from models.decoding.results import Segment, Word
    from models.weights.loading import WeightsError

__all__ = [
    "AudioError",
    "DecodeOptions",
    "DeviceError",
    "DeviceLost",
    "OptionsError",
    "Run",
    "Segment",
    "SegmentStream",
    "Transcriber",
    "Transcript",
    "WeightsError",
    "Word",
    "load_model",
]

_HOMES = {
    "AudioError": "app.audio.reading",
    "DecodeOptions": "models.decoding.options",
    "DeviceError": "kernels.device",
    "DeviceLost": "kernels.device",
    "OptionsError": "models.decoding.options",
    "Segment": "models.decoding.results",
    "WeightsError": "models.weights.loading",
    "Word": "models.decoding.results",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the commands answer `--help` without loading PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module 'app' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "app.api")), name)
