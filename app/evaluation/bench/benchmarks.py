"""Measures the attention of one model on one device: tiles, layers, encoder windows, and their energy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from app.energy import MeterError, NoMeter, find_meter
from app.evaluation.bench.measuring import Series, this_machine, time_phases
from app.evaluation.bench.results import Backend, BenchResult, Energy, Measurement, Options, WindowEnergy
from kernels.contract import HEAD_DIM, Operands, ScoreType
from kernels.device import Device
from kernels.npu import cost
from kernels.npu.program.layout import pack_keys_and_values, pack_queries
from kernels.npu.program.plan import SINGLE_TILE
from kernels.opening import open_device
from kernels.quantise import Quantised, quantise
from kernels.workers import Workers

if TYPE_CHECKING:
    from app.evaluation.bench.windows import Windows

__all__ = ["BenchResult", "Options", "run"]

Progress = Callable[[int, int, str], None]

IDLE_SECONDS = 2.0
"""For which the meter looks at the machine before anything runs."""


def run(options: Options, stack: cost.Stack, windows: Windows | None, progress: Progress) -> BenchResult:
    """Measure, and stop early at Ctrl-C with what there is.

    Args:
        options: what to measure.
        stack: the model's encoder (`encoders.of_name`).
        windows: runs encoder windows (`app.evaluation.bench.windows.load`); None where there are no weights.
        progress: called with the settings done, those in all, and what comes next.

    Raises:
        kernels.device.DeviceError: the NPU was asked for and cannot be used.
    """
    result = BenchResult(options, this_machine(), stack)
    try:
        steps = list(_steps(result, windows))
        for done, (text, step) in enumerate(steps):
            progress(done, len(steps), text)
            step()
        progress(len(steps), len(steps), "done")
    except KeyboardInterrupt:
        result.interrupted = True
    return result


def _steps(result: BenchResult, windows: Windows | None) -> Iterator[tuple[str, Callable[[], object]]]:
    """What there is to do, each with its name."""
    options = result.options
    yield "host", lambda: _measure_host(result)
    if options.model_only:
        return
    kernels: tuple[ScoreType, ...] = tuple(b for b in options.backends if b != "cpu")
    devices: dict[int | None, Device] = {}
    result.device, result.device_reason = "cpu", "no integer kernel was asked for"
    for threads in options.threads if kernels else ():
        if result.device == "npu":
            devices[threads] = devices[options.threads[0]]  # one context will do: threads are the host's
            continue
        opened = open_device(options.device, Workers(threads))
        devices[threads] = opened.device
        result.device, result.device_reason = opened.device.name, opened.reason
    for scores in kernels:
        for size in options.tile_sizes:
            device = devices[options.threads[0]]
            yield f"tile, {scores}, {size} keys", _bound(_measure_tile, result, device, scores, size)
    if windows is not None:
        yield "idle power", lambda: _measure_idle(result)
    for threads in options.threads:
        for batch in options.batches:
            for backend in options.backends:
                for size_or_none in (None,) if backend == "cpu" else options.tile_sizes:
                    setting = (devices.get(threads), backend, size_or_none, threads, batch)
                    where = (
                        f"{backend}, {size_or_none or '-'} keys, batch {batch}, threads {threads or 'all'}"
                    )
                    if backend != "cpu":
                        yield f"layer, {where}", _bound(_measure_layer, result, *setting)
                    if windows is not None:
                        yield f"encoder, {where}", _bound(_measure_window, result, windows, *setting)


def _bound(work: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: work(*arguments)


def _random_heads(batch: int, tokens: int, heads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and values with the strides that the encoder's have: float32, (batch, heads, tokens, 64)."""
    random = np.random.default_rng(0)
    shape = (batch, tokens, heads, HEAD_DIM)
    q, k, v = (random.standard_normal(shape, np.float32).transpose(0, 2, 1, 3) for _ in range(3))
    return q * 2, k * 2, v


def _measure_host(result: BenchResult) -> None:
    """The CPU's part of a run on the array, which is the same whatever the device: quantise, pack, dequantise."""
    options, stack = result.options, result.stack
    workers = Workers(options.threads[0])
    plan, heads = result.plan, stack.heads
    q, k, v = _random_heads(1, stack.tokens, heads)
    queries = np.empty(plan.query_bytes(heads), np.uint8)
    stream = np.empty(plan.key_value_stream_bytes(heads), np.uint8)
    output = np.zeros((heads, stack.tokens, HEAD_DIM), np.int16)
    into = np.empty((1, stack.tokens, heads, HEAD_DIM), np.float32).transpose(0, 2, 1, 3)
    kept: list[Quantised] = []

    def quantise_heads() -> None:
        kept[:] = [quantise(q, k, v, plan.scores, workers=workers)]

    def pack() -> None:
        pack_queries(kept[0].operands, 16, queries)
        pack_keys_and_values(kept[0].operands, plan.tile_size, stream)

    phases = {
        "quantise": quantise_heads,
        "pack": pack,
        "dequantise": lambda: kept[0].dequantise(output, into, workers=workers),
    }
    taken = time_phases(phases, max(options.repeat, 3))
    total = taken["total"]
    result.measurements.append(Measurement("host", plan.scores, plan.tile_size, workers.threads, 1, taken))
    result.host = cost.HostCost(
        best=total.best / heads,
        worst=total.worst / heads,
        source=f"measured here: {result.machine.cpu}, {workers.threads} threads, shortest and longest of "
        f"{len(total.nanoseconds)} runs",
    )


def _timings(device: Device) -> dict[str, float]:
    """Seconds that a device tells of its last run; none unless it has any."""
    told = getattr(device, "last_timings", None)
    return dict(told) if told else {}


def _told(device: Device, rounds: list[dict[str, float]], repeat: int) -> dict[str, Series]:
    """Series of what the device told of itself in the last `repeat` rounds."""
    counted = rounds[-repeat:]
    names = [name for name in (counted[0] if counted else {}) if all(name in told for told in counted)]
    return {
        f"{device.name}: {name}": Series(tuple(round(told[name] * 1e9) for told in counted)) for name in names
    }


def _measure_tile(result: BenchResult, device: Device, scores: ScoreType, size: int) -> None:
    options, told = result.options, list[dict[str, float]]()
    q, k, v = _random_heads(1, max(SINGLE_TILE, size), 1)
    operands = quantise(q[:, :, :SINGLE_TILE], k[:, :, :size], v[:, :, :size], scores).operands
    phases = time_phases({"run": lambda: _run(device, operands, scores, size, told)}, options.tiles)
    phases.update(_told(device, told, options.tiles))
    result.measurements.append(Measurement("tile", scores, size, 1, 1, phases, tiles=1))
    if device.name == "npu":
        smallest = quantise(q[:, :, :1], k[:, :, :1], v[:, :, :1], scores).operands
        told = []
        phases = time_phases({"run": lambda: _run(device, smallest, scores, size, told)}, options.tiles)
        phases.update(_told(device, told, options.tiles))
        result.measurements.append(Measurement("smallest run", scores, size, 1, 1, phases))


def _run(
    device: Device, operands: Operands, scores: ScoreType, size: int, told: list[dict[str, float]]
) -> np.ndarray:
    output = device.run(operands, scores=scores, tile_size=size)
    told.append(_timings(device))
    return output


def _measure_layer(
    result: BenchResult, device: Device, scores: ScoreType, size: int, threads: int | None, batch: int
) -> None:
    """An ordinary layer as `TileAttention` runs it; the first has 128 value columns and takes longer."""
    options, stack, told = result.options, result.stack, list[dict[str, float]]()
    workers = Workers(threads)
    q, k, v = _random_heads(batch, stack.tokens, stack.heads)
    into = np.empty((batch, stack.tokens, stack.heads, HEAD_DIM), np.float32).transpose(0, 2, 1, 3)
    quantised: list[Quantised] = []
    outputs: list[np.ndarray] = []

    def quantise_heads() -> None:
        quantised[:] = [quantise(q, k, v, scores, workers=workers)]

    def run_heads() -> None:
        outputs[:] = [_run(device, quantised[0].operands, scores, size, told)]

    phases = time_phases(
        {
            "quantise": quantise_heads,
            "run": run_heads,
            "dequantise": lambda: quantised[0].dequantise(outputs[0], into, workers=workers),
        },
        options.repeat,
    )
    phases.update(_told(device, told, options.repeat))
    tiles = -(-stack.tokens // SINGLE_TILE) * -(-stack.tokens // size) * stack.heads * batch
    result.measurements.append(
        Measurement("layer", scores, size, workers.threads, batch, phases, tiles=tiles)
    )


def _measure_idle(result: BenchResult) -> None:
    meter = find_meter()
    if isinstance(meter, NoMeter):
        result.energy = Energy(None, meter.reason)
        return
    try:
        idle = meter.measure(lambda: time.sleep(IDLE_SECONDS))
        result.energy = Energy(meter.name, "", idle.watts)
    except MeterError as error:
        result.energy = Energy(None, str(error))


def _measure_window(
    result: BenchResult,
    windows: Windows,
    device: Device | None,
    backend: Backend,
    size: int | None,
    threads: int | None,
    batch: int,
) -> None:
    count = threads or result.machine.processors
    with windows.encoder(backend, device, result.device_reason, size, threads) as encode:
        phases = windows.time(encode, batch, result.options.repeat)
        result.measurements.append(Measurement("encoder", backend, size, count, batch, phases))
        energy = result.energy
        meter = find_meter() if energy and energy.meter else None
        if energy is None or energy.idle_watts is None or meter is None or isinstance(meter, NoMeter):
            return
        repeat = result.options.repeat
        try:
            reading = meter.measure(lambda: windows.repeat(encode, batch, repeat))
        except MeterError as error:
            result.energy = Energy(None, str(error), energy.idle_watts, energy.windows)
            return
    encoded = repeat * batch
    over_idle = reading.joules - energy.idle_watts * reading.seconds
    one = WindowEnergy(backend, size, count, batch, encoded, reading.joules / encoded, over_idle / encoded)
    result.energy = Energy(energy.meter, "", energy.idle_watts, (*energy.windows, one))
