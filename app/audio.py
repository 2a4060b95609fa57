"""Audio in: whatever FFmpeg's libraries can read becomes 16 kHz mono float32 blocks, in bounded memory.

The samples are those of openai-whisper's load_audio (`ffmpeg -f s16le -ac 1 -ar 16000`, then / 32768): the
same libraries decode, mix and resample to 16-bit integers, here through PyAV, whose wheels carry them. What
releases of FFmpeg differ in (rounding: a few 16-bit steps; the trimming of AAC's end) differs here too.
"""

from __future__ import annotations

import io
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Self, cast

if TYPE_CHECKING:  # both are imported where they are used: a command's --help must not wait for them
    import numpy as np
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from numpy.typing import NDArray

__all__ = ["SAMPLE_RATE", "AudioError", "AudioSource", "array_blocks", "load_audio", "open_audio"]

SAMPLE_RATE = 16000
"""Samples a second of every block."""

SHORT_SECONDS = 0.5
"""Missing seconds that count as truncation. Priming, padding and rounded durations stay under 0.1 s."""

MAX_CHANNELS = 32
"""The channel axis of a 2-D array is the one that is at most this long."""

# Demuxers of playlists (they open other files and addresses), devices, pictures and plain text.
_NOT_MEDIA = re.compile(
    "alsa|concat|dash|fbdev|ffmetadata|hls|image2|image2pipe|imf|kmsgrab|lavfi|oss|rtp|rtsp|sap|sdp|tty|"
    "video4linux2,v4l2|webm_dash_manifest|x11grab|.*_pipe"
)
_NOT_AUDIO = "not audio that FFmpeg's libraries can read"


class AudioError(Exception):
    """Input that can't be transcribed. `str()` is one line, `name: reason`; `name` is its user's own."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        # A file's name may hold line breaks, or bytes that are not text.
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in self.name)
        return f"{shown}: {self.reason}"


class AudioSource(Protocol):
    """Audio that can be read in blocks, as often as wanted, until it is closed."""

    name: str
    """What its user called it."""
    duration: float | None
    """Seconds: as declared by the file, or else FFmpeg's estimate from its size, or None."""
    truncated: bool
    """Whether the last complete reading found less than was declared (only with `allow_truncated`)."""

    def blocks(self, seconds: float = 30.0) -> Iterator[NDArray[np.float32]]:
        """Yield the audio from its start: float32 (n,) in [-1, 1], 16 kHz mono.

        Every block but the last is exactly `seconds` long (rounded to a sample); the last is shorter, never
        empty. Raises ValueError where `seconds` holds no sample, and AudioError.
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

    Raises AudioError: here for input that is missing, unreadable, empty, not audio or without an audio track;
    from `blocks` for NaN or infinity among the samples, and where there are none. A packet that can't be
    decoded is skipped, as FFmpeg's command does. Where the end is missing, AudioError follows the last block,
    or with `allow_truncated` the source's `truncated` is set. That can be told only where a length is
    declared: WAVE unless it was streamed, FLAC, AIFF, AU, MP4 and M4A, Matroska and WebM unless streamed, MP3
    with a Xing or VBRI header. Ogg, AAC (ADTS), other MP3, AVI, CAF, W64, WMA and MPEG-TS, and MP4 cut
    between two fragments, are just shorter.
    """
    return _FileSource(source, name, allow_truncated)


def array_blocks(
    samples: NDArray[Any], sample_rate: int = SAMPLE_RATE, *, name: str = "array"
) -> AudioSource:
    """Give an array a file's interface. The array is not copied.

    float32 and float64 are in [-1, 1], int16 and int32 of full scale. The shape is (n,), (n, channels) or
    (channels, n): of two axes, the channels are the one of at most MAX_CHANNELS. 16 kHz mono passes unchanged
    (integers divided by their full scale), all else is mixed and resampled as a file's samples are.

    Raises AudioError: another dtype or number of axes; both axes, or neither, short enough to be channels; a
    rate that is not positive; no samples; NaN or infinity.
    """
    return _ArraySource(samples, sample_rate, name)


def load_audio(
    source: str | os.PathLike[str] | BinaryIO, *, name: str | None = None, allow_truncated: bool = False
) -> NDArray[np.float32]:
    """All of `open_audio(...).blocks()` in one array: float32 (n,), 16 kHz mono. Raises what they raise."""
    import numpy as np

    with open_audio(source, name=name, allow_truncated=allow_truncated) as audio:
        return np.concatenate(list(audio.blocks()))


class _Progress:
    """One reading's account: packets met, seconds decoded, seconds that the file's own clock advanced."""

    packets = 0
    decoded = 0.0
    reached = 0.0


class _FileSource(AudioSource):
    def __init__(
        self, source: str | os.PathLike[str] | BinaryIO, name: str | None, allow_truncated: bool
    ) -> None:
        self.truncated = False
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
            with self._container() as container:
                track = self._track(container)
                self._declared = _declared_seconds(container, track, self._stream)
                self.duration = self._declared or _seconds(track) or (container.duration or 0) / 1e6 or None
        except OSError as error:
            self.close()
            raise self._unreadable(error) from error
        except BaseException:
            self.close()
            raise

    def _open(self, path: str | os.PathLike[str]) -> BinaryIO:
        try:
            return Path(path).open("rb")
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
            raise AudioError(self.name, "no such file") from error
        except IsADirectoryError as error:
            raise AudioError(self.name, "is a directory") from error
        except PermissionError as error:
            raise AudioError(self.name, "permission denied") from error
        except OSError as error:
            raise self._unreadable(error) from error

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

    def _container(self) -> InputContainer:
        """A demuxer at the start of the stream."""
        import av

        self._stream.seek(0)
        demuxers = ",".join(sorted(f for f in av.formats_available if not _NOT_MEDIA.fullmatch(f)))
        try:
            return av.open(
                self._stream, "r", container_options={"format_whitelist": demuxers}, metadata_errors="replace"
            )
        except av.error.FFmpegError as error:
            self._stream.seek(4)
            cut = self._stream.read(4) == b"ftyp"
            reason = "damaged or cut short: its index (moov) can't be read" if cut else _NOT_AUDIO
            raise AudioError(self.name, reason) from error

    def _track(self, container: InputContainer) -> AudioStream:
        from av.stream import Disposition

        if not container.streams.audio:
            video = any(not s.disposition & Disposition.attached_pic for s in container.streams.video)
            raise AudioError(self.name, "no audio track" if video else _NOT_AUDIO)
        decodable = [s for s in container.streams.audio if s.codec_context is not None]
        if not decodable:
            raise AudioError(self.name, "its audio is in a format that FFmpeg's libraries can't decode")
        return max(decodable, key=lambda s: (bool(s.disposition & Disposition.default), s.channels))

    def blocks(self, seconds: float = 30.0) -> Iterator[NDArray[np.float32]]:
        return self._blocks(_block_size(seconds))

    def _blocks(self, size: int) -> Iterator[NDArray[np.float32]]:
        progress = _Progress()
        some = False
        for block in _regrouped(self._pieces(progress), size):
            some = True
            yield block
        if not some:
            found = progress.packets or self._declared
            lost = "nothing in it could be decoded: damaged, or not audio"
            raise AudioError(self.name, lost if found else "no samples")
        self.truncated = self._declared is not None and progress.reached < self._declared - SHORT_SECONDS
        if self.truncated and not self._allow_truncated:
            raise AudioError(
                self.name,
                f"ends early: {progress.decoded:.1f} s of {self._declared:.1f} s could be decoded "
                "(--allow-truncated transcribes what is there)",
            )

    def _pieces(self, progress: _Progress) -> Iterator[NDArray[np.float32]]:
        from av.error import FFmpegError

        try:
            with self._container() as container:
                yield from _resampled(_joined(self._frames(container, progress)))
        except FFmpegError as error:
            raise AudioError(self.name, "its samples can't be mixed or resampled") from error
        except OSError as error:
            raise self._unreadable(error) from error

    def _frames(self, container: InputContainer, progress: _Progress) -> Iterator[AudioFrame]:
        """Decode packet by packet, keep the account, and refuse samples that are not numbers."""
        from av.error import FFmpegError

        track = self._track(container)
        # Matroska declares the length of the whole file, on its clock; others a track's, from its own start.
        whole = "matroska" in container.format.name
        start = 0.0 if whole or track.start_time is None else float(track.start_time * (track.time_base or 0))
        packets: Iterator[Any] = container.demux() if whole else container.demux(track)
        end = start
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError:  # FFmpeg's command, too, makes do with what came before
                return
            if packet is None:
                return
            if packet.stream_index != track.index:
                if packet.pts is not None:
                    passed = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    progress.reached = max(progress.reached, passed)
                continue
            progress.packets += packet.size > 0
            try:
                frames = packet.decode()
            except FFmpegError:
                continue
            for frame in frames:
                _check_finite(frame, self.name, progress.decoded)
                length = frame.samples / frame.sample_rate
                end = (end if frame.time is None else frame.time) + length
                progress.reached = max(progress.reached, end - start)
                progress.decoded += length
                yield frame

    def close(self) -> None:
        if self._owned:
            self._stream.close()


class _ArraySource(AudioSource):
    def __init__(self, samples: NDArray[Any], sample_rate: int, name: str) -> None:
        import numpy as np

        self.name = name
        self.truncated = False
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
        self.duration = len(samples) / sample_rate
        for second, piece in enumerate(self._pieces()):
            finite = np.isfinite(piece).all(axis=1)
            if not finite.all():
                raise _not_numbers(name, second + int(finite.argmin()) / sample_rate)

    def blocks(self, seconds: float = 30.0) -> Iterator[NDArray[np.float32]]:
        plain = self._rate == SAMPLE_RATE and self._samples.shape[1] == 1
        return _regrouped(self._unchanged() if plain else _resampled(self._frames()), _block_size(seconds))

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


def _block_size(seconds: float) -> int:
    size = round(seconds * SAMPLE_RATE) if math.isfinite(seconds) else 0
    if size < 1:
        raise ValueError(f"a block of {seconds} s holds no samples")
    return size


def _regrouped(pieces: Iterator[NDArray[np.float32]], size: int) -> Iterator[NDArray[np.float32]]:
    """Pieces of any length as blocks of `size` samples; no more than one block is held."""
    import numpy as np

    block = np.empty(size, np.float32)
    filled = 0
    for piece in pieces:
        start = 0
        while start < len(piece):
            taken = min(size - filled, len(piece) - start)
            block[filled : filled + taken] = piece[start : start + taken]
            filled += taken
            start += taken
            if filled == size:
                yield block
                block = np.empty(size, np.float32)
                filled = 0
    if filled:
        yield block[:filled]


def _joined(frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
    """Frames of about a second, each of one format.

    PyAV's resampler can lose a KeyboardInterrupt at the end of each call. With a codec's own frames of 20 ms
    one in ten was lost, with these one in a hundred.
    """
    from av.audio.fifo import AudioFifo

    fifo = AudioFifo()
    last = None
    for frame in frames:
        form = _form(frame)
        if form != last and fifo.samples:
            yield cast("AudioFrame", fifo.read())
        if form != last:
            fifo, last = AudioFifo(), form
        frame.pts = None
        fifo.write(frame)
        if fifo.samples >= frame.sample_rate:
            yield cast("AudioFrame", fifo.read())
    if fifo.samples:
        yield cast("AudioFrame", fifo.read())


def _form(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _resampled(frames: Iterator[AudioFrame]) -> Iterator[NDArray[np.float32]]:
    """Frames of any format as 16 kHz mono pieces; a change of format on the way starts a new resampler."""
    from av.audio.resampler import AudioResampler
    from av.error import FFmpegError

    resampler: AudioResampler | None = None
    last = None
    for frame in frames:
        form = _form(frame)
        if resampler is not None and form == last:
            yield from _samples(resampler, frame)
            continue
        if resampler is not None:
            yield from _samples(resampler, None)
        last = form
        resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        try:
            yield from _samples(resampler, frame)
        except FFmpegError:  # no rule mixes these channels (9 of them, ambisonics): all count the same
            resampler = AudioResampler(format="flt", layout=frame.layout, rate=SAMPLE_RATE)
            yield from _samples(resampler, frame)
    if resampler is not None:
        yield from _samples(resampler, None)


def _samples(resampler: AudioResampler, frame: AudioFrame | None) -> Iterator[NDArray[np.float32]]:
    import numpy as np

    for out in resampler.resample(frame):
        if out is None:  # a flush where there was nothing to resample
            continue
        values = out.to_ndarray()
        if values.dtype == np.int16:
            yield values[0].astype(np.float32) / 32768.0
        else:
            yield values.reshape(-1, out.layout.nb_channels).mean(axis=1, dtype=np.float32)


def _check_finite(frame: AudioFrame, name: str, seconds: float) -> None:
    """Raise where a float frame, `seconds` into the audio, holds NaN or infinity: 16 bits would hide it."""
    import numpy as np

    if not frame.format.name.startswith(("flt", "dbl")):
        return
    finite = np.isfinite(frame.to_ndarray())
    if not finite.all():
        finite = finite.T if frame.format.is_planar else finite.reshape(frame.samples, -1)
        raise _not_numbers(name, seconds + int(finite.all(axis=1).argmin()) / frame.sample_rate)


def _not_numbers(name: str, seconds: float) -> AudioError:
    return AudioError(name, f"samples that are not numbers (NaN or infinity) at {seconds:.2f} s")


def _seconds(track: AudioStream) -> float | None:
    return float(track.duration * track.time_base) if track.duration and track.time_base else None


def _declared_seconds(container: InputContainer, track: AudioStream, stream: BinaryIO) -> float | None:
    """The length that the file itself declares; FFmpeg's figure may be a guess from the file's size."""
    form = container.format.name
    own, whole = _seconds(track), container.duration / 1e6 if container.duration else None
    if form == "wav":
        return _cut_wave_seconds(stream)
    if form in ("flac", "aiff", "au") or (form == "mp3" and _counts_frames(stream)):
        return own
    if "matroska" in form:
        return whole
    if "mp4" in form.split(","):
        return min(own, whole) if own and whole else own  # an edit list may leave out some of the track
    return None


def _cut_wave_seconds(stream: BinaryIO) -> float | None:
    """Seconds that a WAVE file's header declares, where the file holds less: FFmpeg would hide that.

    A writer to a pipe can't know the size and puts 0, or something from about 2^31 up to 2^32 - 1.
    """
    size = stream.seek(0, os.SEEK_END)
    bytes_a_second = 0.0
    wide = 0  # the size of the samples in RF64
    at = 12
    for _ in range(1000):  # far more chunks than any file has
        stream.seek(at)
        head = stream.read(8)
        kind, length = head[:4], int.from_bytes(head[4:], "little")
        at += 8
        if kind == b"ds64":
            wide = int.from_bytes(stream.read(16)[8:], "little")
        elif kind == b"fmt ":
            form = stream.read(20).ljust(20, b"\0")
            tag, rate, block, in_block = (
                int.from_bytes(form[a:b], "little") for a, b in ((0, 2), (4, 8), (12, 14), (18, 20))
            )
            if tag in (1, 3, 6, 7, 0xFFFE):  # PCM of all kinds: a block is one sample of each channel
                in_block = 1
            elif tag not in (2, 0x11, 0x31):  # ADPCM and GSM say how many it is; others do not
                in_block = 0
            bytes_a_second = rate * block / in_block if in_block else 0.0
        elif kind == b"data":
            if length == 0xFFFFFFFF:
                length = wide
            elif length >= 0x7FFF0000:
                return None
            return length / bytes_a_second if bytes_a_second and at + length > size else None
        at += length + length % 2
    return None


def _counts_frames(stream: BinaryIO) -> bool:
    """Whether an MP3's first frame carries a count of frames (Xing, Info or VBRI header)."""
    stream.seek(0)
    head = stream.read(10)
    start = 0
    if head[:3] == b"ID3":  # a tag, its length in four 7-bit bytes
        start = 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False))
    stream.seek(start)
    header = re.search(rb"(?:Xing|Info)...(.)|VBRI", stream.read(1024), re.DOTALL)
    return header is not None and (header[1] is None or bool(header[1][0] & 1))
