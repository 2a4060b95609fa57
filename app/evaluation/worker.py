"""Which utterances are decoded together, and what decodes them with every backend: in this process, or in several.

Batches are fixed before anything runs, so that a resumed run decodes the same ones.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from app.audio.containers import AudioError
from app.audio.reading import open_audio
from app.configuration import Configuration
from app.console import say
from app.evaluation.records import UtteranceRecord
from datasets.utterance import Utterance

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from app.api import Transcriber
    from models.decoding.options import DecodeOptions
    from models.decoding.results import Segment
    from models.features import LogMelFeatures

SILENCE = 10 ** (-90 / 20)
"""A recording whose samples all lie within has no signal: -90 dBFS is one step of 16 bits."""


@dataclass(frozen=True)
class Setup:
    """What a worker loads once: the configuration with each of the backends in turn."""

    configuration: Configuration
    backends: tuple[str, ...]
    options: DecodeOptions


Batch = tuple[Utterance, ...]
Records = dict[str, list[UtteranceRecord]]
"""Of a batch, by backend."""
Wanted = Mapping[str, frozenset[str]]
"""Ids of a batch's utterances that are still to be done, by backend."""


def batches(utterances: Iterable[Utterance], size: int) -> list[Batch]:
    """Cut a data set into batches by length, the longest first: little padding, and no long wait at the end."""
    order = sorted(utterances, key=lambda utterance: (-_seconds(utterance), utterance.id))
    return [tuple(order[first : first + size]) for first in range(0, len(order), size)]


def shard(chosen: Sequence[Batch], text: str | None) -> Sequence[Batch]:
    """Every N-th batch, from the I-th, for `I/N`; all where `text` is None.

    Shards are cut from batches rather than from utterances, so that together they decode exactly what one run would.

    Raises:
        ValueError: `text` is not I/N with 1 <= I <= N.
    """
    if text is None:
        return chosen
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise ValueError(f"shard {text!r}: it is I/N, such as 2/4 for the second of four")
    return chosen[index - 1 :: count]


def _seconds(utterance: Utterance) -> float:
    """Its length: from the data set, or else from the file's header; 0 where it cannot be read."""
    if utterance.seconds is not None:
        return utterance.seconds
    import av

    try:
        with av.open(str(utterance.audio)) as container:
            return (container.duration or 0) / av.time_base
    except (av.FFmpegError, OSError):
        say(f"note: {utterance.audio} cannot be opened; it will be counted as failed")
        return 0.0


class BatchWorker:
    """A model with an encoder for each backend.

    Attributes:
        model: the `whisper.model.Whisper` of all.
        transcribers: by backend.
    """

    def __init__(self, setup: Setup) -> None:
        """Load the model.

        Raises:
            models.weights.loading.WeightsError: the weights are missing, damaged or unreachable.
            kernels.device.DeviceError: the NPU was asked for and cannot be used.
            models.decoding.options.OptionsError: the options do not suit the model.
        """
        from app.api import Transcriber
        from models.weights.loading import load

        weights = load(setup.configuration.model)
        self.model = weights.model
        self._options = setup.options.for_model(weights.model)
        self.transcribers: dict[str, Transcriber] = {}
        decoder = None
        for name in setup.backends:
            one = Transcriber(weights, replace(setup.configuration, backend=name), decoder=decoder)
            self.transcribers[name], decoder = one, one.recogniser.decoder

    def run(self, batch: Batch, wanted: Wanted) -> Records:
        """Decode a batch with each backend that wants some of it.

        Args:
            batch: decoded whole, so that a batch that is done again gives the same text.
            wanted: by backend, the ids to return.
        """
        loaded: list[_Loaded] = []
        failed: dict[str, UtteranceRecord] = {}
        for utterance in batch:
            peak = _Peak()
            try:
                loaded.append(_Loaded(utterance, self.features(utterance, peak), peak.value < SILENCE))
            except (AudioError, OSError) as error:
                failed[utterance.id] = UtteranceRecord(
                    utterance.id, utterance.text, speaker=utterance.speaker, error=str(error)
                )
        try:
            results: Records = {}
            for name, ids in wanted.items():
                if ids:
                    records = self._decode(self.transcribers[name], loaded)
                    every = failed | {record.id: record for record in records}
                    results[name] = [every[u.id] for u in batch if u.id in ids]
            return results
        finally:
            for one in loaded:
                one.features.close()

    def features(self, utterance: Utterance, peak: _Peak | None = None) -> LogMelFeatures:
        """The log-mel features of a recording. Raises `AudioError` and OSError."""
        from models.features import LogMelFeatures

        with open_audio(utterance.audio) as source:
            blocks = source.blocks()
            return LogMelFeatures(peak.through(blocks) if peak else blocks, self.model.dims.n_mels)

    def _decode(self, transcriber: Transcriber, loaded: Sequence[_Loaded]) -> list[UtteranceRecord]:
        from models.decoding.longform import transcribe_group

        if not loaded:
            return []
        encoder = _Timed(transcriber.encoder)
        start = time.perf_counter()
        recogniser = replace(transcriber.recogniser, encode=encoder)
        results = transcribe_group(recogniser, [one.features for one in loaded], self._options)
        total = time.perf_counter() - start
        # A batch's time is shared out by length of audio: what one utterance took cannot be told apart.
        audio = sum(one.features.duration for one in loaded) or 1.0
        return [
            one.record(segments, total * one.features.duration / audio, encoder.seconds / total)
            for one, segments in zip(loaded, results, strict=True)
        ]


@dataclass
class _Peak:
    """The largest sample of what went through, as a fraction of full scale."""

    value: float = 0.0

    def through(self, blocks: Iterator[npt.NDArray[np.float32]]) -> Iterator[npt.NDArray[np.float32]]:
        for block in blocks:
            self.value = max(self.value, float(abs(block).max()))
            yield block


@dataclass(frozen=True)
class _Loaded:
    utterance: Utterance
    features: LogMelFeatures
    silent: bool

    def record(self, segments: Sequence[Segment], seconds: float, encoding: float) -> UtteranceRecord:
        """What was decoded, in so many seconds, of which the share `encoding` went into the encoder."""
        tokens = sum(len(s.tokens) for s in segments)
        logprob = sum(s.avg_logprob * len(s.tokens) for s in segments)
        return UtteranceRecord(
            self.utterance.id,
            self.utterance.text,
            hypothesis="".join(s.text for s in segments).strip(),
            speaker=self.utterance.speaker,
            audio_seconds=round(self.features.duration, 2),
            seconds=round(seconds, 4),
            encode_seconds=round(seconds * encoding, 4),
            decode_seconds=round(seconds * (1 - encoding), 4),
            tokens=tokens,
            avg_logprob=round(logprob / tokens, 4) if tokens else None,
            compression_ratio=round(max(s.compression_ratio for s in segments), 4) if segments else None,
            silent=self.silent,
        )


@dataclass
class _Timed:
    """An encoder that counts the seconds spent in it."""

    encoder: Any
    seconds: float = 0.0

    def __call__(self, mel: Any) -> Any:
        start = time.perf_counter()
        states = self.encoder(mel)
        self.seconds += time.perf_counter() - start
        return states


_worker: BatchWorker
"""In a process of its own."""


def begin(setup: Setup) -> None:
    """In a process of its own: load once. Ctrl-C is for the parent, which ends its workers."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    _worker = BatchWorker(setup)


def work(batch: Batch, wanted: Wanted) -> Records:
    """In a process of its own: decode a batch."""
    return _worker.run(batch, wanted)


def end_with_parent() -> None:
    """In a process of its own: end it as soon as its parent is gone, however that ended."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
