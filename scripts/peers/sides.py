"""The three that are measured, behind one interface: each loads once, and then does the same work as the others.

Greedy, English, one temperature and so no fallback, no voice activity detection, no prompt from the text before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

__all__ = ["FasterWhisper", "OpenAIWhisper", "Piece", "Side", "Tilescribe"]

Piece = tuple[float, float]
"""Start and end in seconds."""


class Side(Protocol):
    """A model in memory. Each method returns texts, so that what was measured can be seen to be the same work."""

    def singles(self, paths: Sequence[Path]) -> list[str]:
        """Transcribe recordings one after the other."""
        ...

    def long(self, path: Path, batch_size: int, pieces: Sequence[Piece] | None) -> list[str]:
        """Transcribe one long recording, `batch_size` pieces at a time."""
        ...

    def group(self, paths: Sequence[Path], batch_size: int) -> list[str]:
        """Transcribe many recordings of up to 30 s, `batch_size` at a time."""
        ...


class Tilescribe:
    """Tilescribe through its Python API."""

    def __init__(self, model: str, threads: int, backend: str = "cpu", compute_type: str = "auto") -> None:
        from app import DecodeOptions, load_model

        self._setup = (model, threads, backend, compute_type)
        self._model = load_model(model, backend, "emulator", threads=threads, compute_type=compute_type)
        self._options = DecodeOptions(temperature=0.0, language="en", condition_on_previous_text=False)
        self._worker: Any = None
        self._mel: Any = None

    def singles(self, paths: Sequence[Path]) -> list[str]:
        """See `Side`."""
        return [self._model.transcribe(path, self._options).text for path in paths]

    def long(self, path: Path, batch_size: int, pieces: Sequence[Piece] | None) -> list[str]:
        """See `Side`; it cuts the recording itself, at the places that `pieces` gives."""
        return [self._model.transcribe(path, self._options, batch_size=batch_size).text]

    def pieces(self, path: Path) -> list[Piece]:
        """Where `long` cuts."""
        from app.audio.reading import open_audio
        from models.features import LogMelFeatures, quiet_pieces

        with open_audio(path) as source, LogMelFeatures(source.blocks(), 80) as features:
            cuts = quiet_pieces(features.levels, 0, features.content_frames)
        return [(first / 100, last / 100) for first, last in cuts]

    def group(self, paths: Sequence[Path], batch_size: int) -> list[str]:
        """See `Side`: what `evaluate` does with each batch, from the files to the records."""
        from app.configuration import Configuration
        from app.evaluation.batches import Batch
        from app.evaluation.worker import BatchWorker, Setup
        from datasets.utterance import Utterance

        model, threads, backend, compute_type = self._setup
        if self._worker is None:
            configuration = Configuration(
                model, backend, "emulator", compute_type=compute_type, threads=threads
            )
            self._worker = BatchWorker(Setup(configuration, (backend,), self._options))
        texts = []
        for first in range(0, len(paths), batch_size):
            chosen = tuple(Utterance(str(p), p, "not scored") for p in paths[first : first + batch_size])
            batch = Batch(first // batch_size, chosen)
            records = self._worker.run(batch, {backend: frozenset(u.id for u in chosen)})
            texts += [record.hypothesis for record in records[backend]]
        return texts

    def take_window(self, path: Path) -> None:
        """Keep the first window of a recording, as the encoder takes it."""
        from app.audio.reading import open_audio
        from models.features import LogMelFeatures

        with open_audio(path) as source, LogMelFeatures(source.blocks(), 80) as features:
            self._mel = features.window(0, 3000, pad_to=3000)[None]

    def encode(self) -> None:
        """Encode the window."""
        self._model.encoder(self._mel)


class FasterWhisper:
    """faster-whisper with INT8 weights on CTranslate2."""

    def __init__(self, folder: str, threads: int) -> None:
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        self._model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=threads)
        self._pipeline = BatchedInferencePipeline(self._model)
        self._common: dict[str, Any] = {"language": "en", "beam_size": 1, "temperature": 0.0}

    def singles(self, paths: Sequence[Path]) -> list[str]:
        """See `Side`."""
        texts = []
        for path in paths:
            segments, _ = self._model.transcribe(
                str(path), condition_on_previous_text=False, vad_filter=False, **self._common
            )
            texts.append(_joined(segments))
        return texts

    def long(self, path: Path, batch_size: int, pieces: Sequence[Piece] | None) -> list[str]:
        """See `Side`. Without `pieces`, as it comes: cut by its voice activity detection, no timestamps."""
        how: dict[str, Any] = {}
        if pieces is not None:
            clips = [{"start": start, "end": end} for start, end in pieces]
            how = {"clip_timestamps": clips, "vad_filter": False, "without_timestamps": False}
        segments, _ = self._pipeline.transcribe(str(path), batch_size=batch_size, **how, **self._common)
        return [_joined(segments)]

    def group(self, paths: Sequence[Path], batch_size: int) -> list[str]:
        """See `Side`: its batched pipeline over the joined recordings, with each as a clip of its own."""
        import numpy as np
        from faster_whisper.audio import decode_audio

        recordings = [decode_audio(str(path)) for path in paths]
        ends = np.cumsum([len(recording) for recording in recordings]) / 16000
        starts = [0.0, *ends[:-1]]
        segments, _ = self._pipeline.transcribe(
            np.concatenate(recordings),
            batch_size=batch_size,
            clip_timestamps=[{"start": s, "end": e} for s, e in zip(starts, ends, strict=True)],
            vad_filter=False,
            without_timestamps=False,
            **self._common,
        )
        return [_joined(segments)]


class OpenAIWhisper:
    """openai-whisper in float32, on recordings that are already in memory (it reads files through FFmpeg's program)."""

    def __init__(self, model: str, threads: int) -> None:
        import torch

        from models.weights import loading as weights

        torch.set_num_threads(threads)
        self._model = weights.load(model).model
        self._samples: dict[Path, Any] = {}

    def singles(self, paths: Sequence[Path]) -> list[str]:
        """See `Side`."""
        return [self._transcribe(path) for path in paths]

    def long(self, path: Path, batch_size: int, pieces: Sequence[Piece] | None) -> list[str]:
        """See `Side`; it has no batches."""
        return [self._transcribe(path)]

    def group(self, paths: Sequence[Path], batch_size: int) -> list[str]:
        """See `Side`; it has no batches."""
        return self.singles(paths)

    def prepare(self, paths: Sequence[Path]) -> None:
        """Read recordings before they are timed."""
        from app.audio.reading import load_audio

        for path in paths:
            self._samples.setdefault(path, load_audio(path))

    def _transcribe(self, path: Path) -> str:
        result = self._model.transcribe(
            self._samples[path],
            temperature=0.0,
            language="en",
            fp16=False,
            condition_on_previous_text=False,
        )
        return str(result["text"])


def _joined(segments: Any) -> str:
    return "".join(segment.text for segment in segments).strip()
