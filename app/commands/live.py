"""`transcribe --live`: words while they are said, from a microphone or a pipe."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from app.audio.inputs import MICROPHONE, STANDARD_INPUT, Recording
from app.console import INTERRUPTED, say
from app.machine import give_memory_back
from app.output.writers import Output, write_segments

if TYPE_CHECKING:
    from app.api import Transcriber
    from app.live.transcriber import LiveText
    from models.decoding.options import DecodeOptions
    from models.decoding.segments import Segment, Word

_SENTENCE_ENDS = (".", "?", "!", "。", "？", "！")
_CLEAR = "\r\x1b[K"
_SHOWN = 100  # characters of what may still change


class _Lines:
    """Final words as lines: one for each sentence, or for each utterance where it has none."""

    def __init__(self) -> None:
        self._words: list[Word] = []
        self.count = 0

    @property
    def begun(self) -> str:
        """The words of the line that is not complete."""
        return "".join(word.word for word in self._words)

    def take(self, text: LiveText) -> Iterator[Segment]:
        """The lines that this completes."""
        for word in text.words:
            self._words.append(word)
            if word.word.endswith(_SENTENCE_ENDS):
                yield self._line()
        if text.closed and self._words:
            yield self._line()

    def _line(self) -> Segment:
        from models.decoding.segments import Segment

        words, self._words = tuple(self._words), []
        self.count += 1
        return Segment(
            id=self.count - 1,
            seek=0,
            start=words[0].start,
            end=words[-1].end,
            text="".join(word.word for word in words),
            tokens=(),
            temperature=0.0,
            avg_logprob=0.0,
            compression_ratio=1.0,
            no_speech_prob=0.0,
            words=words,
        )


def live_input(audio: Sequence[str] | None, output: Output) -> list[Recording]:
    """Where words are to come from.

    Raises:
        ValueError: from a file, or they are to go into a page.
    """
    if audio and audio != [STANDARD_INPUT]:
        raise ValueError("--live takes a microphone, or - for standard input; without it files are read")
    if output.has_pages:
        raise ValueError("--live writes no HTML pages")
    return [Recording(STANDARD_INPUT, Path("stdin")) if audio else Recording(MICROPHONE, Path(MICROPHONE))]


def transcribe_live(
    transcriber: Transcriber, options: DecodeOptions, source: Recording, output: Output, *, quiet: bool
) -> int:
    """Transcribe standard input until it ends, or the microphone until Ctrl-C; returns the exit code.

    Final lines go to standard output as they come, unless a format does; what may still change is redrawn below them
    on a terminal.

    Raises:
        app.audio.containers.AudioError: there is no microphone, or no such audio.
        OSError: files can't be written.
    """
    from app.api import Transcript
    from app.live.sources import microphone, piped

    piping = source.name == STANDARD_INPUT
    live = transcriber.live(options)
    segments: list[Segment] = []
    shown = not quiet and sys.stderr.isatty()
    ended = False

    def lost() -> None:
        _redraw("", shown)
        say("sound was lost: it comes faster than it is decoded here; a smaller model may keep up")

    blocks = piped(sys.stdin.buffer, "standard input") if piping else microphone(lost)

    def lines() -> Iterator[Segment]:
        nonlocal ended
        line = _Lines()

        def complete(told: Iterable[LiveText]) -> Iterator[Segment]:
            for text in told:
                for segment in line.take(text):
                    segments.append(segment)
                    yield segment
                _redraw((line.begun + text.partial).strip(), shown)
                if text.closed:
                    give_memory_back()

        try:
            for block in blocks:
                yield from complete(live.push(block, hurry=not piping))
        except KeyboardInterrupt:
            ended = True
        yield from complete(live.finish())
        _redraw("", shown)

    def show(text: str) -> None:
        _redraw("", shown)
        print(text, end="", flush=True)

    if not piping and not quiet:
        say("listening; Ctrl-C ends it")
    if output.printed is not None:
        write_segments(lines(), output.printed, output.layout, show)
    else:
        deque(lines(), maxlen=0)
    text = "".join(segment.text for segment in segments).strip()
    run = transcriber.described(options)
    whole = Transcript(text, tuple(segments), live.language, None, live.duration, run)
    for path in output.write(whole, source):
        if not quiet:
            say(f"wrote {path}")
    return INTERRUPTED if ended and piping else 0


def _redraw(text: str, shown: bool) -> None:
    """Show what may still change in the place of what was shown."""
    if shown:
        sys.stderr.write(_CLEAR + text[-_SHOWN:])
        sys.stderr.flush()
