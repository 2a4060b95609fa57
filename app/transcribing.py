"""A run of `transcribe` over its inputs: one that fails does not stop the others, a device that fails does."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.audio.inputs import STANDARD_INPUT, Recording
from app.console import FAILED, INTERRUPTED, LACKING, USAGE, say, stop
from app.output.writers import Output

if TYPE_CHECKING:
    from app.api import Transcriber
    from models.decoding.options import DecodeOptions


@dataclass(frozen=True)
class Job:
    """One run over its inputs.

    Attributes:
        transcriber: model and backend.
        options: how to decode.
        output: where transcripts go.
        batch_size: windows decoded at once.
        allow_truncated: take what there is of files that end early.
        bar: whether to show progress.
        quiet: whether to say only what went wrong.
    """

    transcriber: Transcriber
    options: DecodeOptions
    output: Output
    batch_size: int
    allow_truncated: bool
    bar: bool
    quiet: bool

    def run(self, inputs: list[Recording], failed: int) -> int:
        """Transcribe one after the other; returns the exit code."""
        from app.audio.reading import AudioError
        from kernels.device import DeviceError
        from models.decoding.options import OptionsError

        for done, recording in enumerate(inputs):
            try:
                self._one(recording)
            except OptionsError as error:
                stop(str(error), USAGE)
            except AudioError as error:
                say(f"error: {error}")
                failed += 1
            except DeviceError as error:
                # No other device takes its place: what the run says of itself would no longer be true.
                say(f"error: {recording.name}: {error}")
                say(
                    f"stopped: {done} of {len(inputs)} done, {len(inputs) - done} left; "
                    "--skip-existing goes on from here"
                )
                return LACKING
            except BrokenPipeError:
                # Whoever read the transcript has seen enough.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return FAILED
            except OSError as error:
                say(
                    f"error: {recording.name}: {error.strerror or error}: {error.filename or self.output.folder or ''}"
                )
                failed += 1
            except KeyboardInterrupt:
                rest = len(inputs) - done
                say(
                    f"interrupted: {done} of {len(inputs)} done, {rest} left; --skip-existing goes on from here"
                )
                return INTERRUPTED
        return FAILED if failed else 0

    def _one(self, recording: Recording) -> None:
        from tqdm import tqdm

        standard_input = recording.name == STANDARD_INPUT
        with tqdm(
            desc=os.path.basename(recording.name)[:40],
            unit="s",
            disable=not self.bar,
            leave=False,
            bar_format="{desc}: {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} s [{elapsed}<{remaining}]",
        ) as bar:

            def moved(done: float, total: float) -> None:
                bar.total = round(total)
                bar.update(round(done) - bar.n)

            stream = self.transcriber.stream(
                sys.stdin.buffer if standard_input else recording.name,
                self.options,
                batch_size=self.batch_size,
                name=recording.name,
                allow_truncated=self.allow_truncated,
                on_progress=moved,
            )
            for segment in stream:
                text = segment.text.strip()
                if text and not self.output.to_standard_output:
                    bar.clear()
                    print(text, flush=True)
            transcript = stream.transcript()
        if transcript.language_probability is not None and not self.quiet:
            say(f"{recording.name}: language {transcript.language} ({transcript.language_probability:.0%})")
        for path in self.output.write(transcript, recording.stem):
            if not self.quiet:
                say(f"wrote {path}")
