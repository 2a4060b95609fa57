"""How a recording becomes a transcript, by the model of this process or at a cluster's worker."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from app.audio.containers import AudioError
from app.audio.inputs import Recording
from app.audio.reading import open_audio
from app.cluster.work import SharedFile
from app.configuration import Configuration
from app.output.page import plays_as_it_is
from app.output.sound import Encoded
from app.output.spectrogram import Spectrogram

if TYPE_CHECKING:
    from app.api import SegmentStream, Transcriber, Transcript
    from app.cluster.engine import Place
    from models.decoding.options import DecodeOptions

_MOST_IN_A_PIECE = 16
_BYTES_IN_A_PIECE = 4 << 20


@dataclass(frozen=True)
class Heard:
    """A recording's transcript, and what a page needs beside it: PNGs of its spectrogram, its audio as WebM."""

    transcript: Transcript
    pictures: Sequence[bytes]
    webm: bytes | None


@dataclass(frozen=True)
class Hearing:
    """A recording that is being transcribed."""

    stream: SegmentStream
    drawn: Spectrogram | None
    encoded: Encoded | None

    def heard(self) -> Heard:
        """All of it."""
        transcript = self.stream.transcript()
        pictures = self.drawn.pictures() if self.drawn is not None else ()
        return Heard(transcript, pictures, self.encoded.webm() if self.encoded is not None else None)


@dataclass(frozen=True)
class Transcribing:
    """What every recording of a run is transcribed with.

    Attributes:
        pages: whether pages are written, which show a spectrogram.
        embed_audio: whether they hold the audio.
    """

    configuration: Configuration
    options: DecodeOptions
    batch_size: int
    allow_truncated: bool
    audio_track: str | None
    pages: bool
    embed_audio: bool

    def load(self, threads: int) -> Worker:
        """What a worker of a cluster does it with. Raises what `app.api.Transcriber.load` does."""
        return Worker(replace(self, configuration=replace(self.configuration, threads=threads)))

    def open(self, transcriber: Transcriber, source: str | BinaryIO, name: str, **told: Any) -> Hearing:
        """Read a recording, and make ready to decode it.

        Args:
            transcriber: of the configuration.
            source: its path, or a stream.
            name: what its user calls it.
            told: `on_progress` and `on_reading`, as `app.api.Transcriber.stream` takes them.

        Raises:
            AudioError: it can't be read.
        """
        audio = open_audio(source, name=name, allow_truncated=self.allow_truncated, track=self.audio_track)
        drawn = Spectrogram(audio) if self.pages else None
        encode = self.embed_audio and (self.audio_track is not None or not plays_as_it_is(name))
        encoded = Encoded(drawn or audio) if encode else None
        stream = transcriber.stream(
            encoded or drawn or audio, self.options, batch_size=self.batch_size, **told
        )
        return Hearing(stream, drawn, encoded)


class Worker:
    """A model at a cluster's worker."""

    def __init__(self, how: Transcribing) -> None:
        from app.api import Transcriber

        self._how = how
        self._transcriber = Transcriber.load(how.configuration)
        self.facts = self._transcriber.facts

    def run(self, recordings: Sequence[Recording], files: Sequence[SharedFile]) -> list[Heard | Exception]:
        """Each of some recordings, or why it can't be had."""
        done: list[Heard | Exception] = []
        for recording, file in zip(recordings, files, strict=True):
            try:
                with file.at_hand() as path:
                    done.append(self._how.open(self._transcriber, path, recording.name).heard())
            except (AudioError, OSError) as error:
                done.append(error)
        return done


def in_cluster(
    place: Place,
    how: Transcribing,
    transcriber: Transcriber,
    recordings: Iterable[Recording],
    *,
    count: int,
    send_audio: bool,
) -> Generator[tuple[Recording, Heard | Exception], None, None]:
    """Each recording with what became of it, in the order in which they are done.

    Of short recordings several are one piece of work, unless there are so few that workers would have none.

    Raises:
        app.cluster.engine.ClusterError: there is no cluster, or it is gone.
    """
    from app.cluster.engine import shared_out

    most = min(_MOST_IN_A_PIECE, 1 + count // 100)

    def pieces() -> Iterator[tuple[list[Recording], list[SharedFile]]]:
        some: list[Recording] = []
        files: list[SharedFile] = []
        for recording in recordings:
            some.append(recording)
            files.append(SharedFile.of(recording.name, send=send_audio))
            if len(some) >= most or sum(file.size or 0 for file in files) >= _BYTES_IN_A_PIECE:
                yield some, files
                some, files = [], []
        if some:
            yield some, files

    for (some, _), results in shared_out(place, how, transcriber.facts, pieces()):
        yield from zip(some, results if isinstance(results, list) else [results] * len(some), strict=True)
