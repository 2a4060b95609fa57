"""Audio in: whatever FFmpeg's libraries can read becomes 16 kHz mono float32 blocks, in bounded memory.

The samples are those of openai-whisper's load_audio (`ffmpeg -f s16le -ac 1 -ar 16000`, then / 32768): the
same libraries decode, mix and resample to 16-bit integers, here through PyAV, whose wheels carry them. What
releases of FFmpeg differ in (rounding: a few 16-bit steps; the trimming of AAC's end) differs here too.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Self, cast, runtime_checkable

from app.audio.containers import (
    AudioError,
    Progress,
    audio_track,
    declared_seconds,
    decoded_frames,
    not_numbers,
    open_container,
)
from app.audio.resampling import SAMPLE_RATE, block_size, joined, regrouped, resampled

if TYPE_CHECKING:  # both are imported where they are used: a command's --help must not wait for them
    import numpy as np
    from av.audio.frame import AudioFrame
    from numpy.typing import NDArray

__all__ = ["SAMPLE_RATE", "AudioError", "AudioSource", "array_blocks", "load_audio", "open_audio"]

SHORT_SECONDS = 0.5
"""Missing seconds that count as truncation. Priming, padding and rounded durations stay under 0.1 s."""

MAX_CHANNELS = 32
"""The channel axis of a 2-D array is the one that is at most this long."""


@runtime_checkable
class AudioSource(Protocol):
    """Audio that can be read in blocks, as often as wanted, until it is closed."""

    name: str
    """What its user called it."""

    def blocks(self, seconds: float = 30.0) -> Iterator[NDArray[np.float32]]:
        """Yield the audio from its start: float32 (n,) in [-1, 1], 16 kHz mono.

        Every block but the last is exactly `seconds` long (rounded to a sample); the last is shorter, never empty.

        Raises:
            ValueError: `seconds` holds no sample.
            AudioError: the rest can't be read, is not there, or holds NaN or infinity.
        """
        ...

    def close(self) -> None:
        """Let go of the input. A stream that the caller opened stays open."""
        return  # an array needs none

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_audio(
    source: str | os.PathLike[str] | BinaryIO, *, name: str | None = None, allow_truncated: bool = False
) -> AudioSource:
    """Open a file, by its path or as a binary stream, to be read with `AudioSource.blocks`.

    A stream that can seek is read from its very start; one that can't (a pipe) is first copied to a
    temporary file, since most containers can't be read in one pass. Of several audio tracks the default one
    is read, then the one with most channels, as FFmpeg's command does. Channels that FFmpeg has no rule to
    mix are averaged.

    A packet that can't be decoded is skipped, as FFmpeg's command does. Where the end is missing, AudioError
    follows the last block. That can be told only where a length is declared: WAVE unless it was streamed, FLAC,
    AIFF, AU, MP4 and M4A, Matroska and WebM unless streamed, MP3 with a Xing or VBRI header. Ogg, AAC (ADTS), other
    MP3, AVI, CAF, W64, WMA and MPEG-TS, and MP4 cut between two fragments, are just shorter.

    Args:
        source: the path or the stream.
        name: what to call it in messages; its path or own name unless given.
        allow_truncated: take what there is where the end is missing.

    Raises:
        AudioError: it is missing, unreadable, empty, not audio or without an audio track.
    """
    return _FileSource(source, name, allow_truncated)


def array_blocks(
    samples: NDArray[Any], sample_rate: int = SAMPLE_RATE, *, name: str = "array"
) -> AudioSource:
    """Give an array a file's interface. The array is not copied.

    16 kHz mono passes unchanged (integers divided by their full scale), all else is mixed and resampled as a
    file's samples are.

    Args:
        samples: (n,), (n, channels) or (channels, n): of two axes, the channels are the one of at most MAX_CHANNELS;
            float32 and float64 in [-1, 1], int16 and int32 of full scale.
        sample_rate: in Hz.
        name: what to call it in messages.

    Raises:
        AudioError: another dtype or number of axes; both axes, or neither, short enough to be channels; a rate that
            is not positive; no samples; NaN or infinity.
    """
    return _ArraySource(samples, sample_rate, name)


def load_audio(
    source: str | os.PathLike[str] | BinaryIO, *, name: str | None = None, allow_truncated: bool = False
) -> NDArray[np.float32]:
    """All of `open_audio(...).blocks()` in one array: float32 (n,), 16 kHz mono. Raises what they raise."""
    import numpy as np

    with open_audio(source, name=name, allow_truncated=allow_truncated) as audio:
        return np.concatenate(list(audio.blocks()))


class _FileSource(AudioSource):
    def __init__(
        self, source: str | os.PathLike[str] | BinaryIO, name: str | None, allow_truncated: bool
    ) -> None:
        self._allow_truncated = allow_truncated
        self._owned = isinstance(source, (str, os.PathLike))
        if isinstance(source, (str, os.PathLike)):
            self.name = os.fspath(source) if name is None else name
            self._stream = self._open(source)
        else:
            own = getattr(source, "name", None)
            self.name = name if name is not None else own if isinstance(own, str) else "audio"
            self._stream = source
        try:
            self._make_seekable()
            if self._stream.seek(0, os.SEEK_END) == 0:
                raise AudioError(self.name, "empty file" if self._owned else "empty input")
            with open_container(self._stream, self.name) as container:
                track = audio_track(container, self.name)
                self._declared = declared_seconds(container, track, self._stream)
        except OSError as error:
            self.close()
            raise self._unreadable(error) from error
        except BaseException:
            self.close()
            raise

    def _open(self, path: str | os.PathLike[str]) -> BinaryIO:
        try:
            return Path(path).open("rb")
        except (OSError, ValueError) as error:
            known = {
                FileNotFoundError: "no such file",
                NotADirectoryError: "no such file",
                ValueError: "no such file",  # a NUL in the name
                IsADirectoryError: "is a directory",
                PermissionError: "permission denied",
            }
            reason = known.get(type(error)) or f"can't be read: {getattr(error, 'strerror', None) or error}"
            raise AudioError(self.name, reason) from error

    def _unreadable(self, error: OSError) -> AudioError:
        return AudioError(self.name, f"can't be read: {error.strerror or error}")

    def _make_seekable(self) -> None:
        """Put a temporary file in the place of a stream that can't seek, or whose `read` is Python code.

        PyAV loses a KeyboardInterrupt that comes up in such a `read`; in Python's own streams none does.
        """
        source, owned = self._stream, self._owned
        seekable = source.seekable() if hasattr(source, "seekable") else False
        if seekable and type(source) in (io.BufferedReader, io.BufferedRandom, io.BytesIO, io.FileIO):
            return
        if seekable:
            source.seek(0)
        empty = source.read(1)
        self._stream = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115  # close() closes it
        self._owned = True
        try:
            self._stream.write(empty)
            shutil.copyfileobj(source, self._stream, 1 << 20)
        finally:
            if owned:
                source.close()
        if not empty:
            raise AudioError(self.name, "empty file" if owned else "empty input")

    def blocks(self, seconds: float = 30.0) -> Iterator[NDArray[np.float32]]:
        return self._blocks(block_size(seconds))

    def _blocks(self, size: int) -> Iterator[NDArray[np.float32]]:
        progress = Progress()
        some = False
        for block in regrouped(self._pieces(progress), size):
            some = True
            yield block
        if not some:
            found = progress.packets or self._declared
            lost = "nothing in it could be decoded: damaged, or not audio"
            raise AudioError(self.name, lost if found else "no samples")
        if self._allow_truncated or self._declared is None:
            return
        if progress.reached < self._declared - SHORT_SECONDS:
            raise AudioError(
                self.name,
                f"ends early: {progress.decoded:.1f} s of {self._declared:.1f} s could be decoded "
                "(--allow-truncated transcribes what is there)",
            )

    def _pieces(self, progress: Progress) -> Iterator[NDArray[np.float32]]:
        from av.error import FFmpegError

        try:
            with open_container(self._stream, self.name) as container:
                yield from resampled(joined(decoded_frames(container, self.name, progress)))
        except FFmpegError as error:
            raise AudioError(self.name, "its samples can't be mixed or resampled") from error
        except OSError as error:
            raise self._unreadable(error) from error

    def close(self) -> None:
        if self._owned:
            self._stream.close()


class _ArraySource(AudioSource):
    def __init__(self, samples: NDArray[Any], sample_rate: int, name: str) -> None:
        import numpy as np

        self.name = name
        if samples.dtype not in (np.float32, np.float64, np.int16, np.int32):
            raise AudioError(name, f"samples of type {samples.dtype}, not float32, float64, int16 or int32")
        if samples.ndim not in (1, 2):
            raise AudioError(name, f"{samples.ndim} axes, not (n,), (n, channels) or (channels, n)")
        if sample_rate <= 0:
            raise AudioError(name, f"a sample rate of {sample_rate} Hz")
        if samples.size == 0:
            raise AudioError(name, "no samples")
        if samples.ndim == 1:
            samples = samples[:, None]
        elif (samples.shape[0] <= MAX_CHANNELS) == (samples.shape[1] <= MAX_CHANNELS):
            raise AudioError(name, f"shape {samples.shape} does not tell which axis is the channels")
        elif samples.shape[0] <= MAX_CHANNELS:
            samples = samples.T
        self._samples = samples  # (n, channels)
        self._rate = sample_rate
        for second, piece in enumerate(self._pieces()):
            finite = np.isfinite(piece).all(axis=1)
            if not finite.all():
                raise not_numbers(name, second + int(finite.argmin()) / sample_rate)

    def blocks(self, seconds: float = 30.0) -> Iterator[NDArray[np.float32]]:
        plain = self._rate == SAMPLE_RATE and self._samples.shape[1] == 1
        return regrouped(self._unchanged() if plain else resampled(self._frames()), block_size(seconds))

    def _pieces(self) -> Iterator[NDArray[Any]]:
        return (self._samples[i : i + self._rate] for i in range(0, len(self._samples), self._rate))

    def _unchanged(self) -> Iterator[NDArray[np.float32]]:
        import numpy as np

        for piece in self._pieces():
            full_scale = 1.0 if piece.dtype.kind == "f" else 2.0 ** (8 * piece.itemsize - 1)
            yield (piece[:, 0] / full_scale).astype(np.float32)

    def _frames(self) -> Iterator[AudioFrame]:
        import numpy as np
        from av.audio.frame import AudioFrame

        form = {"int16": "s16", "int32": "s32"}.get(self._samples.dtype.name, "flt")
        dtype = np.dtype(np.float32) if form == "flt" else self._samples.dtype
        for piece in self._pieces():
            packed = np.ascontiguousarray(piece, dtype).reshape(1, -1)
            # As in a plain WAVE file, the channels' places are not declared: FFmpeg takes the usual ones.
            frame = AudioFrame.from_ndarray(packed, form, f"{piece.shape[1]} channels")
            frame.sample_rate = self._rate
            yield frame
