"""An evaluation from end to end: kernel validation and encoder error, run, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from app.evaluation import reporting, running
from app.evaluation.evaluation import Evaluation
from app.evaluation.kernels import measure
from app.evaluation.records import DatasetDescription
from app.evaluation.report.text import print_summary
from app.evaluation.reporting import Judging
from app.evaluation.stored import EvidenceError
from app.evaluation.worker import Batch, BatchWorker, Setup, batches, shard
from kernels.backends import INTEGER_BACKENDS, find
from models.decoding.options import language_code

if TYPE_CHECKING:
    from datasets.dataset import Dataset

VALIDATION_TILES = 300
"""Of the kernel's batch test in an evaluation; `tilescribe validate` does more."""

SAMPLED_UTTERANCES = 4
"""Whose encoder error and score ranges are measured: spread evenly over the data set."""


@dataclass(frozen=True)
class EvaluationJob:
    """What `evaluate` was asked for.

    Attributes:
        setup: its threads are of all workers together, as many as there are where it is None.
        folder: of records and report.
        limit: only so many utterances, in the order of their ids.
        shard: `I/N`.
        batch_size: utterances decoded at once.
        workers: processes.
        resume: go on with the records there.
        bench: JSON of `tilescribe bench`, for the report.
    """

    setup: Setup
    dataset: Dataset
    folder: Path
    judging: Judging
    limit: int | None = None
    shard: str | None = None
    batch_size: int = 8
    workers: int = 1
    resume: bool = False
    bench: Path | None = None
    progress: bool = False

    def run(self) -> Evaluation:
        """Do all of it, and say on standard error and standard output what came out.

        Raises:
            EvidenceError: records that are there are another run's, or `resume` is not set.
            ValueError: the shard or the decoding options are wrong.
            models.weights.loading.WeightsError: the weights are missing, damaged or unreachable.
            kernels.device.DeviceError: the NPU was asked for and cannot be used, or was lost.
            app.evaluation.running.WorkerLostError: a worker process ended on its own.
            OSError: files cannot be written.
        """
        utterances = self.dataset.utterances[: self.limit]
        if not utterances:
            raise EvidenceError(f"{self.dataset.name}: there are no utterances in it")
        shard([], self.shard)  # before every recording is looked at
        chosen = shard(batches(utterances, self.batch_size), self.shard)
        # Before the model is loaded: a run that is there is neither overwritten nor mixed with this one.
        there = [name for name in self.setup.backends if running.record_path(self.folder, name).exists()]
        if there and not self.resume:
            raise EvidenceError(
                f"{self.folder} has records of {', '.join(there)} already: --resume goes on with them, "
                "--output-dir takes another folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.bench is not None:
            reporting.keep_bench(self.bench, self.folder)
        self._transcribe(chosen, min(self.batch_size, len(utterances)))
        audio = {utterance.id: utterance.audio for batch in chosen for utterance in batch}
        evaluation = reporting.write_report([self.folder], self.folder, self.judging, audio=audio)
        print_summary(evaluation, self.folder)
        return evaluation

    def _transcribe(self, chosen: Sequence[Batch], batch_size: int) -> None:
        threads = self.setup.configuration.threads or running.available_threads()
        each = max(1, threads // self.workers)
        setup = replace(self.setup, configuration=replace(self.setup.configuration, threads=each))
        worker = BatchWorker(setup)
        descriptions = running.describe(
            worker, setup, self._description(), batch_size=batch_size, threads=each * self.workers
        )
        self._measure_kernels(worker, chosen)
        decode = partial(running.here, worker)
        if self.workers > 1:
            decode = partial(running.in_processes, setup, self.workers)
            del worker  # so that only the workers hold a model
        running.run(descriptions, chosen, self.folder, decode, resume=self.resume, progress=self.progress)

    def _description(self) -> DatasetDescription:
        expected, language = self.dataset.expected, self.setup.options.language
        return DatasetDescription(
            name=self.dataset.name,
            sha256=self.dataset.content_sha256,
            expected=len(self.dataset.utterances) if expected is None else expected,
            complete=self.dataset.complete is not False,
            language=None if language is None else language_code(language),
        )

    def _measure_kernels(self, worker: BatchWorker, chosen: Sequence[Batch]) -> None:
        """Validate the integer kernels, and measure the encoder on a few utterances, unless that is done."""
        integer = {name for name in self.setup.backends if name in INTEGER_BACKENDS}
        there = (self.folder / reporting.KERNELS_FILE).exists() and self.resume
        if there and integer <= reporting.read_kernels([self.folder]).validation.keys():
            return
        utterances = sorted((u for batch in chosen for u in batch), key=lambda u: u.id)
        sampled = utterances[:: max(1, len(utterances) // SAMPLED_UTTERANCES)][:SAMPLED_UTTERANCES]
        figures = measure(
            worker, sampled, tiles=VALIDATION_TILES, seed=self.judging.seed, progress=self.progress
        )
        reporting.write_kernels(self.folder, figures)


def backend_names(text: str) -> tuple[str, ...]:
    """The backends in a list such as `cpu,int32`, in its order.

    Raises:
        kernels.backends.UnknownBackendError: one is unknown.
        EvidenceError: one comes twice, or there are none.
    """
    names = tuple(find(name.strip()).name for name in text.split(",") if name.strip())
    if len(set(names)) != len(names) or not names:
        raise EvidenceError(f"backends {text!r}: name each once, and at least one")
    return names


def default_folder(dataset: str, model: str) -> Path:
    """`evaluations/librispeech-test-clean_base`."""
    return Path("evaluations") / f"{Path(dataset).stem}_{Path(model).stem if '/' in model else model}"
