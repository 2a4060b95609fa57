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

import msgspec

from app.evaluation import worker
from app.evaluation.records import DatasetDescription, RecordWriter, RunDescription
from app.evaluation.worker import Batch, BatchWorker, Records, Setup, Wanted

PACKAGES = ("tilescribe", "torch", "openvino", "openai-whisper", "numpy", "numba")

Tasks = Sequence[tuple[Batch, Wanted]]
Done = Iterator[tuple[int, Records]]
"""The batches' sizes with their records, in any order."""


class WorkerLostError(Exception):
    """A worker process ended on its own, most often because memory ran out."""


def record_path(folder: Path, backend: str) -> Path:
    """Where a backend's records are."""
    return folder / "records" / f"{backend}.jsonl"


def run(
    descriptions: Mapping[str, RunDescription],
    batches: Sequence[Batch],
    folder: Path,
    decode: Callable[[Tasks], Done],
    *,
    resume: bool,
    progress: bool,
) -> None:
    """Decode all batches with all backends, and write records to `folder`, which exists.

    A kill loses at most the batches in flight. What a resumed run finds done it does not do again.

    Raises:
        app.evaluation.stored.EvidenceError: records are there and `resume` is not set, or they are another run's.
        kernels.device.DeviceError: the NPU was lost.
        WorkerLostError: a worker process ended on its own.
    """
    from tqdm import tqdm

    (folder / "records").mkdir(exist_ok=True)
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(RecordWriter(record_path(folder, name), description, resume=resume))
            for name, description in descriptions.items()
        }
        tasks: list[tuple[Batch, Wanted]] = []
        for batch in batches:
            ids = frozenset(utterance.id for utterance in batch)
            wanted = {name: ids - writer.done for name, writer in writers.items()}
            tasks += [(batch, wanted)] if any(wanted.values()) else []
        whole = sum(map(len, batches))
        bar = stack.enter_context(tqdm(total=whole, unit="utterance", disable=not progress, smoothing=0.05))
        bar.update(whole - sum(len(batch) for batch, _ in tasks))
        for size, records in decode(tasks):
            for name, its in records.items():
                for record in its:
                    writers[name].write(record)
            bar.update(size)


def here(only: BatchWorker, tasks: Tasks) -> Done:
    """Decode in this process."""
    for batch, wanted in tasks:
        yield len(batch), only.run(batch, wanted)


def in_processes(setup: Setup, workers: int, tasks: Tasks) -> Done:
    """Decode in processes that each load the setup, and end with this one."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=worker.begin, initargs=(setup,))
    try:
        sizes = {pool.submit(worker.work, batch, wanted): len(batch) for batch, wanted in tasks}
        for future in as_completed(sizes):
            yield sizes[future], future.result()
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


def describe(
    loaded: BatchWorker, setup: Setup, dataset: DatasetDescription, *, batch_size: int, threads: int
) -> dict[str, RunDescription]:
    """The records' first lines, by backend, for a worker loaded from `setup`; threads are of all workers together."""
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
            # As JSON gives it back, for a run that is resumed: tuples become lists.
            decoding=msgspec.to_builtins(asdict(setup.options)) | {"batch_size": batch_size},
            compute={"encoder": compute_type, "decoder": compute_type},
            versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            processor=processor(),
            threads=threads,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    return described


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
