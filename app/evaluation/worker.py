"""Which utterances are decoded together, and what decodes them with every backend: in this process, or in a cluster's.

Batches are fixed before anything runs, so that a resumed run decodes the same ones.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from app.audio.containers import AudioError
from app.audio.reading import open_audio
from app.cluster.work import SharedFile, WorkLostError
from app.configuration import Configuration
from app.console import say
from app.evaluation.records import FindingRecord, SegmentRecord, SpeechCoverage, UtteranceRecord
from datasets.utterance import Utterance

if TYPE_CHECKING:
    from app.api import Transcriber
    from app.cluster.engine import Place
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
Decoded = Generator[tuple[int, Records], None, None]
"""The batches' sizes with their records, in any order."""


@dataclass(frozen=True)
class Setup:
    """What a worker loads once: the configuration with each of the backends in turn."""

    configuration: Configuration
    backends: tuple[str, ...]
    options: DecodeOptions
    streaming: bool = False

    def load(self, threads: int) -> BatchWorker:
        """The model, to compute with so many threads. Raises what `BatchWorker` does."""
        return BatchWorker(replace(self, configuration=replace(self.configuration, threads=threads)))


def batches(utterances: Iterable[Utterance], size: int) -> list[Batch]:
    """Cut a data set into batches by length, the longest first: little padding, and no long wait at the end."""
    order = sorted(utterances, key=lambda utterance: (-_seconds(utterance), utterance.id))
    return [tuple(order[first : first + size]) for first in range(0, len(order), size)]


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
        facts: what decides the texts, by name.
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
        self.facts = {
            f"{name}: {fact}": value
            for name, one in self.transcribers.items()
            for fact, value in one.facts.items()
        }

    def decode(self, tasks: Tasks) -> Decoded:
        """Decode in this process."""
        for batch, wanted in tasks:
            yield len(batch), self.run(batch, wanted)

    def run(self, batch: Batch, wanted: Wanted, files: Sequence[SharedFile] = ()) -> Records:
        """Decode a batch with each backend that wants some of it.

        Args:
            batch: decoded whole, so that a batch that is done again gives the same text.
            wanted: by backend, the ids to return.
            files: its recordings, where they are another machine's.
        """
        heard: list[Heard] = []
        failed: dict[str, UtteranceRecord] = {}
        for utterance, file in zip(batch, files or [SharedFile(str(u.audio)) for u in batch], strict=True):
            try:
                with file.at_hand() as path:
                    heard.append(self.hear(utterance, path))
            except (AudioError, OSError) as error:
                failed[utterance.id] = _failed(utterance, str(error))
        try:
            results: Records = {}
            for name, ids in wanted.items():
                if ids:
                    records = self._decode(self.transcribers[name], heard)
                    if self.setup.streaming:
                        records = [self._stream(name, *one) for one in zip(heard, records, strict=True)]
                    every = failed | {record.id: record for record in records}
                    results[name] = [every[u.id] for u in batch if u.id in ids]
            return results
        finally:
            for one in heard:
                one.features.close()

    def hear(self, utterance: Utterance, path: str | None = None) -> Heard:
        """Listen to a recording, at another path if one is given. Raises `AudioError` and OSError."""
        from models.features import LogMelFeatures

        with open_audio(path or utterance.audio, name=str(utterance.audio)) as source:
            blocks = list(source.blocks()) if self.setup.streaming else []
            features = LogMelFeatures(blocks or source.blocks(), self.model.dims.n_mels, self._options.vad)
        return Heard(utterance, features, source.findings.peak < SILENCE, blocks)

    def _stream(self, backend: str, heard: Heard, record: UtteranceRecord) -> UtteranceRecord:
        """The record with what comes of the recording as a stream."""
        from app.evaluation.streaming import streamed

        live = self.transcribers[backend].live(self._options)
        return msgspec.structs.replace(record, streamed=streamed(live, heard.blocks))

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
    """An utterance's log-mel features, whether its recording is silent, and its samples where they are streamed."""

    utterance: Utterance
    features: LogMelFeatures
    silent: bool
    blocks: list[Any]

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
            segments=tuple(
                SegmentRecord(round(s.start, 2), round(s.end, 2), s.text, round(s.avg_logprob, 4))
                for s in segments
                if s.text
            ),
            findings=tuple(
                FindingRecord(f.kind, round(f.start, 2), round(f.end, 2), f.text)
                for f in (coverage.findings if coverage is not None else ())
            ),
        )


def _recorded(coverage: Coverage) -> SpeechCoverage:
    seconds = {name: value for name, value in coverage.to_dict().items() if name.endswith("_seconds")}
    return SpeechCoverage(**seconds, findings=dict(Counter(finding.kind for finding in coverage.findings)))


def _failed(utterance: Utterance, error: str) -> UtteranceRecord:
    return UtteranceRecord(utterance.id, utterance.text, speaker=utterance.speaker, error=error)


def in_cluster(place: Place, worker: BatchWorker, tasks: Tasks, *, send_audio: bool) -> Decoded:
    """Decode in a cluster whose workers load what this one did, or are refused.

    A batch that ends every worker that it is given to is recorded as failed, and is done again when a run is resumed.

    Raises:
        app.cluster.engine.ClusterError: there is no cluster, or it is gone.
    """
    from app.cluster.engine import shared_out

    whole = (
        (batch, wanted, [SharedFile.of(str(u.audio), send=send_audio) for u in batch])
        for batch, wanted in tasks
    )
    for (batch, wanted, _), records in shared_out(place, worker.setup, worker.facts, whole):
        if isinstance(records, WorkLostError):
            records = {
                name: [_failed(u, f"{u.audio}: its batch {records}") for u in batch if u.id in ids]
                for name, ids in wanted.items()
            }
        yield len(batch), records
