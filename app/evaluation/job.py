"""An evaluation from end to end: kernel validation and encoder error, every batch with every backend, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from app.console import bar, say
from app.evaluation import kernels, reporting
from app.evaluation.evaluation import Evaluation
from app.evaluation.record_files import RecordWriter
from app.evaluation.records import DatasetDescription, EvidenceError, RunDescription
from app.evaluation.worker import Batch, BatchWorker, Setup, batches, in_cluster
from app.machine import available_threads, processor, versions
from kernels.backends import INTEGER_BACKENDS, find
from models.decoding.options import language_code

if TYPE_CHECKING:
    from app.cluster.engine import Place
    from datasets.dataset import Dataset

VALIDATION_TILES = 300
"""Of the kernel's batch test in an evaluation; `tilescribe validate` does more."""

SAMPLED_UTTERANCES = 4
"""Whose encoder error and score ranges are measured: spread evenly over the data set."""


@dataclass(frozen=True)
class EvaluationJob:
    """What `evaluate` was asked for.

    Attributes:
        folder: of records and report.
        limit: only so many utterances, in the order of their ids.
        batch_size: utterances decoded at once.
        place: a cluster that decodes; this process where there is none.
        send_audio: recordings go to the cluster with their batches, and are not read by their paths there.
        resume: go on with the records there.
        bench: JSON of `tilescribe bench`, for the report.
    """

    setup: Setup
    dataset: Dataset
    folder: Path
    judging: reporting.Judging
    limit: int | None = None
    batch_size: int = 8
    place: Place | None = None
    send_audio: bool = False
    resume: bool = False
    bench: Path | None = None
    progress: bool | None = False

    def run(self) -> Evaluation:
        """Do all of it, and say on standard error and standard output what came out.

        A kill loses at most the batches in flight. What a resumed run finds done it does not do again.

        Raises:
            EvidenceError: records that are there are another run's, or `resume` is not set.
            ValueError: the decoding options do not suit the model.
            models.weights.loading.WeightsError: the weights are missing, damaged or unreachable.
            kernels.device.DeviceError: the NPU was asked for and cannot be used, or was lost.
            app.cluster.engine.ClusterError: there is no cluster, or it is gone.
            OSError: files cannot be written.
        """
        utterances = self.dataset.utterances[: self.limit]
        if not utterances:
            raise EvidenceError(f"{self.dataset.name}: there are no utterances in it")
        chosen = batches(utterances, self.batch_size)
        # Before the model is loaded: a run that is there is neither overwritten nor mixed with this one.
        there = [name for name in self.setup.backends if self._records(name).exists()]
        if there and not self.resume:
            raise EvidenceError(
                f"{self.folder} has records of {', '.join(there)} already: --resume goes on with them, "
                "--output-dir takes another folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.bench is not None:
            reporting.keep_bench(self.bench, self.folder)
        # The model is loaded here too: kernels are measured with it, and its facts are what workers are held to.
        worker = self.setup.load(self._threads)
        self._transcribe(worker, self._runs(worker, min(self.batch_size, len(utterances))), chosen)
        return reporting.write_report([self.folder], self.folder, self.judging, dataset=self.dataset)

    def _records(self, backend: str) -> Path:
        return self.folder / "records" / f"{backend}.jsonl"

    @property
    def _threads(self) -> int:
        if self.place is not None and self.place.scheduler is None:
            return self.place.threads
        return self.setup.configuration.threads or available_threads()

    def _runs(self, worker: BatchWorker, batch_size: int) -> dict[str, RunDescription]:
        """The records' first lines, by backend."""
        setup = worker.setup
        expected, language = self.dataset.expected, setup.options.language
        dataset = DatasetDescription(
            name=self.dataset.name,
            sha256=self.dataset.content_sha256,
            expected=len(self.dataset.utterances) if expected is None else expected,
            complete=self.dataset.complete is not False,
            language=None if language is None else language_code(language),
        )
        elsewhere = self.place is not None and self.place.scheduler is not None
        descriptions = {}
        for name, transcriber in worker.transcribers.items():
            attention, compute_type = transcriber.attention, transcriber.compute_type
            tile_size, audio_context = getattr(attention, "tile_size", None), transcriber.audio_context
            kernel: dict[str, Any] = {} if tile_size is None else {"tile_size": tile_size}
            if audio_context != "full":
                kernel["audio_context"] = audio_context
            if transcriber.context_note:
                say(transcriber.context_note)
            descriptions[name] = RunDescription(
                model=transcriber.weights.name,
                model_sha256=transcriber.weights.sha256,
                backend=name,
                device=attention.device,
                device_reason=attention.reason,
                dataset=dataset,
                kernel=kernel,
                # As JSON gives it back, for a run that is resumed: tuples become lists.
                decoding=msgspec.to_builtins(asdict(setup.options))
                | {"batch_size": batch_size}
                | ({"streaming": True} if setup.streaming else {}),
                compute={"encoder": compute_type, "decoder": compute_type},
                versions=versions(),
                # Those of a scheduler's workers are nobody's in particular.
                processor=None if elsewhere else processor(),
                threads=None if elsewhere else self._threads * ((self.place and self.place.workers) or 1),
                started=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        return descriptions

    def _transcribe(
        self, worker: BatchWorker, runs: Mapping[str, RunDescription], chosen: Sequence[Batch]
    ) -> None:
        (self.folder / "records").mkdir(exist_ok=True)
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(RecordWriter(self._records(name), run, resume=self.resume))
                for name, run in runs.items()
            }
            # Now that what is there is known to be this run's.
            self._measure_kernels(worker, runs, chosen)
            tasks = []
            for batch in chosen:
                ids = frozenset(utterance.id for utterance in batch)
                wanted = {name: ids - writer.done for name, writer in writers.items()}
                tasks += [(batch, wanted)] if any(wanted.values()) else []
            whole = sum(map(len, chosen))
            shown = stack.enter_context(bar(self.progress, total=whole, unit="utterances", smoothing=0.05))
            shown.update(whole - sum(len(batch) for batch, _ in tasks))
            decoded = (
                worker.decode(tasks)
                if self.place is None
                else in_cluster(self.place, worker, tasks, send_audio=self.send_audio)
            )
            for size, records in stack.enter_context(closing(decoded)):
                for name, its in records.items():
                    for record in its:
                        writers[name].write(record)
                shown.update(size)

    def _measure_kernels(
        self, worker: BatchWorker, runs: Mapping[str, RunDescription], chosen: Sequence[Batch]
    ) -> None:
        """Validate the integer kernels, and measure the encoder on a few utterances, where that is not done."""
        figures = kernels.read([self.folder] if self.resume else [], next(iter(runs.values())))
        missing = [run for run in runs.values() if run.backend in INTEGER_BACKENDS and not figures.cover(run)]
        if not missing:
            return
        utterances = sorted((u for batch in chosen for u in batch), key=lambda u: u.id)
        sampled = utterances[:: max(1, len(utterances) // SAMPLED_UTTERANCES)][:SAMPLED_UTTERANCES]
        measured = kernels.measure(
            worker, missing, sampled, tiles=VALIDATION_TILES, seed=self.judging.seed, progress=self.progress
        )
        kernels.write(self.folder, figures.joined(measured))


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
