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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from app.audio.containers import AudioError
from app.audio.reading import open_audio
from app.configuration import Configuration
from app.console import say
from app.evaluation.records import SpeechCoverage, UtteranceRecord
from datasets.utterance import Utterance

if TYPE_CHECKING:
    from app.api import Transcriber
    from models.decoder import Decoder
    from models.decoding.coverage import Coverage
    from models.decoding.options import DecodeOptions
    from models.decoding.segments import Segment
    from models.features import LogMelFeatures

SILENCE = 10 ** (-90 / 20)
"""A recording whose samples all lie within has no signal: -90 dBFS is one step of 16 bits."""

Batch = tuple[Utterance, ...]
Records = dict[str, list[UtteranceRecord]]
"""Of a batch, by backend."""
Wanted = Mapping[str, frozenset[str]]
"""Ids of a batch's utterances that are still to be done, by backend."""
Tasks = Sequence[tuple[Batch, Wanted]]
Decode = Callable[[Tasks], Iterator[tuple[int, Records]]]
"""Gives the batches' sizes with their records, in any order."""


class WorkerLostError(Exception):
    """A worker process ended on its own, most often because memory ran out."""


@dataclass(frozen=True)
class Setup:
    """What a worker loads once: the configuration with each of the backends in turn."""

    configuration: Configuration
    backends: tuple[str, ...]
    options: DecodeOptions


def batches(utterances: Iterable[Utterance], size: int) -> list[Batch]:
    """Cut a data set into batches by length, the longest first: little padding, and no long wait at the end."""
    order = sorted(utterances, key=lambda utterance: (-_seconds(utterance), utterance.id))
    return [tuple(order[first : first + size]) for first in range(0, len(order), size)]


def shard(text: str | None) -> slice:
    """Every N-th batch, from the I-th, for `I/N`; all where `text` is None.

    Shards are cut from batches rather than from utterances, so that together they decode exactly what one run would.

    Raises:
        ValueError: `text` is not I/N with 1 <= I <= N.
    """
    if text is None:
        return slice(None)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise ValueError(f"shard {text!r}: it is I/N, such as 2/4 for the second of four")
    return slice(index - 1, None, count)


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
        setup: what it was made from.
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
        self.setup = setup
        self._options = setup.options.for_model(weights.model)
        self.transcribers: dict[str, Transcriber] = {}
        decoders: dict[str, Decoder] = {}
        for name in setup.backends:
            configuration = setup.configuration.with_backend(name)
            decoder = decoders.get(configuration.audio_context)
            one = Transcriber(weights, configuration, decoder=decoder)
            self.transcribers[name] = one
            decoders[one.audio_context] = one.recogniser.decoder

    def decode(self, tasks: Tasks) -> Iterator[tuple[int, Records]]:
        """Decode in this process."""
        for batch, wanted in tasks:
            yield len(batch), self.run(batch, wanted)

    def run(self, batch: Batch, wanted: Wanted) -> Records:
        """Decode a batch with each backend that wants some of it.

        Args:
            batch: decoded whole, so that a batch that is done again gives the same text.
            wanted: by backend, the ids to return.
        """
        heard: list[Heard] = []
        failed: dict[str, UtteranceRecord] = {}
        for utterance in batch:
            try:
                heard.append(self.hear(utterance))
            except (AudioError, OSError) as error:
                failed[utterance.id] = UtteranceRecord(
                    utterance.id, utterance.text, speaker=utterance.speaker, error=str(error)
                )
        try:
            results: Records = {}
            for name, ids in wanted.items():
                if ids:
                    records = self._decode(self.transcribers[name], heard)
                    every = failed | {record.id: record for record in records}
                    results[name] = [every[u.id] for u in batch if u.id in ids]
            return results
        finally:
            for one in heard:
                one.features.close()

    def hear(self, utterance: Utterance) -> Heard:
        """Listen to a recording. Raises `AudioError` and OSError."""
        from models.features import LogMelFeatures
        from models.voice import VoiceActivity

        vad = self._options.vad
        with open_audio(utterance.audio) as source:
            voice = None if vad is None else VoiceActivity(vad)
            features = LogMelFeatures(source.blocks(), self.model.dims.n_mels, voice)
        return Heard(utterance, features, source.findings.peak < SILENCE)

    def _decode(self, transcriber: Transcriber, heard: Sequence[Heard]) -> list[UtteranceRecord]:
        from models.decoding.longform import transcribe_group

        if not heard:
            return []
        encoding = 0.0

        def timed(mel: Any) -> Any:
            nonlocal encoding
            begun = time.perf_counter()
            states = transcriber.encoder(mel)
            encoding += time.perf_counter() - begun
            return states

        start, cpu = time.perf_counter(), time.process_time()
        recogniser = replace(transcriber.recogniser, encode=timed)
        coverages: list[Coverage | None] = []
        results = transcribe_group(
            recogniser, [one.features for one in heard], self._options, on_coverage=coverages.append
        )
        total, cpu = time.perf_counter() - start, time.process_time() - cpu
        # A batch's time is shared out by length of audio: what one utterance took cannot be told apart.
        audio = sum(one.features.duration for one in heard) or 1.0
        return [
            one.record(segments, coverage, share * total, encoding / total, share * cpu)
            for one, segments, coverage in zip(heard, results, coverages or [None] * len(heard), strict=True)
            for share in (one.features.duration / audio,)
        ]


class Heard(NamedTuple):
    """An utterance's log-mel features, and whether its recording is silent."""

    utterance: Utterance
    features: LogMelFeatures
    silent: bool

    def record(
        self,
        segments: Sequence[Segment],
        coverage: Coverage | None,
        seconds: float,
        encoding: float,
        cpu: float,
    ) -> UtteranceRecord:
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
            cpu_seconds=round(cpu, 4),
            coverage=None if coverage is None else _recorded(coverage),
        )


def _recorded(coverage: Coverage) -> SpeechCoverage:
    seconds = {name: value for name, value in coverage.to_dict().items() if name.endswith("_seconds")}
    return SpeechCoverage(**seconds, findings=dict(Counter(finding.kind for finding in coverage.findings)))


_worker: BatchWorker
"""In a process of its own."""


def in_processes(setup: Setup, workers: int, tasks: Tasks) -> Iterator[tuple[int, Records]]:
    """Decode in processes that each load the setup, and end with this one."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(setup,))
    try:
        sizes = {pool.submit(_work, batch, wanted): len(batch) for batch, wanted in tasks}
        for future in as_completed(sizes):
            yield sizes[future], future.result()
    except BrokenProcessPool as error:
        raise WorkerLostError(
            "a worker process ended on its own, perhaps for want of memory; "
            "--resume goes on from what is done, with fewer --workers"
        ) from error
    finally:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


def _begin(setup: Setup) -> None:
    """Load once. Ctrl-C is for the parent, which ends its workers."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    _worker = BatchWorker(setup)


def _work(batch: Batch, wanted: Wanted) -> Records:
    return _worker.run(batch, wanted)


def end_with_parent() -> None:
    """In a process of its own: end it as soon as its parent is gone, however that ended."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
