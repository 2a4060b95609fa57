"""Audio in: whatever FFmpeg's libraries can read becomes 16 kHz mono float32 blocks, in bounded memory.

The samples are those of openai-whisper's load_audio (`ffmpeg -f s16le -ac 1 -ar 16000`, then / 32768), which the same
libraries decode, mix and resample, here through PyAV, whose wheels carry them; but they stay in float32, and they lie
where the container's clock puts them. docs/inputs.md has what that means for files that are odd or damaged.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Self, cast, runtime_checkable

from app.audio.containers import (
    AudioError,
    audio_tracks,
    chosen_track,
    declared_seconds,
    described,
    open_container,
)
from app.audio.findings import Findings
from app.audio.headers import declared_samples, missing_share
from app.audio.resampling import (
    SAMPLE_RATE,
    Mixer,
    NotNumbersError,
    Sound,
    block_size,
    full_scale,
    joined,
    regrouped,
    resampled,
)
from app.audio.timeline import UNTIMED, Account, timed_frames
from models.temporary import NoRoomError, temporary_file

if TYPE_CHECKING:  # both are imported where they are used: a command's --help must not wait for them
    import numpy as np
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

    findings: Findings
    """What is odd about it; whole once all blocks have been taken."""

    expected_seconds: float | None = None
    """Its length, where that is more than a guess before all of it has been read."""

    def blocks(self, seconds: float = 30.0) -> Iterator[NDArray[np.float32]]:
        """Yield the audio from its start: float32 (n,), full scale 1.0, 16 kHz mono.

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
    source: str | os.PathLike[str] | BinaryIO,
    *,
    name: str | None = None,
    allow_truncated: bool = False,
    track: str | None = None,
) -> AudioSource:
    """Open a file, by its path or as a binary stream, to be read with `AudioSource.blocks`.

    A stream that can seek is read from its very start; one that can't (a pipe) is first copied to a
    temporary file, since most containers can't be read in one pass.

    Time is the container's: where it has no sound, and where the sound can't be decoded, there is silence. Where the
    end is missing, AudioError follows the last block. That can be told only where a length is declared: WAVE unless it
    was streamed, FLAC, AIFF, AU, CAF and W64, AVI, MP4 and M4A, Matroska and WebM unless streamed, MP3 with a Xing or
    VBRI header. Ogg, AAC (ADTS), other MP3, WMA and MPEG-TS, and MP4 cut between two fragments, are just shorter.

    Args:
        source: the path or the stream.
        name: what to call it in messages; its path or own name unless given.
        allow_truncated: take what there is where the end is missing.
        track: of several audio tracks the one with this number, from 1, or language (`en`, `eng`, `en-US`); the
            default one unless given, or the one with most channels.

    Raises:
        AudioError: it is missing, unreadable, empty, not audio or without such an audio track.
    """
    return _FileSource(source, name, allow_truncated, track)


def array_blocks(
    samples: NDArray[Any], sample_rate: int = SAMPLE_RATE, *, name: str = "array"
) -> AudioSource:
    """Give an array a file's interface. The array is not copied.

    16 kHz mono passes unchanged (integers divided by their full scale), all else is mixed and resampled as a
    file's samples are.

    Args:
        samples: (n,), (n, channels) or (channels, n): of two axes, the channels are the one of at most MAX_CHANNELS;
            float32 and float64 of full scale 1.0, int16 and int32 of their own.
        sample_rate: in Hz.
        name: what to call it in messages.

    Raises:
        AudioError: another dtype or number of axes; both axes, or neither, short enough to be channels; a rate that
            is not positive; no samples; NaN or infinity.
    """
    return _ArraySource(samples, sample_rate, name)


def load_audio(source: str | os.PathLike[str] | BinaryIO, **how: Any) -> NDArray[np.float32]:
    """All of `open_audio(source, ...).blocks()` in one array: float32 (n,), 16 kHz mono. Raises what they raise."""
    import numpy as np

    with open_audio(source, **how) as audio:
        return np.concatenate(list(audio.blocks()))


class _FileSource(AudioSource):
    def __init__(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        name: str | None,
        allow_truncated: bool,
        track: str | None,
    ) -> None:
        self.findings = Findings()
        self._allow_truncated = allow_truncated
        self._wanted = track
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
                tracks = audio_tracks(container, self.name)
                chosen = chosen_track(tracks, self.name, self._wanted)
                self._declared = declared_seconds(container, chosen, self._stream)
                self._examine(container.format.name, (container.duration or 0) / 1e6)
                self._others = described(tracks, without=chosen)
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
            if reason := known.get(type(error)):
                raise AudioError(self.name, reason) from error
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError | ValueError) -> AudioError:
        """What is wrong with the recording; an error that is none of its is raised as it is."""
        if isinstance(error, NoRoomError) or getattr(error, "errno", 0) in (errno.EMFILE, errno.ENFILE):
            raise error
        return AudioError(self.name, f"can't be read: {getattr(error, 'strerror', None) or error}")

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
            with temporary_file():
                self._stream.write(empty)
                shutil.copyfileobj(source, self._stream, 1 << 20)
        finally:
            if owned:
                source.close()
        if not empty:
            raise AudioError(self.name, "empty file" if owned else "empty input")

    def blocks(self, seconds: float = 30.0) -> Iterator[NDArray[np.float32]]:
        return self._blocks(block_size(seconds))

    def _examine(self, form: str, seconds: float) -> None:
        self._missing, self._understated = 0.0, ""
        if form == "mp3" and self._declared:
            share = missing_share(self._stream) or 0.0
            self._missing = self._declared * share if share < 0.5 else 0.0  # more is an end that is missing
        data = declared_samples(self._stream)
        if data is not None and data.rate:
            seconds = (data.size - data.begin) / data.rate
            if data.goes_on and data.seconds is not None:
                said = f"its header declares {data.seconds:.1f} s of {seconds:.1f} s"
                self._understated = f"{said}; all of it is read"
        if self._declared or form not in UNTIMED:
            self.expected_seconds = self._declared or seconds

    def _blocks(self, size: int) -> Iterator[NDArray[np.float32]]:
        account, mixer = Account(missing=self._missing), Mixer()
        self.findings = Findings()
        yield from self.findings.measured(regrouped(self._pieces(account, mixer), size))
        if not self.findings.samples:
            found = account.packets or self._declared
            lost = "nothing in it could be decoded: damaged, or not audio"
            raise AudioError(self.name, lost if found and not account.decoded else "no samples")
        self.findings.complete(mixer.cancelled, account.lost, account.seams, self._understated, self._others)
        if self._allow_truncated:
            return
        some, reason = f"{account.decoded:.1f} s", ""
        declared = max(self._declared or 0.0, account.promised)
        if account.broken_off:
            reason = f"damaged: nothing could be read after {some}"
        elif account.reached < declared - SHORT_SECONDS:
            reason = f"ends early: {some} of {declared:.1f} s could be decoded"
        if reason:
            raise AudioError(self.name, reason, "--allow-truncated transcribes what is there")

    def _pieces(self, account: Account, mixer: Mixer) -> Iterator[NDArray[np.float32]]:
        from av.error import FFmpegError

        try:
            with open_container(self._stream, self.name) as container:
                track = chosen_track(audio_tracks(container, self.name), self.name, self._wanted)
                frames = timed_frames(container, track, self._stream, account)
                yield from resampled(mixer.mono(joined(frames)))
        except NotNumbersError as error:
            raise AudioError(self.name, str(error)) from error
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
        self.findings = Findings()
        for _ in self._mono(Mixer()):  # NaN and infinity are refused at once
            pass

    def blocks(self, seconds: float = 30.0) -> Iterator[NDArray[np.float32]]:
        return self._blocks(block_size(seconds))

    def _blocks(self, size: int) -> Iterator[NDArray[np.float32]]:
        mixer = Mixer()
        self.findings = Findings()
        yield from self.findings.measured(regrouped(resampled(self._mono(mixer)), size))
        self.findings.complete(mixer.cancelled)

    def _mono(self, mixer: Mixer) -> Iterator[tuple[NDArray[np.float32], int] | float]:
        # As in a plain WAVE file, the channels' places are not declared: FFmpeg takes the usual ones.
        layout = f"{self._samples.shape[1]} channels"
        pieces = (self._samples[i : i + self._rate] for i in range(0, len(self._samples), self._rate))
        try:
            yield from mixer.mono(Sound(full_scale(piece.T), self._rate, layout) for piece in pieces)
        except NotNumbersError as error:
            raise AudioError(self.name, str(error)) from error
