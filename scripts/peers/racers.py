"""Who is raced: each program's name, side, environment, and its form of a model's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.environments import FASTER_WHISPER, OPENVINO, WHISPER_CPP, Environment
from peers.process import Worker


@dataclass(frozen=True)
class Racer:
    """A program that is measured beside Tilescribe.

    Attributes:
        title: as tables have it.
        side: its class in `peers.sides`.
        environment: None for ours.
        model: makes what the side loads, of a model's name, in a scratch folder: the side's first argument.
    """

    title: str
    side: str
    environment: Environment | None
    model: Callable[[str, Path], str]

    def start(self, name: str, threads: int, scratch: Path) -> Worker:
        """It in a process of its own, with a model of that name loaded.

        Raises:
            peers.environments.PeerError: it cannot be installed, or the model not be made.
            peers.process.MeasureError: it cannot load it.
        """
        how: dict[str, Any] = {}
        if self.environment is not None:
            self.environment.install()
            how = {"python": self.environment.python, "variables": self.environment.variables}
        return Worker(self.side, self.model(name, scratch), threads, **how)


def _ctranslate2(name: str, scratch: Path) -> str:
    from peers.conversion import write_ctranslate2_folder

    folder = scratch / name
    return str(folder if folder.exists() else write_ctranslate2_folder(name, folder))


def _openvino(weight_format: str) -> Callable[[str, Path], str]:
    def exported(name: str, _: Path) -> str:
        from peers.openvino_model import export

        return str(export(name, weight_format))

    return exported


def _ggml(name: str, scratch: Path) -> str:
    from kernels.processor import cpuinfo
    from peers.ggml import write_ggml

    path = scratch / f"{name}.ggml"
    if not path.exists():
        write_ggml(name, path, bfloat16="avx512_bf16" in cpuinfo().get("flags", "").split())
    return str(path)


RACERS = {
    "faster-whisper": Racer("faster-whisper INT8", "FasterWhisper", FASTER_WHISPER, _ctranslate2),
    "openvino": Racer("OpenVINO GenAI INT8", "OpenVINO", OPENVINO, _openvino("int8")),
    "openvino-16": Racer("OpenVINO GenAI 16 bit", "OpenVINO", OPENVINO, _openvino("fp16")),
    "whisper.cpp": Racer("whisper.cpp 16 bit", "WhisperCpp", WHISPER_CPP, _ggml),
    "openai": Racer("openai-whisper FP32", "OpenAIWhisper", None, lambda name, _: name),
}
