"""`evaluate`: WER of the backends on a data set, with its uncertainty, and a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from app.commands.options import (
    LAST_SEED,
    MOST,
    MOST_AT_ONCE,
    MOST_BEAMS,
    TIME_LIMIT,
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
from app.configuration import Configuration
from app.console import FAILED, LACKING, USAGE, edge, pass_on, say, stop
from app.machine import share_one_heap
from kernels.backends import BACKEND_NAMES, DEFAULT, REFERENCE, RIVAL, find
from models.compute import ComputeType

# What judging takes, whether the records are new or old.
Limits = Annotated[Path | None, Option(help="TOML file with the verdict's limits.", dir_okay=False)]
Margin = Annotated[
    float | None, Option(min=0.0, max=100.0, help="How many points of WER a candidate may lose.")
]
Bench = Annotated[
    Path | None,
    Option(help="JSON of `tilescribe bench`: its latency and energy go into the report.", dir_okay=False),
]
Replications = Annotated[int, Option(min=100, max=MOST, help="How often the bootstrap draws.")]
Gate = Annotated[bool, Option("--gate", help="Exit with 3 for HOLD and 4 for INCONCLUSIVE.")]


def evaluate(
    context: typer.Context,
    dataset: Annotated[
        str,
        Option(
            help="A manifest (.jsonl, .csv, .tsv), or librispeech-test-clean, -test-other, -dev-clean, -dev-other."
        ),
    ],
    data_dir: Annotated[
        Path | None,
        Option(help="Folder of the set, LibriSpeech or the one above it; the user's cache unless given."),
    ] = None,
    backends: Annotated[
        str,
        Option(
            help=f"Which of {', '.join(BACKEND_NAMES)} to run, with commas; the others are held against {REFERENCE}."
        ),
    ] = ",".join((REFERENCE, DEFAULT, RIVAL)),
    model: ModelOption = Configuration.model,
    device: DeviceOption = Configuration.device,
    tile_size: TileSizeOption = Configuration.tile_size,
    output_dir: Annotated[
        Path | None,
        Option(
            "--output-dir", "-o", help="Folder of records and report; evaluations/DATASET_MODEL unless given."
        ),
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Go on with an interrupted run.")] = False,
    limit: Annotated[
        int | None,
        Option(min=1, max=MOST, help="Take only so many utterances, which the report calls a part."),
    ] = None,
    batch_size: Annotated[
        int, Option(min=1, max=MOST_AT_ONCE, help="How many utterances to decode at once.")
    ] = 8,
    threads: ThreadsOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    send_audio: SendAudioOption = False,
    time_limit: TimeLimitOption = TIME_LIMIT,
    compute_type: Annotated[
        ComputeType,
        Option(
            help="What all but integer attention is computed in; with float32, cpu is the FP32 reference."
        ),
    ] = "float32",
    audio_context: ContextOption = Configuration.audio_context,
    language: Annotated[
        str, Option(help="Language of the data set; auto detects it for each utterance.")
    ] = "en",
    without_timestamps: Annotated[
        bool, Option("--without-timestamps", help="Decode text alone, without timestamps.")
    ] = False,
    beam_size: Annotated[
        int | None, Option(min=1, max=MOST_BEAMS, help="How many beams to search with; greedy unless given.")
    ] = None,
    temperature_increment_on_fallback: Annotated[
        float | None,
        Option(
            min=0.0,
            max=10.0,
            help="How much higher to decode again where that fails; not at all unless given.",
        ),
    ] = None,
    vad: Annotated[bool, Option(help="Decode only what voice activity detection calls speech.")] = False,
    streaming: Annotated[
        bool, Option("--streaming", help="Feed each recording as a stream as well, and compare.")
    ] = False,
    limits: Limits = None,
    margin: Margin = None,
    bench: Bench = None,
    replications: Replications = 10_000,
    seed: Annotated[
        int, Option(min=0, max=LAST_SEED, help="Seed of the bootstrap and of the kernels' test operands.")
    ] = 0,
    gate: Gate = False,
    candidate: Annotated[
        str | None,
        Option(help=f"Backend whose verdict --gate goes by; {DEFAULT} where it ran, unless given."),
    ] = None,
    allow_missing: Annotated[
        bool, Option("--allow-missing", help="Leave out transcript lines without audio.")
    ] = False,
    download: Annotated[bool, Option(help="Fetch the data set where it is not at hand.")] = True,
    progress: ProgressOption = None,
    version: VersionOption = False,
) -> None:
    """Transcribe a data set with several backends, and judge from WER whether the kernel can be deployed."""
    from app.evaluation import job as jobs
    from app.evaluation.reporting import Judging, candidate_of, read_bench
    from app.evaluation.rules import read_limits
    from app.evaluation.worker import Setup
    from datasets.dataset import open_dataset
    from models.decoding.options import DecodeOptions

    given = context.params
    with edge("interrupted before anything was transcribed", {ValueError: USAGE}):
        chosen = jobs.backend_names(backends)
        judged = candidate_of(candidate, chosen)
        options = DecodeOptions(
            language=None if language == "auto" else language,
            temperature=temperatures(0.0, temperature_increment_on_fallback),
            beam_size=beam_size,
            without_timestamps=without_timestamps,
            vad=voice_activity(vad, {}),
        )
        # The configuration's own backend is one for an NPU, where there is one: it says whether the device suits.
        own = next((name for name in chosen if "npu" in find(name).devices), chosen[0])
        setup = Setup(filled(Configuration, given, backend=own), chosen, options, streaming)
        judging = Judging(read_limits(limits, margin=margin), replications, seed)
        if bench is not None:
            read_bench(bench)
        job = filled(
            jobs.EvaluationJob,
            given,
            setup=setup,
            place=place_of(workers, scheduler, threads, time_limit),
            # Last, as it may have to be fetched.
            dataset=open_dataset(dataset, data_dir, download=download, allow_missing=allow_missing),
            folder=output_dir or jobs.default_folder(dataset, model),
            judging=judging,
            progress=progress,
        )
    with edge(
        f"interrupted; --resume goes on from what is in {job.folder}",
        {ValueError: USAGE, OSError: LACKING},
        place=job.folder,
    ):
        pass_on()
        share_one_heap()
        say(job.dataset.description)
        evaluation = job.run()
    if not any(backend.rates.utterances for backend in evaluation.backends):
        stop(f"no recording could be transcribed; {job.folder}/records say why", FAILED)
    if gate and judged:
        raise typer.Exit(evaluation.verdict(judged).exit_code)


def report(
    folders: Annotated[
        list[Path], Argument(metavar="FOLDER...", help="Folders of one run, or of its parts.")
    ],
    output_dir: Annotated[
        Path | None,
        Option("--output-dir", "-o", help="Folder to write the report to; the first one unless given."),
    ] = None,
    dataset: Annotated[
        str | None,
        Option(help="The data set, to link its recordings and to show those that a backend broke."),
    ] = None,
    data_dir: Annotated[Path | None, Option(help="The set's folder, as `evaluate` takes it.")] = None,
    limits: Limits = None,
    margin: Margin = None,
    bench: Bench = None,
    replications: Replications = 10_000,
    seed: Annotated[int, Option(min=0, max=LAST_SEED, help="Seed of the bootstrap.")] = 0,
    gate: Gate = False,
    candidate: Annotated[str | None, Option(help="Backend whose verdict --gate goes by.")] = None,
) -> None:
    """Score the records of `evaluate` again, joining parts of a run, and write the report."""
    from app.evaluation import reporting
    from app.evaluation.records import EvidenceError
    from app.evaluation.rules import read_limits
    from datasets.dataset import open_dataset

    with edge(others={OSError: LACKING}):
        if bench is not None:
            reporting.keep_bench(bench, folders[0])
        judging = reporting.Judging(read_limits(limits, margin=margin), replications, seed)
        opened = open_dataset(dataset, data_dir, allow_missing=True) if dataset is not None else None
        evaluation = reporting.write_report(folders, output_dir or folders[0], judging, dataset=opened)
        if gate:
            name = reporting.candidate_of(candidate, [b.backend for b in evaluation.backends])
            if name is None:
                raise EvidenceError("there is no candidate among these records")
            raise typer.Exit(evaluation.verdict(name).exit_code)
