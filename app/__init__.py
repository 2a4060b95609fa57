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
    from app.audio import AudioError
    from app.pipeline import Run, SegmentStream, Transcriber, Transcript, load_model
    from kernels.device import DeviceError, DeviceLost
    from models.options import DecodeOptions, OptionsError
    from models.results import Segment, Word
    from models.weights import WeightsError

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
    "AudioError": "app.audio",
    "DecodeOptions": "models.options",
    "DeviceError": "kernels.device",
    "DeviceLost": "kernels.device",
    "OptionsError": "models.options",
    "Segment": "models.results",
    "WeightsError": "models.weights",
    "Word": "models.results",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the commands answer `--help` without loading PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module 'app' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "app.pipeline")), name)
