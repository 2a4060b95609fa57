"""What `transcribe` does with recordings, one after the other or in a cluster, and what it says of each."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.audio.containers import AudioError, printable
from app.audio.inputs import STANDARD_INPUT, Recording
from app.cluster.work import WorkLostError
from app.console import FAILED, INTERRUPTED, bar, exit_code, lacking, line, say
from app.output.writers import Output, stamped, write_segments
from app.startup import interrupted
from app.transcribing import Heard, Transcribing, in_cluster

if TYPE_CHECKING:
    from app.api import Transcriber
    from app.cluster.engine import Place


@dataclass(frozen=True)
class Job:
    """One run over its inputs; the fields are the command's options of their names."""

    transcriber: Transcriber
    how: Transcribing
    output: Output
    progress: bool | None
    verbose: bool
    quiet: bool
    strict: bool

    def run(self, inputs: Iterable[Recording], count: int, failed: int) -> int:
        """Transcribe one after the other: one that fails does not stop the others; returns the exit code."""
        kinds: Counter[str] = Counter()
        named = count > 1 and (self.output.to_standard_output or self.output.folder is None)
        for done, recording in enumerate(inputs):
            left = f"{done} of {count} done, {count - done} left; --skip-existing goes on from here"
            try:
                if named and self.output.formats != ("json",):
                    self._show(f"{chr(10) if done else ''}==> {printable(recording.name)} <==\n")
                complete = self._one(recording)
                failed += self.strict and not complete
                if interrupted():
                    raise KeyboardInterrupt
            except BrokenPipeError:  # whoever read the transcript has seen enough
                return FAILED
            except KeyboardInterrupt:
                say(f"interrupted: {left}")
                return INTERRUPTED
            except Exception as error:
                if interrupted():  # what a library made of it
                    say(f"interrupted: {left}")
                    return INTERRUPTED
                if isinstance(error, AudioError):
                    say(f"error: {line(error)}")
                elif isinstance(error, OSError) and not lacking(error):
                    place = error.filename or self.output.folder or ""
                    say(f"error: {printable(f'{recording.name}: {error.strerror or error}: {place}')}")
                else:
                    # No other device takes the place of one that is lost: what the run says of itself would not be
                    # true.
                    code = exit_code(error)
                    if code is None:
                        raise
                    say(f"error: {printable(recording.name)}: {line(error)}\nstopped: {left}")
                    return code
                kinds[_kind(error)] += 1
        if count > 1:
            self._tell(kinds, count)
        return FAILED if failed or kinds else 0

    def share_out(
        self, place: Place, inputs: Iterable[Recording], count: int, failed: int, *, send_audio: bool
    ) -> int:
        """Have a cluster transcribe, and write what it makes of each recording; returns the exit code.

        Transcripts are printed where no files are written, in the order in which they are done.
        """
        kinds: Counter[str] = Counter()
        done = in_cluster(place, self.how, self.transcriber, inputs, count=count, send_audio=send_audio)
        with closing(done), bar(self.progress, total=count, unit="recordings") as shown:
            for recording, heard in done:
                shown.update()
                try:
                    if isinstance(heard, Exception):
                        raise heard
                    shown.clear()
                    for note in heard.transcript.notes:
                        say(f"{printable(recording.name)}: {note}")
                    self._print(recording, heard)
                    complete = self._finish(recording, heard)
                    failed += self.strict and not complete
                except (AudioError, OSError, WorkLostError) as error:
                    if isinstance(error, BrokenPipeError):
                        return FAILED
                    name = printable(recording.name)
                    say(f"error: {name}: {line(error).removeprefix(f'{name}: ')}")
                    kinds[_kind(error)] += 1
        self._tell(kinds, count)
        return FAILED if failed or kinds else 0

    def _tell(self, kinds: Counter[str], count: int) -> None:
        if kinds and not self.quiet:
            told = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common())
            say(f"{count - kinds.total():,} of {count:,} transcribed; failed: {told}")

    def _print(self, recording: Recording, heard: Heard) -> None:
        form = self.output.printed
        if form is not None and self.output.folder in (None, "-"):
            self._show(f"==> {printable(recording.name)} <==\n")
            write_segments(heard.transcript.segments, form, self.output.layout, self._show)

    def _one(self, recording: Recording) -> bool:
        """Transcribe; whether all speech has its text, as far as that is known."""
        standard_input = recording.name == STANDARD_INPUT
        shown_name = printable(recording.name)
        name = os.path.basename(shown_name)[:40]
        with bar(
            self.progress,
            desc=f"reading {name}",
            unit="s",
            bar_format="{desc}: {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} s [{elapsed}<{remaining}]",
        ) as shown:

            def read(done: float) -> None:
                shown.update(round(done) - shown.n)

            def moved(done: float, total: float) -> None:
                if shown.total is None:
                    shown.total, shown.n, shown.last_print_n = round(total), 0, 0
                    shown.set_description_str(name, refresh=False)
                shown.update(round(done) - shown.n)

            source = sys.stdin.buffer if standard_input else recording.name
            hearing = self.how.open(
                self.transcriber, source, recording.name, on_progress=moved, on_reading=read
            )
            stream = hearing.stream
            for note in stream.findings.notes:
                shown.clear()
                say(f"{shown_name}: {note}")

            def show(text: str) -> None:
                shown.clear()
                self._show(text)

            form = self.output.printed
            if self.verbose and not self.output.to_standard_output:
                for segment in stream:
                    if segment.text.strip():
                        show(f"{stamped(segment)}\n")
            elif form is not None:
                write_segments(stream, form, self.output.layout, show)
            heard = hearing.heard()
        return self._finish(recording, heard)

    def _finish(self, recording: Recording, heard: Heard) -> bool:
        """Say what is odd about a transcript, and write its files; whether all speech has its text."""
        transcript, shown_name = heard.transcript, printable(recording.name)
        if transcript.language_probability is not None and not self.quiet:
            say(f"{shown_name}: language {transcript.language} ({transcript.language_probability:.0%})")
        coverage = transcript.coverage
        clips = transcript.run.options.clips or (0.0,)
        begun = clips[0] < transcript.duration or not transcript.duration
        if coverage is not None and not coverage.speech and begun and not self.quiet:
            what = "it" if clips == (0.0,) else "the parts that are read of it"
            say(f"{shown_name}: nobody speaks in {what}; --no-vad decodes it all the same")
        left_over = coverage.left_over if coverage is not None else ()
        if left_over:
            say(f"{shown_name}: {'; '.join(map(str, left_over))}")
        for path in self.output.write(transcript, recording, heard.pictures, heard.webm):
            if not self.quiet:
                say(f"wrote {printable(str(path))}")
        return not left_over

    def _show(self, text: str) -> None:
        """Print; files are still to be written where the reader of standard output left."""
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            if self.output.folder in (None, "-"):
                raise


def _kind(error: Exception) -> str:
    """What went wrong, without where and how much of it."""
    text = error.reason if isinstance(error, AudioError) else getattr(error, "strerror", None) or str(error)
    return re.split(r"[:;(\d]", text)[0].strip()
