"""The Python API: load a model with a backend, transcribe a recording, take its segments as they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy.typing as npt

from app.audio.containers import AudioError as AudioError  # this and what follows like it is part of the API
from app.audio.reading import AudioSource, array_blocks, open_audio
from app.audio.resampling import SAMPLE_RATE
from app.configuration import Configuration
from app.output.tables import DEVICES
from app.transcript import Progress, Run, SegmentStream
from app.transcript import Transcript as Transcript
from kernels.device import DeviceError as DeviceError
from kernels.device import DeviceLost as DeviceLost
from kernels.device import DeviceName
from models.attention import Attention, open_attention
from models.compute import ComputeType, Context, compute_reason, resolve_compute_type
from models.decoder import Decoder
from models.decoding.coverage import Coverage as Coverage
from models.decoding.coverage import Finding as Finding
from models.decoding.options import DecodeOptions
from models.decoding.options import OptionsError as OptionsError
from models.decoding.recogniser import Recogniser, decoder_of, encoder_of
from models.decoding.segments import Segment as Segment
from models.decoding.segments import Word as Word
from models.features import LogMelFeatures
from models.voice import VadOptions as VadOptions
from models.weights.loading import LoadedWeights, load
from models.weights.loading import WeightsError as WeightsError

if TYPE_CHECKING:
    from app.live.transcriber import LiveOptions, LiveTranscriber

__all__ = ["Audio", "Run", "SegmentStream", "Transcriber", "Transcript", "load_model"]

Audio: TypeAlias = str | os.PathLike[str] | BinaryIO | npt.NDArray[Any] | AudioSource


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
        self.encoder = encoder_of(model, self.attention, self.compute_type, threads, self.audio_context)
        self._decoder = decoder

    @cached_property
    def recogniser(self) -> Recogniser:
        """The encoder with the model's decoder, made when it is asked for."""
        model, threads = self.weights.model, self.configuration.threads
        decoder = self._decoder or decoder_of(model, self.compute_type, threads, self.audio_context)
        return Recogniser(model, self.encoder, decoder, self.audio_context)

    @cached_property
    def _aligned(self) -> Recogniser:
        """The encoder with the decoder that tells what it attends to."""
        return replace(self.recogniser, decoder=self.recogniser.decoder.aligned, search=None)

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
        run = self.described(options, batch_size)
        return SegmentStream(self.recogniser, features, source.findings, run, on_progress)

    def live(
        self,
        options: DecodeOptions | None = None,
        live: LiveOptions | None = None,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> LiveTranscriber:
        """Begin to transcribe a stream of samples while they come; several streams can go on at once.

        Args:
            options: how to decode; greedy, one language an utterance.
            live: when to decode, and when words are final.
            turn: what each decoding is done in, where several threads have streams: one of them decodes at a time.

        Raises:
            models.decoding.options.OptionsError: the options do not suit the model.
        """
        from app.live.transcriber import LiveTranscriber

        return LiveTranscriber(self._aligned, options or DecodeOptions(), live, turn)

    def described(self, options: DecodeOptions, batch_size: int = 1) -> Run:
        """What a transcript that is made with these options says of itself."""
        return Run(
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
