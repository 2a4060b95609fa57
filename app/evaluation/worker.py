"""What decodes a batch with every backend: in this process, or in several."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from app.evaluation.batches import Batch
from app.evaluation.records import UtteranceRecord
from datasets.utterance import Utterance

if TYPE_CHECKING:
    from kernels.device import DeviceName
    from models.compute import ComputeType
    from models.decoding.options import DecodeOptions
    from models.decoding.results import Segment
    from models.features import LogMelFeatures


@dataclass(frozen=True)
class Setup:
    """What a worker loads once.

    Attributes:
        model: name or path.
        backends: by name.
        device: where integer kernels run.
        options: of decoding.
        tile_size: keys per tile.
        threads: of PyTorch, and of the emulator.
        compute_type: of what is not integer attention.
    """

    model: str
    backends: tuple[str, ...]
    device: DeviceName
    options: DecodeOptions
    tile_size: int
    threads: int
    compute_type: ComputeType = "float32"


Records = dict[str, list[UtteranceRecord]]
"""Of a batch, by backend."""
Wanted = Mapping[str, frozenset[str]]
"""Ids of a batch's utterances that are still to be done, by backend."""


class BatchWorker:
    """A model with an encoder for each backend.

    Attributes:
        attentions: of the backends, by name.
        model_name: as it was asked for.
        model_sha256: of its weights.
        compute_type: what the setup's came to on this processor.
    """

    def __init__(self, setup: Setup) -> None:
        """Load the model.

        Raises:
            models.weights.loading.WeightsError: the weights are missing, damaged or unreachable.
            kernels.device.DeviceError: the NPU was asked for and cannot be used.
            models.decoding.options.OptionsError: the options do not suit the model.
        """
        import torch

        from models.attention import open_attention
        from models.compute import resolve_compute_type
        from models.decoding.recogniser import Recogniser, decoder_of
        from models.encoder import Encoder
        from models.weights.loading import load

        torch.set_num_threads(setup.threads)
        weights = load(setup.model)
        self.attentions = {
            name: open_attention(name, setup.device, threads=setup.threads, tile_size=setup.tile_size)
            for name in setup.backends
        }
        self.model_name, self.model_sha256 = weights.name, weights.sha256
        self.compute_type = resolve_compute_type(setup.compute_type)
        self._options = setup.options.for_model(weights.model)
        self._n_mels = weights.model.dims.n_mels
        decoder = decoder_of(weights.model, self.compute_type)
        self._recognisers = {
            name: Recogniser(weights.model, Encoder(weights.model, attention, self.compute_type), decoder)
            for name, attention in self.attentions.items()
        }

    def run(self, batch: Batch, wanted: Wanted) -> Records:
        """Decode a batch with each backend that wants some of it.

        Args:
            batch: decoded whole, so that a batch that is done again gives the same text.
            wanted: by backend, the ids to return.
        """
        features: list[LogMelFeatures] = []
        loaded: list[Utterance] = []
        failed: dict[str, UtteranceRecord] = {}
        for utterance in batch.utterances:
            try:
                features.append(self._features(utterance))
                loaded.append(utterance)
            except (_audio_error(), OSError) as error:
                failed[utterance.id] = UtteranceRecord(
                    utterance.id, utterance.text, speaker=utterance.speaker, error=str(error)
                )
        try:
            results: Records = {}
            for name, ids in wanted.items():
                if ids:
                    records = self._decode(name, loaded, features)
                    every = failed | {record.id: record for record in records}
                    results[name] = [every[u.id] for u in batch.utterances if u.id in ids]
            return results
        finally:
            for feature in features:
                feature.close()

    def _features(self, utterance: Utterance) -> LogMelFeatures:
        from app.audio.reading import open_audio
        from models.features import LogMelFeatures

        with open_audio(utterance.audio) as source:
            return LogMelFeatures(source.blocks(), self._n_mels)

    def _decode(
        self, backend: str, utterances: Sequence[Utterance], features: Sequence[LogMelFeatures]
    ) -> list[UtteranceRecord]:
        from models.decoding.longform import transcribe_group

        if not utterances:
            return []
        recogniser = self._recognisers[backend]
        encoder = _Timed(recogniser.encode)
        start = time.perf_counter()
        results = transcribe_group(replace(recogniser, encode=encoder), features, self._options)
        total = time.perf_counter() - start
        # A batch's time is shared out by length of audio: what one utterance took cannot be told apart.
        audio = sum(f.duration for f in features) or 1.0
        return [
            _record(
                utterance,
                feature.duration,
                segments,
                total * feature.duration / audio,
                encoder.seconds / total,
            )
            for utterance, feature, segments in zip(utterances, features, results, strict=True)
        ]


def _record(
    utterance: Utterance, duration: float, segments: Sequence[Segment], seconds: float, encoding: float
) -> UtteranceRecord:
    tokens = sum(len(s.tokens) for s in segments)
    text = "".join(s.text for s in segments).strip()
    return UtteranceRecord(
        utterance.id,
        utterance.text,
        hypothesis=text,
        speaker=utterance.speaker,
        audio_seconds=round(duration, 2),
        seconds=round(seconds, 4),
        encode_seconds=round(seconds * encoding, 4),
        decode_seconds=round(seconds * (1 - encoding), 4),
        tokens=tokens,
        avg_logprob=round(sum(s.avg_logprob * len(s.tokens) for s in segments) / tokens, 4)
        if tokens
        else None,
        compression_ratio=round(max(s.compression_ratio for s in segments), 4) if segments else None,
    )


@dataclass
class _Timed:
    """An encoder that counts the seconds spent in it."""

    encoder: Any
    seconds: float = field(default=0.0)

    def __call__(self, mel: Any) -> Any:
        start = time.perf_counter()
        states = self.encoder(mel)
        self.seconds += time.perf_counter() - start
        return states


def _audio_error() -> type[Exception]:
    from app.audio.error import AudioError

    return AudioError


_worker: BatchWorker | None = None


def begin(setup: Setup) -> None:
    """In a process of its own: load once. Ctrl-C is for the parent, which ends its workers."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker = BatchWorker(setup)


def work(batch: Batch, wanted: Wanted) -> tuple[int, Records]:
    """In a process of its own: decode a batch. Returns its number with its records."""
    if _worker is None:
        raise RuntimeError("the worker has not begun")
    return batch.number, _worker.run(batch, wanted)
