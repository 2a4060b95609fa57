"""`transcribe`: recordings to text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from app.audio.containers import printable
from app.audio.inputs import STANDARD_INPUT, Recording, Recordings
from app.commands.live import live_input, transcribe_live
from app.commands.options import (
    LAST_SEED,
    MOST,
    MOST_AT_ONCE,
    MOST_BEAMS,
    TIME_LIMIT,
    BackendName,
    ContextOption,
    DeviceOption,
    ModelOption,
    ProgressOption,
    SchedulerOption,
    SendAudioOption,
    ThreadsOption,
    TileSizeOption,
    TimeLimitOption,
    VersionOption,
    WorkersOption,
    filled,
    place_of,
    temperatures,
    voice_activity,
)
from app.commands.recordings import Job
from app.configuration import Configuration
from app.console import FAILED, USAGE, edge, pass_on, say
from app.machine import share_one_heap
from app.output.writers import FORMATS, Layout, Output, formats
from app.transcribing import Transcribing
from kernels.backends import BACKENDS
from models.compute import ComputeType


def transcribe(
    context: typer.Context,
    audio: Annotated[
        list[str] | None,
        Argument(
            metavar="AUDIO...",
            help="Files, folders, patterns, manifests (.jsonl, .csv, .tsv); - reads standard input.",
            show_default=False,
        ),
    ] = None,
    live: Annotated[
        bool,
        Option(
            "--live",
            help="Words while they are said: from the microphone, or with - from a WAVE stream or raw 16-bit samples "
            "at 16 kHz on standard input.",
        ),
    ] = False,
    model: ModelOption = Configuration.model,
    backend: Annotated[
        BackendName,
        Option(
            help="What computes the encoder's attention. "
            + "; ".join(f"{b.name}: {b.summary}" for b in BACKENDS)
            + "."
        ),
    ] = Configuration.backend,
    device: DeviceOption = Configuration.device,
    tile_size: TileSizeOption = Configuration.tile_size,
    compute_type: Annotated[
        ComputeType,
        Option(
            help="What all else is computed in; auto is the fastest here that leaves the word error rate as it is."
        ),
    ] = Configuration.compute_type,
    audio_context: ContextOption = Configuration.audio_context,
    threads: ThreadsOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    send_audio: SendAudioOption = False,
    time_limit: TimeLimitOption = TIME_LIMIT,
    batch_size: Annotated[
        int,
        Option(
            min=1,
            max=MOST_AT_ONCE,
            help="Pieces to decode at once; over 1, recordings are cut where they are quiet.",
        ),
    ] = 1,
    output_dir: Annotated[
        str | None,
        Option("--output-dir", "-o", help="Folder to write files to; - writes to standard output."),
    ] = None,
    output_format: Annotated[
        str | None,
        Option(
            "--output-format",
            "-f",
            help=f"Write {', '.join(FORMATS[:-1])}, {FORMATS[-1]}, or all, these but html; into . unless -o is given.",
        ),
    ] = None,
    embed_audio: Annotated[
        bool, Option("--embed-audio", help="Put the recording into its HTML page, which else links to it.")
    ] = False,
    skip_existing: Annotated[
        bool,
        Option(
            "--skip-existing",
            help="Leave out recordings that have their files already, to go on with an interrupted run.",
        ),
    ] = False,
    progress: ProgressOption = None,
    verbose: Annotated[
        bool, Option("--verbose", help="Print each segment with its times, as openai-whisper does.")
    ] = False,
    version: VersionOption = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Say only what went wrong.")] = False,
    allow_truncated: Annotated[
        bool, Option("--allow-truncated", help="Transcribe what there is of files that end early.")
    ] = False,
    audio_track: Annotated[
        str | None,
        Option(
            metavar="N|LANGUAGE",
            help="Which of several audio tracks to read: its number, from 1, or language.",
        ),
    ] = None,
    language: Annotated[
        str | None,
        Option(
            "--language",
            "-l",
            help="Language of the speech: a code, tag or name; detected unless given, and by auto.",
        ),
    ] = None,
    task: Annotated[
        Literal["transcribe", "translate"], Option(help="Write what is said, or translate it into English.")
    ] = "transcribe",
    initial_prompt: Annotated[
        str | None, Option(help="Text to prompt the first window with: names, spelling.")
    ] = None,
    carry_initial_prompt: Annotated[
        bool, Option("--carry-initial-prompt", help="Put the initial prompt before every window.")
    ] = False,
    condition_on_previous_text: Annotated[
        bool, Option(help="Prompt each window with the text before it.")
    ] = True,
    temperature: Annotated[
        float, Option(min=0.0, max=10.0, help="Temperature to decode at first; 0 is greedy or beam search.")
    ] = 0.0,
    temperature_increment_on_fallback: Annotated[
        float | None,
        Option(
            min=0.0,
            max=10.0,
            help="How much higher to decode again where that fails, up to 1; 0: not at all.",
        ),
    ] = 0.2,
    best_of: Annotated[
        int | None, Option(min=1, max=MOST_BEAMS, help="How many samples to draw at temperatures over 0.")
    ] = 5,
    beam_size: Annotated[
        int | None,
        Option(
            min=1, max=MOST_BEAMS, help="How many beams to search with at temperature 0; greedy unless given."
        ),
    ] = None,
    patience: Annotated[
        float | None,
        Option(min=0.0, max=100.0, help="How patient beam search is (arxiv.org/abs/2204.05424)."),
    ] = None,
    length_penalty: Annotated[
        float | None,
        Option(
            min=0.0,
            max=1.0,
            help="Compare texts by this length penalty (arxiv.org/abs/1609.08144), not by their mean.",
        ),
    ] = None,
    suppress_tokens: Annotated[
        str,
        Option(help="Tokens never to use, by id, with commas; -1 stands for symbols that are not speech."),
    ] = "-1",
    seed: Annotated[
        int, Option(min=0, max=LAST_SEED, help="Seed to draw samples by; the same one draws the same.")
    ] = 0,
    clip_timestamps: Annotated[str, Option(help="Parts to read, in seconds: start,end,start,...")] = "0",
    compression_ratio_threshold: Annotated[
        float | None,
        Option(
            min=0.0,
            max=1000.0,
            help="Text whose compression ratio is over this is too repetitive, and decoded again.",
        ),
    ] = 2.4,
    logprob_threshold: Annotated[
        float | None,
        Option(
            min=-1000.0,
            max=1000.0,
            help="Text whose log-probability is under this is too improbable, and decoded again.",
        ),
    ] = -1.0,
    no_speech_threshold: Annotated[
        float | None,
        Option(
            min=0.0,
            max=1000.0,
            help="An improbable window whose probability of no speech is over this is silence.",
        ),
    ] = 0.6,
    hallucination_silence_threshold: Annotated[
        float | None,
        Option(min=0.0, max=MOST, help="Skip silence of so many seconds where a hallucination is likely."),
    ] = None,
    vad: Annotated[
        bool,
        Option(
            "--vad/--no-vad",
            "--vad-filter/--no-vad-filter",
            help="Decode only speech, as voice activity detection finds it.",
        ),
    ] = True,
    vad_threshold: Annotated[
        float, Option(min=0.0, max=1.0, help="Speech begins where its probability reaches this.")
    ] = 0.5,
    vad_neg_threshold: Annotated[
        float | None,
        Option(
            min=0.0,
            max=1.0,
            help="Speech ends where its probability is under this; 0.15 under the threshold unless given.",
        ),
    ] = None,
    vad_min_speech_duration_ms: Annotated[
        int, Option(min=0, max=60_000, help="Speech that is shorter is taken for none.")
    ] = 100,
    vad_min_silence_duration_ms: Annotated[
        int, Option(min=0, max=60_000, help="Silence that is shorter is read with the speech.")
    ] = 2000,
    vad_speech_pad_ms: Annotated[
        int, Option(min=0, max=60_000, help="How much before and after speech is read with it.")
    ] = 400,
    vad_recover: Annotated[bool, Option(help="Decode speech that got no text once more.")] = True,
    vad_drop_unspoken: Annotated[bool, Option(help="Drop text where nobody speaks.")] = True,
    vad_snap_ends: Annotated[
        bool, Option(help="Begin and end what is said beside a pause where the voice does.")
    ] = True,
    strict: Annotated[
        bool, Option("--strict", help="Exit with 1 where speech is left without text, or text loops.")
    ] = False,
    word_timestamps: Annotated[bool, Option("--word-timestamps", help="Time every word.")] = False,
    prepend_punctuations: Annotated[
        str, Option(help="Punctuation that belongs to the word after it.")
    ] = "\"'“¿([{-",
    append_punctuations: Annotated[
        str, Option(help="Punctuation that belongs to the word before it.")
    ] = "\"'.。,，!！?？:：”)]}、",
    highlight_words: Annotated[
        bool, Option("--highlight-words", help="Underline words as they are said.")
    ] = False,
    max_line_width: Annotated[
        int | None, Option(min=1, max=MOST, help="How many characters a line may have.")
    ] = None,
    max_line_count: Annotated[
        int | None, Option(min=1, max=MOST, help="How many lines a subtitle may have.")
    ] = None,
    max_words_per_line: Annotated[
        int | None, Option(min=1, max=MOST, help="How many words a line may have.")
    ] = None,
) -> None:
    """Transcribe recordings. The transcript alone goes to standard output; with -o or -f files are written."""
    given = context.params
    with edge(others={ValueError: USAGE, OSError: USAGE}):
        layout = filled(Layout, given)
        if layout != Layout() and not word_timestamps:
            raise ValueError("--highlight-words and the --max- options need --word-timestamps")
        folder = None if output_dir is None and output_format is None else output_dir or "."
        output = Output(folder, formats(output_format or "txt"), layout, embed_audio)
        if not audio and not live:
            raise ValueError("give recordings, or --live for a microphone")
        streams = live_input(audio, output) if live else []
        inputs = Recordings([] if live else audio or [])
        output.check(streams or inputs)
        place = place_of(workers, scheduler, threads, time_limit)
        if place is not None and (live or STANDARD_INPUT in (audio or [])):
            raise ValueError("a stream is read here: without --workers and --scheduler")
        configuration = filled(Configuration, given)
        from models.decoding.options import DecodeOptions

        tried = temperatures(temperature, temperature_increment_on_fallback)
        options = filled(DecodeOptions, given, temperature=tried, vad=voice_activity(vad, given))
    for problem in inputs.problems:
        say(f"error: {printable(problem)}")
    count, failed = len(inputs), len(inputs.problems)
    left: Iterable[Recording] = inputs
    if skip_existing:
        count = sum(not output.has(recording.stem) for recording in inputs)
        left = (recording for recording in inputs if not output.has(recording.stem))
        if count < len(inputs) and not quiet:
            say(f"{len(inputs) - count} already transcribed")
    if not count and not live:
        raise typer.Exit(FAILED if failed else 0)
    with edge("interrupted before the model was loaded"):
        pass_on(quiet)
        share_one_heap()
        if live and not audio:
            from app.live.sources import sound_library

            sound_library()
        from app.api import Transcriber

        transcriber = Transcriber.load(configuration)
        options.for_model(transcriber.weights.model)
    if not quiet:
        say(transcriber.description)
        if transcriber.context_note:
            say(transcriber.context_note)
    if live:
        with edge():
            raise typer.Exit(transcribe_live(transcriber, options, streams[0], output, quiet=quiet))
    progress = False if quiet and progress is None else progress
    how = filled(Transcribing, given, configuration=configuration, options=options, pages=output.has_pages)
    job = filled(Job, given, transcriber=transcriber, how=how, output=output, progress=progress)
    if place is None:
        raise typer.Exit(job.run(left, count, failed))
    with edge("interrupted; --skip-existing goes on from here"):
        raise typer.Exit(job.share_out(place, left, count, failed, send_audio=send_audio))
