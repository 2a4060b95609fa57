"""Measures the attention of one model on one device: tiles, layers, encoder windows, and their energy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from msgspec.structs import asdict

from app.audio.reading import load_audio
from app.energy import MeterError, find_meter
from app.evaluation.benchmark.results import (
    BenchResult,
    Energy,
    Machine,
    Measurement,
    Options,
    Series,
    Setting,
    WindowEnergy,
    scores_of,
)
from datasets.sample import sample
from kernels.arrays import Reals
from kernels.backends import TILE_BACKENDS
from kernels.contract import DEFAULT_TILE_SIZE, HEAD_DIM, Operands
from kernels.npu import cost
from kernels.npu.program.layout import pack_keys_and_values, pack_queries
from kernels.npu.program.plan import SINGLE_TILE
from kernels.opening import Opened, open_device
from kernels.quantise import Quantised, quantise
from kernels.workers import Workers
from models.attention import Attention, open_attention
from models.encoder import Encoder
from models.features import LogMelFeatures

Progress = Callable[[int, int, str], None]

IDLE_SECONDS = 2.0
"""For which the meter looks at the machine before anything runs."""
WARM_UP = 3
"""Calls before the first that counts: caches, threads, compiled code."""


def run(options: Options, stack: cost.Stack, model: Any, progress: Progress) -> BenchResult:
    """Measure, and stop early at Ctrl-C with what there is.

    Args:
        options: what to measure.
        stack: the model's encoder.
        model: the `whisper.model.Whisper` whose windows are timed; None where there are no weights.
        progress: called with the settings done, those in all, and what comes next.

    Raises:
        kernels.device.DeviceError: the NPU was asked for and cannot be used.
    """
    benchmark = Benchmark(options, stack, model)
    try:
        steps = list(benchmark.steps())
        for done, (text, step) in enumerate(steps):
            progress(done, len(steps), text)
            step()
        progress(len(steps), len(steps), "done")
    except KeyboardInterrupt:
        benchmark.result.interrupted = True
    return benchmark.result


def time_phases(
    phases: Mapping[str, Callable[[], object]],
    repeat: int,
    warm_up: int = WARM_UP,
    audio_seconds: float | None = None,
) -> dict[str, Series]:
    """Run phases one after the other, again and again, and time each, and all together as `total`.

    Args:
        phases: in their order; each may use what the one before it left behind.
        repeat: how often, after `warm_up` (but at most `repeat`) rounds that are not counted.
        warm_up: rounds.
        audio_seconds: that a round works on.
    """
    taken: dict[str, list[int]] = {name: [] for name in phases}
    computed: dict[str, list[int]] = {name: [] for name in phases}
    for round_ in range(-min(warm_up, repeat), repeat):
        for name, work in phases.items():
            cpu = time.process_time_ns()
            start = time.perf_counter_ns()
            work()
            end = time.perf_counter_ns()
            if round_ >= 0:
                taken[name].append(end - start)
                computed[name].append(time.process_time_ns() - cpu)
    if len(phases) > 1:
        for each in (taken, computed):
            each["total"] = [sum(round_) for round_ in zip(*each.values(), strict=True)]
    return {name: Series.of(values, computed[name], audio_seconds) for name, values in taken.items()}


class Benchmark:
    """A run's steps, and in `result` what they found so far."""

    def __init__(self, options: Options, stack: cost.Stack, model: Any) -> None:
        self.result = BenchResult(options, Machine(), stack)
        self._model = model
        self._threads = [count or self.result.machine.processors for count in options.threads]
        self._opened: dict[int, Opened] = {}

    def steps(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """What there is to do, each with its name."""
        options, windows = self.result.options, self._model is not None
        yield "host", self.host
        if options.model_only:
            return
        self._open()
        for kernel, size in product(options.kernels, options.tile_sizes):
            yield f"tile, {kernel}, {size} keys", partial(self.tile, kernel, size)
        if windows:
            yield "idle power", self.idle
        for count, batch, backend in product(self._threads, options.batches, options.backends):
            tiled = backend in TILE_BACKENDS
            for size_or_none in options.tile_sizes if tiled else (None,):
                setting = Setting(backend, size_or_none, count, batch)
                if tiled:
                    yield f"layer, {setting}", partial(self.layer, setting)
                if windows:
                    yield f"encoder, {setting}", partial(self.window, setting)

    def _open(self) -> None:
        options, result = self.result.options, self.result
        result.device, result.device_reason = "cpu", "no integer kernel was asked for"
        for count in self._threads if options.kernels else ():
            if result.device == "npu":
                # One context will do: threads are the host's.
                self._opened[count] = self._opened[self._threads[0]]
                continue
            opened = self._opened[count] = open_device(options.device, Workers(count))
            result.device, result.device_reason = opened.device.name, opened.reason

    def _add(self, what: str, setting: Setting, phases: dict[str, Series], tiles: int = 0) -> None:
        measured = Measurement(**asdict(setting), what=what, phases=phases, tiles=tiles)
        self.result.measurements.append(measured)

    def host(self) -> None:
        """The CPU's part of a run on the array, which is the same whatever the device: quantise, pack, dequantise."""
        stack, plan, threads = self.result.stack, self.result.plan, self._threads[0]
        queries, stream, _ = (np.empty(size, np.uint8) for size in plan.buffer_bytes(stack.heads))
        setting = Setting(plan.scores, plan.tile_size, threads)
        layer = _Layer(stack, setting)

        def pack() -> None:
            pack_queries(layer.quantised.operands, 16, queries)
            pack_keys_and_values(layer.quantised.operands, plan.tile_size, stream)

        phases = {"quantise": layer.quantise, "pack": pack, "dequantise": layer.dequantise}
        taken = time_phases(phases, max(self.result.options.repeat, 3))
        self._add("host", setting, taken)
        total = taken["total"]
        self.result.host = cost.HostCost(
            best=total.min_ms / 1e3 / stack.heads,
            worst=total.max_ms / 1e3 / stack.heads,
            source=f"measured here: {self.result.machine.cpu}, {threads} threads, shortest and longest of "
            f"{total.count} runs",
        )

    def tile(self, kernel: str, size: int) -> None:
        """One tile, and on an NPU the smallest run that there is."""
        repeat = self.result.options.tiles
        device = _Told(self._opened[self._threads[0]], kernel, size)
        q, k, v = _random_heads(1, max(SINGLE_TILE, size), 1)
        for what, rows, keys, tiles in (("tile", SINGLE_TILE, size, 1), ("smallest run", 1, 1, 0)):
            if what == "tile" or device.name == "npu":
                cut = (q[:, :, :rows], k[:, :, :keys], v[:, :, :keys])
                operands = quantise(*cut, scores_of(kernel)).operands
                phases = time_phases({"run": partial(device.run, operands)}, repeat)
                self._add(what, Setting(kernel, size, 1), phases | device.told(repeat), tiles)

    def layer(self, setting: Setting) -> None:
        """An ordinary layer as `TileAttention` runs it; the first has 128 value columns and takes longer."""
        stack, repeat, size = self.result.stack, self.result.options.repeat, setting.tile_size
        assert size is not None
        device = _Told(self._opened[setting.threads], setting.backend, size)
        layer = _Layer(stack, setting)

        def run_heads() -> None:
            layer.output = device.run(layer.quantised.operands)

        phases = {"quantise": layer.quantise, "run": run_heads, "dequantise": layer.dequantise}
        taken = time_phases(phases, repeat)
        tiles = -(-stack.tokens // SINGLE_TILE) * -(-stack.tokens // size) * stack.heads * setting.batch
        self._add("layer", setting, taken | device.told(repeat), tiles)

    def idle(self) -> None:
        """The machine's power before anything runs."""
        try:
            meter = find_meter()
            idle = meter.measure(lambda: time.sleep(IDLE_SECONDS))
            self.result.energy = Energy(meter.name, idle_watts=idle.watts)
        except MeterError as error:
            self.result.energy = Energy(reason=str(error))

    def window(self, setting: Setting) -> None:
        """Windows of the sample through the whole encoder, the attention in them, and their energy."""
        repeat, tile_size = self.result.options.repeat, setting.tile_size or DEFAULT_TILE_SIZE
        opened, dims = self._opened.get(setting.threads), self._model.dims
        attention = _TimedAttention(
            open_attention(setting.backend, threads=setting.threads, tile_size=tile_size, opened=opened)
        )
        with LogMelFeatures([load_audio(sample().audio)], dims.n_mels) as features:
            mel = np.stack([features.window(0, 2 * dims.n_audio_ctx)] * setting.batch)
        encode = partial(Encoder(self._model, attention), mel)
        before = torch.get_num_threads()
        torch.set_num_threads(setting.threads)
        try:
            # Windows take long, and the layers before them have warmed most.
            audio_seconds = self.result.stack.seconds * setting.batch
            phases = time_phases({"window": encode}, repeat, warm_up=1, audio_seconds=audio_seconds)
            each = np.reshape(attention.nanoseconds, (1 + repeat, -1)).sum(axis=1)
            phases["attention"] = Series.of(each[1:].tolist())
            self._add("encoder", setting, phases)
            self._energy(setting, lambda: [encode() for _ in range(repeat)])
        finally:
            torch.set_num_threads(before)

    def _energy(self, setting: Setting, work: Callable[[], object]) -> None:
        energy, encoded = self.result.energy, self.result.options.repeat * setting.batch
        if energy is None or energy.meter is None or energy.idle_watts is None:
            return
        try:
            reading = find_meter().measure(work)
        except MeterError as error:
            energy.meter, energy.reason = None, str(error)
            return
        over_idle = reading.joules - energy.idle_watts * reading.seconds
        measured = WindowEnergy(
            **asdict(setting),
            windows=encoded,
            joules=reading.joules / encoded,
            joules_over_idle=over_idle / encoded,
        )
        energy.windows.append(measured)


class _TimedAttention:
    """Attention that keeps how long each call took."""

    def __init__(self, attention: Attention) -> None:
        self.name, self.device, self.reason = attention.name, attention.device, attention.reason
        self.nanoseconds: list[int] = []
        self._attention = attention

    def __call__(self, q: Reals, k: Reals, v: Reals, *, layer: int) -> Reals:
        start = time.perf_counter_ns()
        result = self._attention(q, k, v, layer=layer)
        self.nanoseconds.append(time.perf_counter_ns() - start)
        return result


class _Layer:
    """One layer's heads, random, with what of it runs on the host."""

    def __init__(self, stack: cost.Stack, setting: Setting) -> None:
        self.quantised: Quantised
        self.output = np.zeros((setting.batch * stack.heads, stack.tokens, HEAD_DIM), np.int16)
        self._heads = _random_heads(setting.batch, stack.tokens, stack.heads)
        # With the strides that the encoder's states have.
        self._into = np.empty((setting.batch, stack.tokens, stack.heads, HEAD_DIM), np.float32).transpose(
            0, 2, 1, 3
        )
        self._scores, self._workers = scores_of(setting.backend), Workers(setting.threads)

    def quantise(self) -> None:
        self.quantised = quantise(*self._heads, self._scores, workers=self._workers)

    def dequantise(self) -> None:
        self.quantised.dequantise(self.output, self._into, workers=self._workers)


class _Told:
    """A device with a kernel and a tile size, that keeps what it tells of each run."""

    def __init__(self, opened: Opened, kernel: str, tile_size: int) -> None:
        self.name = opened.device.name
        self._device, self._scores, self._tile_size = opened.device, scores_of(kernel), tile_size
        self._rounds: list[dict[str, float]] = []

    def run(self, operands: Operands) -> np.ndarray:
        output = self._device.run(operands, scores=self._scores, tile_size=self._tile_size)
        self._rounds.append(dict(getattr(self._device, "last_timings", None) or {}))
        return output

    def told(self, repeat: int) -> dict[str, Series]:
        """Series of what the device told of itself in the last `repeat` runs."""
        counted = self._rounds[-repeat:]
        return {
            f"{self.name}: {name}": Series.of([round(told[name] * 1e9) for told in counted])
            for name in counted[0]
            if all(name in told for told in counted)
        }


def _random_heads(batch: int, tokens: int, heads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and values with the strides that the encoder's have: float32, (batch, heads, tokens, 64)."""
    random = np.random.default_rng(0)
    shape = (batch, tokens, heads, HEAD_DIM)
    q, k, v = (random.standard_normal(shape, np.float32).transpose(0, 2, 1, 3) for _ in range(3))
    return q * 2, k * 2, v
