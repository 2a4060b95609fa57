"""The Python API: load a model with a backend, transcribe a recording, take its segments as they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import chain
from typing import Any, BinaryIO, TypeAlias

import numpy.typing as npt

from app.audio.containers import AudioError as AudioError  # this and what follows like it is part of the API
from app.audio.findings import Findings
from app.audio.reading import AudioSource, array_blocks, open_audio
from app.audio.resampling import SAMPLE_RATE
from app.configuration import Configuration
from app.output.tables import DEVICES
from kernels.device import DeviceError as DeviceError
from kernels.device import DeviceLost as DeviceLost
from kernels.device import DeviceName
from models.attention import Attention, open_attention
from models.compute import ComputeType, Context, ResolvedType, compute_reason, resolve_compute_type
from models.decoder import Decoder
from models.decoding.coverage import Coverage as Coverage
from models.decoding.coverage import Finding as Finding
from models.decoding.longform import transcribe_batched, window_by_window
from models.decoding.options import DecodeOptions
from models.decoding.options import OptionsError as OptionsError
from models.decoding.recogniser import Recogniser, decoder_of, encoder_of
from models.decoding.segments import Segment
from models.decoding.segments import Word as Word
from models.features import LogMelFeatures
from models.voice import VadOptions as VadOptions
from models.weights.loading import LoadedWeights, load
from models.weights.loading import WeightsError as WeightsError

__all__ = ["Audio", "Run", "SegmentStream", "Transcriber", "Transcript", "load_model"]

SCHEMA_VERSION = 1

Audio: TypeAlias = str | os.PathLike[str] | BinaryIO | npt.NDArray[Any] | AudioSource
Progress = Callable[[float, float], None]


@dataclass(frozen=True)
class Run:
    """What made a transcript: recorded with each one.

    Attributes:
        model: its name, or the path that it was loaded from.
        model_sha256: of the weights' file.
        device: what computed the encoder's attention: `cpu`, `emulator` or `npu`.
        tile_size: keys per tile; None for `cpu` and the legacy kernels.
        compute_type: of what is not integer attention.
        audio_context: what the encoder is given of a window: 30 s (`full`), or no more than it needs (`auto`).
        batch_size: windows decoded at once.
    """

    model: str
    model_sha256: str
    backend: str
    device: str
    device_reason: str
    tile_size: int | None
    compute_type: ResolvedType
    compute_reason: str
    audio_context: Context
    options: DecodeOptions
    batch_size: int
    version: str = field(default_factory=lambda: version("tilescribe"))


@dataclass(frozen=True)
class Transcript:
    """The text of a recording: its segments', joined.

    Attributes:
        language: its code.
        language_probability: where it was detected, else None.
        duration: seconds of audio.
        notes: what is odd about the audio, a line each.
        undecoded: seconds of it that could not be decoded, and are silence here.
        coverage: what became of its speech; None where voice activity detection was off.
    """

    text: str
    segments: tuple[Segment, ...]
    language: str
    language_probability: float | None
    duration: float
    run: Run
    notes: tuple[str, ...] = ()
    undecoded: float = 0.0
    coverage: Coverage | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON that is written: openai-whisper's fields, and the run under `tilescribe`."""
        return {
            "text": self.text,
            "segments": [segment.to_dict() for segment in self.segments],
            "language": self.language,
            "tilescribe": {
                "schema_version": SCHEMA_VERSION,
                "duration": self.duration,
                "language_probability": self.language_probability,
                "notes": list(self.notes),
                "undecoded_seconds": self.undecoded,
                "coverage": None if self.coverage is None else self.coverage.to_dict(),
                **asdict(self.run),
            },
        }


class SegmentStream(Iterator[Segment]):
    """Segments of one recording as they are decoded; `transcript()` takes the rest and gives the whole.

    Attributes:
        duration: seconds of audio.
        language: its code; None until the first segment where it has to be detected.
        language_probability: where it was detected.
        findings: what is odd about the audio.
        coverage: what became of its speech, when all segments were taken; None where voice activity detection is off.
        complete: whether all is decoded.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        features: LogMelFeatures,
        findings: Findings,
        run: Run,
        on_progress: Progress | None,
    ) -> None:
        self.duration = features.duration
        self.findings = findings
        self.language = run.options.language
        self.language_probability: float | None = None
        self.coverage: Coverage | None = None
        self.complete = False
        self._run = run
        self._features = features
        self._segments: list[Segment] = []
        told: Any = {"on_progress": on_progress, "on_language": self._found, "on_coverage": self._covered}
        how: Any = (recogniser, features, run.options)
        if run.batch_size == 1:
            self._windows = self._kept(window_by_window(*how, **told))
        else:
            batched = transcribe_batched(*how, batch_size=run.batch_size, **told)
            self._windows = self._kept(([segment], False) for segment in batched)
        self._each = chain.from_iterable(self._windows)

    def __next__(self) -> Segment:
        return next(self._each)

    def next_window(self) -> list[Segment] | None:
        """The segments of one more window, so that several recordings can be decoded in turn; None after the last.

        In batches it is one segment that comes.
        """
        return next(self._windows, None)

    def close(self) -> None:
        """Leave the rest undecoded, and free the features."""
        self._windows.close()
        self._features.close()

    def _kept(self, windows: Iterable[tuple[list[Segment], bool]]) -> Generator[list[Segment], None, None]:
        with self._features:
            for segments, self.complete in windows:
                self._segments += segments
                yield segments
        self.complete = True

    def transcript(self) -> Transcript:
        """Decode what is left, and return everything."""
        for _ in self:
            pass
        return Transcript(
            text="".join(segment.text for segment in self._segments).strip(),
            segments=tuple(self._segments),
            language=self.language or "en",
            language_probability=self.language_probability,
            duration=self.duration,
            run=self._run,
            notes=tuple(self.findings.notes),
            undecoded=round(self.findings.undecoded, 3),
            coverage=self.coverage,
        )

    def _found(self, language: str, probability: float) -> None:
        self.language, self.language_probability = language, probability

    def _covered(self, coverage: Coverage) -> None:
        self.coverage = coverage


class Transcriber:
    """A model with a backend.

    Attributes:
        weights: the Whisper model and where it came from.
        configuration: what was asked for.
        attention: the backend of the encoder's self-attention.
        compute_type: of encoder and decoder, attention in integers apart; what `auto` or a type that this processor
            has no instructions for came to.
        audio_context: what the encoder is given of a window; on the NPU 30 s whatever is configured, which
            `context_note` says then.
        encoder: the model's, with that attention.
        recogniser: that encoder with the model's decoder.
    """

    def __init__(
        self,
        weights: LoadedWeights,
        configuration: Configuration,
        attention: Attention | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        """Put an encoder with the configured attention before the model's decoder; several can share both.

        Args:
            weights: of `configuration.model`.
            configuration: what to compute with.
            attention: the configured one, where it is open already.
            decoder: the weights', in the configured compute type, where there is one already.

        Raises:
            kernels.device.DeviceError: the NPU was asked for and cannot be used.
            models.weights.loading.WeightsError: the model's heads are not 64 wide.
            ValueError: there is no such compute type.
        """
        self.weights = weights
        self.configuration = configuration
        self.attention = attention or _open_attention(configuration)
        self.compute_type = resolve_compute_type(configuration.compute_type)
        self.compute_reason = compute_reason(configuration.compute_type)
        model, threads = weights.model, configuration.threads
        if threads is not None and self.compute_type == "float32":
            import torch

            torch.set_num_threads(threads)
        self.audio_context, self.context_note = configuration.audio_context, ""
        if self.attention.device == "npu" and self.audio_context != "full":
            self.audio_context = "full"
            self.context_note = "the NPU's programs are for windows of 30 s: the context is full"
        how = self.compute_type, threads, self.audio_context
        self.encoder = encoder_of(model, self.attention, *how)
        self.recogniser = Recogniser(
            model, self.encoder, decoder or decoder_of(model, *how), self.audio_context
        )

    @property
    def description(self) -> str:
        """A line: what computes the attention, on what and why."""
        if self.attention.device == "cpu":
            return f"{self.weights.name}: floating-point attention, compute type {self.compute_type}"
        device, reason = DEVICES[self.attention.device], self.attention.reason
        return f"{self.weights.name}: {self.attention.name} attention on the {device}: {reason}"

    @property
    def facts(self) -> dict[str, str]:
        """What decides the texts beside versions and options, by name."""
        return {
            "SHA-256 of the weights": self.weights.sha256,
            "device": self.attention.device,
            "compute type": self.compute_type,
            "audio context": self.audio_context,
        }

    @classmethod
    def load(cls, configuration: Configuration, *, download: bool = True) -> Transcriber:
        """A transcriber as it is configured, with weights of its own, fetched where they are missing if `download`.

        Sets PyTorch's number of threads, where one is configured.

        Raises:
            models.weights.loading.WeightsError: the weights are missing, damaged or unreachable.
            kernels.device.DeviceError: the NPU was asked for and cannot be used.
            ValueError: there is no such compute type.
        """
        # What may be missing is looked for before the weights are read.
        resolve_compute_type(configuration.compute_type)
        attention = _open_attention(configuration)
        return cls(load(configuration.model, download=download), configuration, attention)

    def stream(
        self,
        audio: Audio,
        options: DecodeOptions | None = None,
        *,
        sample_rate: int = 16000,
        batch_size: int = 1,
        name: str | None = None,
        allow_truncated: bool = False,
        audio_track: str | None = None,
        on_progress: Progress | None = None,
        on_reading: Callable[[float], None] | None = None,
    ) -> SegmentStream:
        """Read a recording and return its segments as they are decoded.

        Args:
            audio: a path, a binary file, an array of samples (n,) or (n, channels), or an opened source.
            options: how to decode; greedy with openai-whisper's defaults unless given.
            sample_rate: of an array, in Hz.
            batch_size: 1 reads window after window, each prompted with the text before it. More cuts the
                recording where it is quietest and decodes that many pieces at once, each on its own.
            name: what to call the input in messages.
            allow_truncated: take what there is of a file that ends early.
            audio_track: of several audio tracks the one with this number, from 1, or language.
            on_progress: called with the seconds done and the seconds in all.
            on_reading: called with the seconds read, before anything is decoded.

        Raises:
            app.audio.reading.AudioError: the audio cannot be read.
            models.decoding.options.OptionsError: the options contradict each other or the model.
            models.temporary.NoRoomError: the folder of temporary files has no room for the features of long audio.

        The stream itself raises `AudioError` where the rest of the audio cannot be read, and
        `kernels.device.DeviceLost` where the NPU fails and a second try fails as well: the transcriber is of no
        more use then.
        """
        options = (options or DecodeOptions()).for_model(self.weights.model)
        with _source(audio, sample_rate, name, allow_truncated, audio_track) as source:
            features = LogMelFeatures(
                _counted(source.blocks(), on_reading),
                self.weights.model.dims.n_mels,
                options.vad,
                source.expected_seconds,
            )
        past = [f"{start:g}" for start in options.clips[::2] if start >= features.duration]
        if past and features.duration:
            source.findings.notes.append(
                f"clip_timestamps {', '.join(past)}: past the end, which is at {features.duration:.2f} s"
            )
        run = Run(
            model=self.weights.name,
            model_sha256=self.weights.sha256,
            backend=self.attention.name,
            device=self.attention.device,
            device_reason=self.attention.reason,
            tile_size=getattr(self.attention, "tile_size", None),
            compute_type=self.compute_type,
            compute_reason=self.compute_reason,
            audio_context=self.audio_context,
            options=options,
            batch_size=batch_size,
        )
        return SegmentStream(self.recogniser, features, source.findings, run, on_progress)

    def transcribe(self, audio: Audio, options: DecodeOptions | None = None, **how: Any) -> Transcript:
        """Transcribe a whole recording; takes the arguments of `stream`."""
        return self.stream(audio, options, **how).transcript()


def load_model(
    model: str = Configuration.model,
    backend: str = Configuration.backend,
    device: DeviceName = Configuration.device,
    *,
    threads: int | None = None,
    tile_size: int = Configuration.tile_size,
    compute_type: ComputeType = Configuration.compute_type,
    audio_context: Context = Configuration.audio_context,
    download: bool = True,
) -> Transcriber:
    """Load a Whisper model with a backend for its encoder's attention.

    The arguments are the fields of `app.configuration.Configuration`, and those of `Transcriber.load`, whose errors it
    raises as well.

    Raises:
        ValueError: there is no such backend or compute type.
    """
    configuration = Configuration(model, backend, device, tile_size, compute_type, audio_context, threads)
    return Transcriber.load(configuration, download=download)


def _open_attention(configuration: Configuration) -> Attention:
    return open_attention(
        configuration.backend,
        configuration.device,
        threads=configuration.threads,
        tile_size=configuration.tile_size,
    )


def _counted(
    blocks: Iterator[npt.NDArray[Any]], on_reading: Callable[[float], None] | None
) -> Iterator[npt.NDArray[Any]]:
    samples = 0
    for block in blocks:
        yield block
        samples += len(block)
        if on_reading is not None:
            on_reading(samples / SAMPLE_RATE)


def _source(
    audio: Any, sample_rate: int, name: str | None, allow_truncated: bool, track: str | None
) -> AudioSource:
    if isinstance(audio, AudioSource):
        return audio
    if isinstance(audio, (str, os.PathLike)) or hasattr(audio, "read"):
        return open_audio(audio, name=name, allow_truncated=allow_truncated, track=track)
    return array_blocks(audio, sample_rate, name=name or "array")
