"""A run: every batch with every backend, records written as they come, the rest of an interrupted one taken up."""

from __future__ import annotations

import multiprocessing
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from app.evaluation import worker
from app.evaluation.batches import Batch
from app.evaluation.record_files import RecordWriter
from app.evaluation.records import DatasetDescription, RunDescription
from app.evaluation.worker import BatchWorker, Records, Setup, Wanted

PACKAGES = ("tilescribe", "torch", "openai-whisper", "numpy", "numba")

Decode = Callable[[Sequence[Batch], Mapping[int, Wanted]], Iterator[tuple[int, Records]]]
"""Decodes batches, and gives each one's number with its records, in any order."""


class WorkerLostError(Exception):
    """A worker process ended on its own, most often because memory ran out."""


def record_path(folder: Path, backend: str) -> Path:
    """Where a backend's records are."""
    return folder / "records" / f"{backend}.jsonl"


def run(
    descriptions: Mapping[str, RunDescription],
    batches: Sequence[Batch],
    folder: Path,
    decode: Decode,
    *,
    resume: bool,
    progress: bool,
) -> None:
    """Decode all batches with all backends, and write records to `folder`.

    A kill loses at most the batches in flight. What a resumed run finds done it does not do again.

    Args:
        descriptions: by backend, for the records' first lines.
        batches: in the order of the run.
        folder: exists.
        decode: in this process or in several.
        resume: go on with the records that are there.
        progress: show a bar on standard error.

    Raises:
        app.evaluation.stored.EvidenceError: records are there and `resume` is not set, or they are another run's.
        kernels.device.DeviceError: the NPU was lost.
        WorkerLostError: a worker process ended on its own.
    """
    from tqdm import tqdm

    (folder / "records").mkdir(exist_ok=True)
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(
                RecordWriter(record_path(folder, name), description, resume=resume, sync_every=64)
            )
            for name, description in descriptions.items()
        }
        sizes = {batch.number: len(batch.utterances) for batch in batches}
        wanted = {batch.number: _wanted(batch, writers) for batch in batches}
        left = [batch for batch in batches if any(wanted[batch.number].values())]
        whole = sum(sizes.values())
        bar = stack.enter_context(tqdm(total=whole, unit="utterance", disable=not progress, smoothing=0.05))
        bar.update(whole - sum(sizes[batch.number] for batch in left))
        for number, records in decode(left, wanted):
            for name, its in records.items():
                for record in its:
                    writers[name].write(record)
            bar.update(sizes[number])


def here(only: BatchWorker) -> Decode:
    """Decode in this process."""

    def decode(batches: Sequence[Batch], wanted: Mapping[int, Wanted]) -> Iterator[tuple[int, Records]]:
        for batch in batches:
            yield batch.number, only.run(batch, wanted[batch.number])

    return decode


def in_processes(setup: Setup, workers: int) -> Decode:
    """Decode in processes that each load the setup, and end with this one."""

    def decode(batches: Sequence[Batch], wanted: Mapping[int, Wanted]) -> Iterator[tuple[int, Records]]:
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

    return decode


def describe(
    loaded: BatchWorker, setup: Setup, dataset: DatasetDescription, *, batch_size: int, threads: int
) -> dict[str, RunDescription]:
    """The records' first lines, by backend.

    Args:
        loaded: from `setup`.
        setup: its options.
        dataset: what is transcribed.
        batch_size: utterances decoded at once.
        threads: of all workers together.
    """
    described = {}
    for name, transcriber in loaded.transcribers.items():
        attention, compute_type = transcriber.attention, transcriber.compute_type
        tile_size = getattr(attention, "tile_size", None)
        described[name] = RunDescription(
            model=transcriber.weights.name,
            model_sha256=transcriber.weights.sha256,
            backend=name,
            device=attention.device,
            device_reason=attention.reason,
            dataset=dataset,
            kernel={} if tile_size is None else {"tile_size": tile_size},
            decoding=_plain(asdict(setup.options)) | {"batch_size": batch_size},
            compute={"encoder": compute_type, "decoder": compute_type},
            versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            processor=processor(),
            threads=threads,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    return described


def _wanted(batch: Batch, writers: Mapping[str, RecordWriter]) -> Wanted:
    ids = frozenset(u.id for u in batch.utterances)
    return {name: ids - writer.done for name, writer in writers.items()}


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
