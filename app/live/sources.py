"""Where a stream of samples comes from: a pipe, or a microphone."""

from __future__ import annotations

import queue
import wave
from collections.abc import Callable, Generator, Iterator
from typing import Any, BinaryIO

import numpy as np

from app.audio.containers import AudioError
from app.audio.inputs import MICROPHONE
from app.audio.resampling import SAMPLE_RATE, Mixer, NotNumbersError, Sound, full_scale, resampled
from kernels.arrays import Reals

__all__ = ["MicrophoneError", "microphone", "piped"]


_BLOCK_SECONDS = 0.1
_MOST_WAITING = 600  # blocks of a microphone: a minute


class MicrophoneError(AudioError):
    """There is no microphone, or what it is reached through is not here."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(MICROPHONE, reason, remedy)


class _Replayed:
    """A stream of which the first bytes were read already."""

    def __init__(self, first: bytes, stream: BinaryIO) -> None:
        self._first, self._stream = first, stream

    def read(self, size: int = -1) -> bytes:
        first, self._first = self._first[:size], self._first[size:]
        return first + self._stream.read(size - len(first))

    def close(self) -> None:
        return


def piped(stream: BinaryIO, name: str) -> Iterator[Reals]:
    """Mono samples at 16 kHz as they come: of a WAVE stream of any rate, else of raw 16-bit samples at 16 kHz.

    Raises:
        AudioError: the stream is WAVE, but not of 8, 16 or 32-bit integers.
    """
    first = stream.read(4)
    sounds = _wave(_Replayed(first, stream), name) if first == b"RIFF" else _raw(_Replayed(first, stream))
    try:
        yield from resampled(Mixer().mono(sounds))
    except NotNumbersError as error:
        raise AudioError(name, str(error)) from error


def _raw(stream: Any) -> Generator[Sound]:
    size = 2 * round(_BLOCK_SECONDS * SAMPLE_RATE)
    while data := stream.read(size):
        yield Sound(full_scale(np.frombuffer(data[: len(data) & ~1], "<i2")[None]), SAMPLE_RATE, "mono")


def _wave(stream: Any, name: str) -> Generator[Sound]:
    try:
        with wave.open(stream) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            kind = {1: "u1", 2: "<i2", 4: "<i4"}.get(width)
            if kind is None:
                raise wave.Error(f"samples of {8 * width} bits")
            while data := file.readframes(max(1, round(_BLOCK_SECONDS * rate))):
                whole = len(data) - len(data) % (channels * width)
                samples = np.frombuffer(data[:whole], kind).reshape(-1, channels).T
                yield Sound(full_scale(samples), rate, f"{channels} channels")
    except (wave.Error, EOFError) as error:
        problem = str(error) or "its header is cut"
        reason = f"a WAVE stream that can't be read as it comes: {problem}"
        raise AudioError(name, f"{reason}; give 16-bit PCM") from error


def sound_library() -> Any:
    """`sounddevice`, through which a microphone is reached.

    Raises:
        MicrophoneError: it is not installed, or the system's library below it is not.
    """
    try:
        import sounddevice
    except ImportError as error:
        remedy = "python -m pip install 'tilescribe[live]'"
        raise MicrophoneError("it is reached through sounddevice, which is not here", remedy) from error
    except OSError as error:  # the library below it
        remedy = "install PortAudio (Debian: apt install libportaudio2)"
        raise MicrophoneError(str(error), remedy) from error
    return sounddevice


class Microphone:
    """The default microphone, at 16 kHz mono.

    Attributes:
        lost: whether sound came while a minute was waiting already, or faster than it could be taken at all.
    """

    def __init__(self) -> None:
        """Open it.

        Raises:
            MicrophoneError: there is none, or what it is reached through is not installed.
        """
        sounddevice = sound_library()
        self.lost = False
        self._waiting: queue.Queue[Reals] = queue.Queue(_MOST_WAITING)
        try:
            self._stream = sounddevice.InputStream(
                samplerate=SAMPLE_RATE,
                channels=1,
                dtype="float32",
                blocksize=round(_BLOCK_SECONDS * SAMPLE_RATE),
                callback=self._came,
            )
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise MicrophoneError(f"it can't be opened: {error}") from error

    def _came(self, samples: Reals, _: int, __: Any, status: Any) -> None:
        if status and status.input_overflow:
            self.lost = True
        try:
            self._waiting.put_nowait(samples[:, 0].copy())
        except queue.Full:
            self.lost = True

    def take(self) -> Reals:
        """All that has come since, at least one block."""
        blocks = [self._waiting.get()]
        while True:
            try:
                blocks.append(self._waiting.get_nowait())
            except queue.Empty:
                return np.concatenate(blocks)

    def close(self) -> None:
        """Let go of it."""
        self._stream.close()


def microphone(on_lost: Callable[[], None]) -> Generator[Reals]:
    """All that has come since the last time, for ever; `on_lost` is called once where some was lost."""
    opened, told = Microphone(), False
    try:
        while True:
            yield opened.take()
            if opened.lost and not told:
                told = True
                on_lost()
    finally:
        opened.close()
