"""An evaluation from end to end: run, kernel validation, encoder error, report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.console import say
from app.evaluation import reporting, running
from app.evaluation.batches import Batch, batches, shard
from app.evaluation.errors import EvidenceError
from app.evaluation.evaluation import Evaluation
from app.evaluation.limits import Limits
from app.evaluation.records import DatasetDescription
from app.evaluation.report.text import print_summary
from app.evaluation.worker import Setup
from app.output.files import write_whole
from datasets.utterance import Utterance
from kernels.backends import BACKEND_NAMES
from models.decoding.options import language_code

if TYPE_CHECKING:
    from datasets.dataset import Dataset
    from kernels.device import DeviceName
    from models.compute import ComputeType
    from models.decoding.options import DecodeOptions

VALIDATION_TILES = 300
"""Of the kernel's batch test in an evaluation; `tilescribe validate` does more."""

SAMPLED_UTTERANCES = 4
"""Whose encoder error and score ranges are measured: spread evenly over the data set."""


@dataclass(frozen=True)
class EvaluationJob:
    """What `evaluate` was asked for.

    Attributes:
        dataset: to transcribe.
        model: name or path.
        backends: by name.
        device: where integer kernels run.
        tile_size: keys per tile.
        options: of decoding.
        folder: of records and report.
        resume: go on with the records there.
        limit: only so many utterances, in the order of their ids.
        shard: `I/N`.
        batch_size: utterances decoded at once.
        workers: processes.
        threads: of all of them; all that there are where it is None.
        compute_type: of what is not integer attention.
        limits: of the verdict.
        replications: of the bootstrap.
        seed: of the bootstrap and of the kernels' test operands.
        candidate: whose verdict a gate reads; None where only cpu runs.
        bench: JSON of `tilescribe bench`, for the report.
        progress: show bars.
    """

    dataset: Dataset
    model: str
    backends: tuple[str, ...]
    device: DeviceName
    tile_size: int
    options: DecodeOptions
    folder: Path
    resume: bool
    limit: int | None
    shard: str | None
    batch_size: int
    workers: int
    threads: int | None
    compute_type: ComputeType
    limits: Limits
    replications: int
    seed: int
    candidate: str | None
    bench: Path | None
    progress: bool

    def run(self) -> Evaluation:
        """Do all of it, and say on standard error and standard output what came out.

        Raises:
            app.evaluation.errors.EvidenceError: records that are there are another run's, or `resume` is not set.
            ValueError: the shard or the decoding options are wrong.
            models.weights.loading.WeightsError: the weights are missing, damaged or unreachable.
            kernels.device.DeviceError: the NPU was asked for and cannot be used, or was lost.
            app.evaluation.running.WorkerLostError: a worker process ended on its own.
            OSError: files cannot be written.
        """
        utterances = self.dataset.utterances[: self.limit]
        if not utterances:
            raise EvidenceError(f"{self.dataset.name}: there are no utterances in it")
        shard([], self.shard)
        chosen = shard(batches(utterances, seconds_of(utterances), self.batch_size), self.shard)
        self._check_records()
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.bench is not None:
            reporting.keep_bench(self.bench, self.folder)
        running.run(
            self._setup(),
            self._description(),
            chosen,
            self.folder,
            resume=self.resume,
            workers=self.workers,
            progress=self.progress,
        )
        self._measure_kernels(chosen)
        evaluation = reporting.write_report(
            [self.folder],
            self.folder,
            self.limits,
            self.replications,
            self.seed,
            audio={u.id: u.audio for batch in chosen for u in batch.utterances},
        )
        print_summary(evaluation, self.folder)
        return evaluation

    def _check_records(self) -> None:
        """Before the model is loaded: a run that is there is neither overwritten nor mixed with this one."""
        there = [name for name in self.backends if running.record_path(self.folder, name).exists()]
        if there and not self.resume:
            raise EvidenceError(
                f"{self.folder} has records of {', '.join(there)} already: --resume goes on with them, "
                "--output-dir takes another folder"
            )

    def _setup(self) -> Setup:
        threads = self.threads or running.available_threads()
        return Setup(
            self.model, self.backends, self.device, self.options, self.tile_size, threads, self.compute_type
        )

    def _description(self) -> DatasetDescription:
        expected = self.dataset.expected
        return DatasetDescription(
            name=self.dataset.name,
            sha256=self.dataset.content_sha256,
            expected=len(self.dataset.utterances) if expected is None else expected,
            complete=self.dataset.complete is not False,
            language=None if self.options.language is None else language_code(self.options.language),
        )

    def _measure_kernels(self, chosen: Sequence[Batch]) -> None:
        """Validate the integer kernels, and measure the encoder on a few utterances, unless that is done."""
        path = self.folder / reporting.KERNELS_FILE
        if path.exists() and self.resume:
            return
        from app.evaluation.kernels import measure

        utterances = sorted((u for batch in chosen for u in batch.utterances), key=lambda u: u.id)
        step = max(1, len(utterances) // SAMPLED_UTTERANCES)
        found = measure(
            self._setup(), utterances[::step][:SAMPLED_UTTERANCES], VALIDATION_TILES, self.seed, self.progress
        )
        write_whole(path, json.dumps(found, indent=1, allow_nan=False) + "\n")


def backend_names(text: str) -> tuple[str, ...]:
    """The backends in a list such as `cpu,int32`, in its order.

    Raises:
        EvidenceError: one is unknown or comes twice, or there are none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in BACKEND_NAMES:
            raise EvidenceError(f"backend {name!r}: it has to be one of {', '.join(BACKEND_NAMES)}")
    if len(set(names)) != len(names) or not names:
        raise EvidenceError(f"backends {text!r}: name each once, and at least one")
    return tuple(known for name in names for known in BACKEND_NAMES if known == name)


def candidate_of(name: str | None, backends: Sequence[str]) -> str | None:
    """Whose verdict a gate reads: the one named, else int32 where it runs, else the first that is not cpu.

    Raises:
        EvidenceError: the one named does not run, or is cpu.
    """
    candidates = [backend for backend in backends if backend != "cpu"]
    if name is not None and name not in candidates:
        raise EvidenceError(f"candidate {name!r}: it has to be one of the backends, and not cpu")
    return name or ("int32" if "int32" in candidates else next(iter(candidates), None))


def default_folder(dataset: str, model: str) -> Path:
    """`evaluations/librispeech-test-clean_base`."""
    return Path("evaluations") / f"{Path(dataset).stem}_{Path(model).stem if '/' in model else model}"


def seconds_of(utterances: Sequence[Utterance]) -> list[float]:
    """Length of each recording: from the data set, or else from the file's header; 0 where it cannot be read."""
    return [_seconds(u) if u.seconds is None else u.seconds for u in utterances]


def _seconds(utterance: Utterance) -> float:
    import av

    try:
        with av.open(str(utterance.audio)) as container:
            return (container.duration or 0) / av.time_base
    except (av.FFmpegError, OSError):
        say(f"note: {utterance.audio} cannot be opened; it will be counted as failed")
        return 0.0
