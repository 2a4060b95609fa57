"""A run: every batch with every backend, records written as they come, the rest of an interrupted one taken up."""

from __future__ import annotations

import multiprocessing
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from app.evaluation import worker
from app.evaluation.batches import Batch
from app.evaluation.record_files import RecordWriter
from app.evaluation.records import DatasetDescription, RunDescription
from app.evaluation.worker import BatchWorker, Records, Setup, Wanted

if TYPE_CHECKING:
    from models.attention import Attention

PACKAGES = ("tilescribe", "torch", "openai-whisper", "numpy", "numba")


class WorkerLostError(Exception):
    """A worker process ended on its own, most often because memory ran out."""


def record_path(folder: Path, backend: str) -> Path:
    """Where a backend's records are."""
    return folder / "records" / f"{backend}.jsonl"


def run(
    setup: Setup,
    dataset: DatasetDescription,
    batches: Sequence[Batch],
    folder: Path,
    *,
    resume: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> None:
    """Decode all batches with all backends, and write records to `folder`.

    A kill loses at most the batches in flight. What a resumed run finds done it does not do again.

    Args:
        setup: model, backends and options; `threads` is of all workers together.
        dataset: for the records' first line.
        batches: in the order of the run.
        folder: exists.
        resume: go on with the records that are there.
        workers: processes.
        progress: show a bar on standard error.

    Raises:
        app.evaluation.errors.EvidenceError: records are there and `resume` is not set, or they are another run's.
        models.weights.loading.WeightsError: the weights are missing, damaged or unreachable.
        kernels.device.DeviceError: the NPU was asked for and cannot be used, or was lost.
        WorkerLostError: a worker process ended on its own.
    """
    from tqdm import tqdm

    setup = replace(setup, threads=max(1, setup.threads // workers))
    first = BatchWorker(setup)
    descriptions = {
        name: _description(first, attention, setup, dataset, workers, batches)
        for name, attention in first.attentions.items()
    }
    (folder / "records").mkdir(exist_ok=True)
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(
                RecordWriter(record_path(folder, name), description, resume=resume, sync_every=64)
            )
            for name, description in descriptions.items()
        }
        wanted = {batch.number: _wanted(batch, writers) for batch in batches}
        left = [batch for batch in batches if any(wanted[batch.number].values())]
        whole = sum(map(_utterances, batches))
        bar = stack.enter_context(tqdm(total=whole, unit="utterance", disable=not progress, smoothing=0.05))
        bar.update(whole - sum(map(_utterances, left)))
        sizes = {batch.number: _utterances(batch) for batch in left}
        if workers > 1:
            del first  # so that only the workers hold a model
            results = _by_processes(setup, left, wanted, workers)
        else:
            results = _here(first, left, wanted)
        for number, records in results:
            for name, its in records.items():
                for record in its:
                    writers[name].write(record)
            bar.update(sizes[number])


def _utterances(batch: Batch) -> int:
    return len(batch.utterances)


def _wanted(batch: Batch, writers: Mapping[str, RecordWriter]) -> Wanted:
    ids = frozenset(u.id for u in batch.utterances)
    return {name: ids - writer.done for name, writer in writers.items()}


def _here(
    only: BatchWorker, batches: Sequence[Batch], wanted: Mapping[int, Wanted]
) -> Iterator[tuple[int, Records]]:
    for batch in batches:
        yield batch.number, only.run(batch, wanted[batch.number])


def _by_processes(
    setup: Setup, batches: Sequence[Batch], wanted: Mapping[int, Wanted], workers: int
) -> Iterator[tuple[int, Records]]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=worker.begin, initargs=(setup,))
    try:
        futures = [pool.submit(worker.work, batch, wanted[batch.number]) for batch in batches]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise WorkerLostError(
            "a worker process ended on its own, perhaps for want of memory; "
            "--resume goes on from what is done, with fewer --workers"
        ) from error
    finally:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


def _description(
    first: BatchWorker,
    attention: Attention,
    setup: Setup,
    dataset: DatasetDescription,
    workers: int,
    batches: Sequence[Batch],
) -> RunDescription:
    tile_size = getattr(attention, "tile_size", None)
    return RunDescription(
        model=first.model_name,
        model_sha256=first.model_sha256,
        backend=attention.name,
        device=attention.device,
        device_reason=attention.reason,
        dataset=dataset,
        kernel={} if tile_size is None else {"tile_size": tile_size},
        decoding=_plain(asdict(setup.options)) | {"batch_size": max(map(_utterances, batches), default=0)},
        compute={"encoder": first.compute_type, "decoder": first.compute_type},
        versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        processor=processor(),
        threads=setup.threads * workers,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _plain(options: dict[str, object]) -> dict[str, object]:
    """As JSON gives it back: tuples become lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def available_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
