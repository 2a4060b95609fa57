"""The programs that are measured, each made and called in a process of its own (`peers.process`).

Each loads once, and then does the same work as the others: greedy, English, one temperature and so no fallback, no
prompt from the text before. Ours hears voice activity, as it does by default; the others do not. `long` is one
recording in batches of pieces, `group` many recordings of up to 30 s in batches. All return texts, so that what was
measured can be seen to be the same work; `peak` transcribes up to a second of a recording, and returns the megabytes
that the process took at most.
"""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any


class Tilescribe:
    """Tilescribe through its Python API, in a process as its commands have it."""

    def __init__(self, model: str, threads: int, backend: str = "cpu", compute_type: Any = "auto") -> None:
        from app import DecodeOptions, Transcriber
        from app.configuration import Configuration
        from app.machine import share_one_heap

        share_one_heap()
        self._configuration = Configuration(
            model, backend, "emulator", compute_type=compute_type, threads=threads
        )
        self._model = Transcriber.load(self._configuration)
        self._options = DecodeOptions(temperature=0.0, language="en", condition_on_previous_text=False)
        self._worker: Any = None

    def singles(self, paths: Sequence[Path]) -> list[str]:
        """One after the other."""
        return [self._model.transcribe(path, self._options).text for path in paths]

    def long(self, path: Path, batch_size: int, pieces: Sequence[tuple[float, float]] | None) -> list[str]:
        """It cuts the recording itself, at the places that `Material.pieces` gives."""
        return [self._model.transcribe(path, self._options, batch_size=batch_size).text]

    def group(self, paths: Sequence[Path], batch_size: int) -> list[str]:
        """What `evaluate` does with each batch, from the files to the records."""
        from app.evaluation.worker import BatchWorker, Setup
        from datasets.utterance import Utterance

        backend = self._configuration.backend
        if self._worker is None:
            self._worker = BatchWorker(Setup(self._configuration, (backend,), self._options))
        texts = []
        for first in range(0, len(paths), batch_size):
            chosen = tuple(Utterance(str(p), p, "not scored") for p in paths[first : first + batch_size])
            records = self._worker.run(chosen, {backend: frozenset(u.id for u in chosen)})
            texts += [record.hypothesis for record in records[backend]]
        return texts

    def encode(self, path: Path) -> None:
        """Encode a recording's first window."""
        self._model.encoder(_first_window(path))

    def peak(self, path: Path, seconds: float) -> float:
        """With prompts from the text before."""
        options = replace(self._options, condition_on_previous_text=True)
        return _peak(self._model.stream(path, options), seconds)

    def said(self) -> dict[str, str]:
        """What it says of itself."""
        import openvino

        found = ", ".join(sorted(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")))
        return {"version": version("tilescribe"), "instructions": f"{self._model.compute_type}; {found}"}


class FasterWhisper:
    """faster-whisper with INT8 weights on CTranslate2."""

    def __init__(self, folder: str, threads: int) -> None:
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        self._model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=threads)
        self._pipeline = BatchedInferencePipeline(self._model)
        self._common: dict[str, Any] = {"language": "en", "beam_size": 1, "temperature": 0.0}

    def singles(self, paths: Sequence[Path]) -> list[str]:
        """One after the other."""
        alone = {"condition_on_previous_text": False, "vad_filter": False, **self._common}
        return [_joined(self._model.transcribe(str(path), **alone)) for path in paths]

    def long(self, path: Path, batch_size: int, pieces: Sequence[tuple[float, float]] | None) -> list[str]:
        """Without `pieces`, as it comes: cut by its voice activity detection, no timestamps."""
        return [self._batches(str(path), batch_size, pieces)]

    def group(self, paths: Sequence[Path], batch_size: int) -> list[str]:
        """Its batched pipeline over the joined recordings, with each as a clip of its own."""
        import numpy as np
        from faster_whisper.audio import decode_audio

        recordings = [decode_audio(str(path)) for path in paths]
        ends = np.cumsum([len(recording) for recording in recordings]) / 16000
        pieces = list(zip([0.0, *ends[:-1]], ends, strict=True))
        return [self._batches(np.concatenate(recordings), batch_size, pieces)]

    def peak(self, path: Path, seconds: float) -> float:
        """With prompts from the text before."""
        return _peak(self._model.transcribe(str(path), **self._common)[0], seconds)

    def said(self) -> dict[str, str]:
        """What it says of itself."""
        import ctranslate2

        types = ctranslate2.get_supported_compute_types("cpu")
        made = f"{version('faster-whisper')}, CTranslate2 {version('ctranslate2')}"
        return {"version": made, "instructions": ", ".join(sorted(types))}

    def _batches(self, audio: Any, batch_size: int, pieces: Sequence[tuple[float, float]] | None) -> str:
        how: dict[str, Any] = {}
        if pieces is not None:
            clips = [{"start": start, "end": end} for start, end in pieces]
            how = {"clip_timestamps": clips, "vad_filter": False, "without_timestamps": False}
        return _joined(self._pipeline.transcribe(audio, batch_size=batch_size, **how, **self._common))


class _OneByOne:
    """A peer without batches, whose `_text` is that of samples that it has `_read`."""

    def singles(self, paths: Sequence[Path]) -> list[str]:
        """One after the other."""
        return [self._text(self._read(path)) for path in paths]

    def long(self, path: Path, batch_size: int, pieces: Sequence[tuple[float, float]] | None) -> list[str]:
        """Window after window."""
        return self.singles([path])

    def peak(self, path: Path, seconds: float) -> float:
        """Of so many seconds."""
        samples = self._read(path)
        self._text(samples[: int(min(seconds * 16000, len(samples)))])
        return peak_megabytes()

    def _read(self, path: Path) -> Any:
        return _sound(path)

    def _text(self, samples: Any) -> str:
        raise NotImplementedError


class OpenVINO(_OneByOne):
    """OpenVINO GenAI's pipeline, without batches, with timestamps as Tilescribe writes them."""

    def __init__(self, folder: str, threads: int) -> None:
        import openvino_genai

        self._pipeline = openvino_genai.WhisperPipeline(folder, "CPU", INFERENCE_NUM_THREADS=threads)
        self._how: dict[str, Any] = {"return_timestamps": True}
        if json.loads((Path(folder) / "generation_config.json").read_bytes())["is_multilingual"]:
            self._how |= {"language": "<|en|>", "task": "transcribe"}

    def said(self) -> dict[str, str]:
        """What it says of itself."""
        import openvino

        found = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return {"version": version("openvino-genai"), "instructions": ", ".join(sorted(found))}

    def _text(self, samples: Any) -> str:
        return str(self._pipeline.generate(samples, **self._how)).strip()


class WhisperCpp(_OneByOne):
    """whisper.cpp, built for this processor, without batches, through pywhispercpp."""

    def __init__(self, file: str, threads: int) -> None:
        from pywhispercpp.model import Model

        quiet = dict.fromkeys(("print_progress", "print_realtime", "print_timestamps"), False)
        decoding = {"language": "en", "no_context": True, "temperature": 0.0, "temperature_inc": 0.0}
        self._model = Model(file, n_threads=threads, suppress_nst=True, **quiet, **decoding)

    def said(self) -> dict[str, str]:
        """What it says of itself."""
        import _pywhispercpp

        found = re.findall(r"(\w+) = 1", _pywhispercpp.whisper_print_system_info())
        return {"version": f"pywhispercpp {version('pywhispercpp')}", "instructions": ", ".join(found)}

    def _text(self, samples: Any) -> str:
        return " ".join(segment.text.strip() for segment in self._model.transcribe(samples))


class OpenAIWhisper(_OneByOne):
    """openai-whisper in float32, without batches, on recordings that are in memory once they have been transcribed."""

    def __init__(self, model: str, threads: int) -> None:
        import torch

        from models.weights import loading as weights

        torch.set_num_threads(threads)
        self._model = weights.load(model).model.whisper

    def said(self) -> dict[str, str]:
        """What it says of itself."""
        import torch

        made = f"{version('openai-whisper')}, PyTorch {version('torch')}"
        return {"version": made, "instructions": torch.backends.cpu.get_cpu_capability()}

    def write_checkpoint(self, path: Path) -> None:
        """Write the model as openai-whisper's own checkpoint (float16, as OpenAI's are), which its command loads."""
        import torch

        state = self._model.state_dict()
        halves = {name: value.half() for name, value in state.items() if not name.endswith("alignment_heads")}
        torch.save({"dims": asdict(self._model.dims), "model_state_dict": halves}, path)

    def _read(self, path: Path) -> Any:
        return _kept_sound(path)

    def _text(self, samples: Any) -> str:
        options = {"temperature": 0.0, "language": "en", "condition_on_previous_text": False}
        return str(self._model.transcribe(samples, fp16=False, **options)["text"])


@cache
def _first_window(path: Path) -> Any:
    """As the encoder takes it."""
    from app.audio.reading import open_audio
    from models.features import LogMelFeatures

    with open_audio(path) as source, LogMelFeatures(source.blocks(), 80) as features:
        return features.window(0, 3000, pad_to=3000)[None]


def _joined(transcribed: tuple[Iterable[Any], Any]) -> str:
    segments, _ = transcribed
    return "".join(segment.text for segment in segments).strip()


def _sound(path: Path) -> Any:
    """A 16 kHz recording's samples, float32, by PyAV alone."""
    import av
    import numpy as np

    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt", "mono", 16000)
        frames = (
            sound for frame in (*container.decode(audio=0), None) for sound in resampler.resample(frame)
        )
        return np.concatenate([frame.to_ndarray()[0] for frame in frames])


_kept_sound = cache(_sound)


def _peak(segments: Iterable[Any], seconds: float) -> float:
    """Megabytes after so many seconds of a recording."""
    for segment in segments:
        if segment.end > seconds:
            break
    return peak_megabytes()


def peak_megabytes() -> float:
    """By the kernel's high-water mark of this program's own memory.

    That of `getrusage` would count the process that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
