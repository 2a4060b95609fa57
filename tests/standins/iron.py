"""A strict stand-in of the IRON names that `kernels/npu/program/aie/design.py` uses, for machines without mlir-aie.

Signatures are those of mlir-aie 1.4's `python/iron`, without what the design leaves out or later versions have
changed; unknown keywords are refused. Cores' functions and the run's sequence are executed once. What they take, call
and transfer is checked and counted as the tool chain's passes would place it: buffers by its objectCountOn, a memory
tile's descriptors by part and depth. `resolved` holds the last program. It says nothing of what the real tool chain
makes of the design.
"""

from __future__ import annotations

import contextvars
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

WORD = 4


def nbytes(array_type: Any) -> int:
    shape, dtype = array_type.__args__
    return math.prod(shape) * np.dtype(dtype.__args__[0]).itemsize


def dtype_of(array_type: Any) -> np.dtype[Any]:
    return np.dtype(array_type.__args__[1].__args__[0])


class Tile(NamedTuple):
    col: int
    row: int


@dataclass
class Device:
    columns: int

    def check(self, tile: Tile, rows: range) -> None:
        assert 0 <= tile.col < self.columns, f"column {tile.col} of {self.columns}"
        assert tile.row in rows, f"row {tile.row} is not in {rows}"


@dataclass(eq=False)
class Element:
    """An acquired buffer of a fifo, or a buffer of a core: what a kernel is called with."""

    array_type: Any


class Buffer(Element):
    def __init__(self, type: Any, *, name: str) -> None:
        super().__init__(type)
        self.name = name
        self.owner: Worker | None = None


class Kernel:
    def __init__(self, name: str, object_file_name: str, arg_types: list[Any]) -> None:
        self.name, self.object_file_name, self.arg_types = name, object_file_name, arg_types

    def __call__(self, *arguments: Element) -> None:
        assert len(arguments) == len(self.arg_types), f"{self.name}: {len(arguments)} arguments"
        for given, wanted in zip(arguments, self.arg_types, strict=True):
            assert isinstance(given, Element), f"{self.name}: {given!r} is no buffer"
            assert nbytes(given.array_type) == nbytes(wanted), f"{self.name}: sizes differ"
            assert dtype_of(given.array_type) == dtype_of(wanted), f"{self.name}: types differ"


_repeats: contextvars.ContextVar[int] = contextvars.ContextVar("repeats", default=1)
_live: contextvars.ContextVar[list[Handle]] = contextvars.ContextVar("live")


def range_(stop: int) -> Iterator[int]:
    """A loop of the device: its body is traced once, and has to leave every fifo as it found it."""
    handles = _live.get()
    before = [handle.held for handle in handles]
    token = _repeats.set(_repeats.get() * stop)
    yield 0
    _repeats.reset(token)
    assert before == [handle.held for handle in handles], "a loop leaves a fifo otherwise than it found it"


class Handle:
    def __init__(self, fifo: ObjectFifo, produces: bool, depth: int, tile: Tile | None) -> None:
        assert depth >= 1
        self.fifo, self.produces, self.depth, self.tile = fifo, produces, depth, tile
        self.endpoint: Any = None
        self.held = self.most = self.taken = 0

    def attach(self, endpoint: Any) -> None:
        assert self.endpoint is None, f"{self.fifo.name}: this end is already taken"
        self.endpoint = endpoint

    def acquire(self, num_elem: int) -> Any:
        assert isinstance(self.endpoint, Worker)
        assert num_elem <= self.depth, f"{self.fifo.name}: takes {num_elem} of {self.depth}"
        assert self.held == 0, f"{self.fifo.name}: taken again before it was released"
        self.held = num_elem
        self.most = max(self.most, num_elem)
        self.taken += num_elem * _repeats.get()
        elements = [Element(self.fifo.obj_type) for _ in range(num_elem)]
        return elements[0] if num_elem == 1 else elements

    def release(self, num_elem: int) -> None:
        assert num_elem == self.held, f"{self.fifo.name}: releases {num_elem} of {self.held}"
        self.held = 0

    def split(self, offsets: list[int], *, tile: Tile, obj_types: Any, names: Any) -> list[ObjectFifo]:
        assert not self.produces
        parts = [ObjectFifo(kind, depth=self.depth, name=n) for kind, n in zip(obj_types, names, strict=True)]
        Link(tile, self, [part.prod() for part in parts], offsets)
        return parts

    def join(self, offsets: list[int], *, tile: Tile, obj_types: Any, names: Any) -> list[ObjectFifo]:
        assert self.produces
        parts = [ObjectFifo(kind, depth=self.depth, name=n) for kind, n in zip(obj_types, names, strict=True)]
        Link(tile, self, [part.cons() for part in parts], offsets)
        return parts

    def forward(self, *, tile: Tile, name: str) -> ObjectFifo:
        return self.split([0], tile=tile, obj_types=[self.fifo.obj_type], names=[name])[0]

    def fill(self, source: HostBuffer, *, tap: TensorAccessPattern, group: TaskGroup) -> None:
        assert self.produces
        _sequence.get().transfer(self, source, tap, False, group)

    def drain(self, dest: HostBuffer, *, tap: TensorAccessPattern, group: TaskGroup, wait: bool) -> None:
        assert not self.produces
        _sequence.get().transfer(self, dest, tap, wait, group)


class ObjectFifo:
    def __init__(self, obj_type: Any, *, depth: int = 2, name: str) -> None:
        self.obj_type, self.depth, self.name = obj_type, depth, name
        self._prod: Handle | None = None
        self.consumers: list[Handle] = []

    def prod(self, depth: int | None = None, tile: Tile | None = None) -> Handle:
        if self._prod is None:
            self._prod = Handle(self, True, depth or self.depth, tile)
        return self._prod

    def cons(self, depth: int | None = None, tile: Tile | None = None) -> Handle:
        self.consumers.append(Handle(self, False, depth or self.depth, tile))
        return self.consumers[-1]

    def ends(self) -> list[Handle]:
        assert self._prod is not None, f"{self.name}: nothing fills it"
        assert self.consumers, f"{self.name}: nothing takes from it"
        return [self._prod, *self.consumers]

    def count_at(self, handle: Handle) -> int:
        """Buffers at a core's end: as the tool chain counts if all depths are one, as asked for if they differ."""
        if len({end.depth for end in self.ends()}) > 1 or handle.depth == handle.most == 1:
            return handle.depth
        return handle.most + 1


class Link:
    """A memory tile between fifos: one buffer pool, that of the fifo on the undivided side."""

    def __init__(self, tile: Tile, whole: Handle, parts: list[Handle], offsets: list[int]) -> None:
        self.tile, self.whole, self.parts = tile, whole, parts
        element = dtype_of(whole.fifo.obj_type).itemsize
        ends = [*(o * element for o in offsets[1:]), nbytes(whole.fifo.obj_type)]
        for part, offset, end in zip(parts, offsets, ends, strict=True):
            assert offset * element + nbytes(part.fifo.obj_type) == end, (
                f"{part.fifo.name}: parts do not meet"
            )
            assert part.depth == whole.depth, f"{part.fifo.name}: depths differ in the memory tile"
        for handle in (whole, *parts):
            handle.attach(self)


class Worker:
    def __init__(
        self, core_fn: Callable[..., None], fn_args: list[Any], *, tile: Tile, stack_size: int
    ) -> None:
        self.core_fn, self.fn_args, self.tile, self.stack_size = core_fn, fn_args, tile, stack_size
        self.fifos = [a for a in fn_args if isinstance(a, Handle)]
        self.buffers = [a for a in fn_args if isinstance(a, Buffer)]
        for handle in self.fifos:
            handle.attach(self)
        for buffer in self.buffers:
            assert buffer.owner is None, f"{buffer.name}: shared between cores"
            buffer.owner = self

    def trace(self) -> None:
        token = _live.set(self.fifos)
        self.core_fn(*self.fn_args)
        _live.reset(token)
        for handle in self.fifos:
            assert handle.held == 0, f"{handle.fifo.name}: not released"
            assert handle.taken, f"{handle.fifo.name}: never taken"


class TensorAccessPattern:
    def __init__(
        self, tensor_dims: Sequence[int], offset: int, sizes: Sequence[int], strides: Sequence[int]
    ) -> None:
        assert len(sizes) == len(strides) == 4
        self.tensor_dims, self.offset, self.sizes, self.strides = tensor_dims, offset, sizes, strides
        reach = offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
        assert 0 <= offset <= reach < math.prod(tensor_dims), "outside the tensor"


class HostBuffer(NamedTuple):
    index: int
    array_type: Any


class TaskGroup:
    def __init__(self) -> None:
        self.transfers: list[Moved] = []
        _sequence.get().groups.append(self)

    def finish(self) -> None:
        assert any(moved.wait for moved in self.transfers), "nothing in this group is waited for"
        _sequence.get().groups.remove(self)


class Moved(NamedTuple):
    """One shim descriptor: sizes and strides in words."""

    fifo: str
    buffer: int
    tile: tuple[int, int]
    outgoing: bool
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    wait: bool


@dataclass
class RunSequence:
    moved: list[Moved] = field(default_factory=list)
    groups: list[TaskGroup] = field(default_factory=list)

    def transfer(
        self, handle: Handle, buffer: HostBuffer, tap: TensorAccessPattern, wait: bool, group: TaskGroup
    ) -> None:
        assert isinstance(handle.endpoint, Runtime)
        assert handle.tile is not None
        size = dtype_of(buffer.array_type).itemsize
        assert math.prod(tap.tensor_dims) * size == nbytes(buffer.array_type), "a pattern for another buffer"
        assert tap.strides[3] == 1, "the innermost words do not lie together"
        assert tap.sizes[3] * size % WORD == 0
        sizes = (*tap.sizes[:3], tap.sizes[3] * size // WORD)
        for figure in (tap.offset, *tap.strides[:3]):
            assert figure * size % WORD == 0, "not a whole number of words"
        strides = (*(s * size // WORD for s in tap.strides[:3]), 1)
        # mlir-aie: lib/Dialect/AIEX/IR/AIEXDialect.cpp, verifyStridesWraps
        assert max(sizes[2:]) <= 1023, f"sizes {sizes}"
        assert sizes[0] <= 64, f"sizes {sizes}"
        assert min(sizes) >= 1, f"sizes {sizes}"
        assert max(strides) <= 1 << 20, f"strides {strides}"
        for n, s in zip(sizes[1:], strides[1:], strict=True):
            assert n == 1 or s >= 1, "only the outermost stride may be 0"
        assert math.prod(sizes) * WORD % nbytes(handle.fifo.obj_type) == 0, "not whole elements of the fifo"
        moved = Moved(
            handle.fifo.name, buffer.index, handle.tile, handle.produces,
            tap.offset * size // WORD, sizes, strides, wait,
        )  # fmt: skip
        self.moved.append(moved)
        group.transfers.append(moved)


_sequence: contextvars.ContextVar[RunSequence] = contextvars.ContextVar("sequence")


class Runtime:
    def __init__(self, seq_fn: Callable[..., None], fn_args: list[Any]) -> None:
        self.seq_fn, self.fn_args = seq_fn, fn_args
        self.buffers: list[HostBuffer] = []
        leaves = [
            leaf for argument in fn_args for leaf in (argument if isinstance(argument, list) else [argument])
        ]
        self.handles = [leaf for leaf in leaves if isinstance(leaf, Handle)]
        for handle in self.handles:
            handle.attach(self)

    def trace(self) -> RunSequence:
        arguments = []
        for argument in self.fn_args:
            if not isinstance(argument, list | Handle):
                argument = HostBuffer(len(self.buffers), argument)
                self.buffers.append(argument)
            arguments.append(argument)
        run = RunSequence()
        token = _sequence.set(run)
        self.seq_fn(*arguments)
        _sequence.reset(token)
        assert not run.groups, "a group is not finished"
        return run


@dataclass
class Used:
    """What a tile holds: bytes by name, the descriptors of each channel, locks."""

    memory: dict[str, int] = field(default_factory=dict)
    incoming: list[int] = field(default_factory=list)
    outgoing: list[int] = field(default_factory=list)
    locks: int = 0


@dataclass
class Resolved:
    columns: int
    tiles: dict[tuple[int, int], Used]
    moved: list[Moved]
    buffers: list[int]
    workers: list[Worker]
    kernels: set[str]

    def __str__(self) -> str:
        tiles = "\n".join(f"    {tuple(where)}: {self.tiles[where]}" for where in sorted(self.tiles))
        moved = "\n".join(f"      {m}" for m in self.moved)
        device = f"module {{\n  aie.device(columns = {self.columns}) {{\n{tiles}\n"
        return f"{device}    aie.runtime_sequence({self.buffers}) {{\n{moved}\n    }}\n  }}\n}}"


resolved: Resolved


class Program:
    def __init__(self, device: Device, rt: Runtime, *, workers: list[Worker]) -> None:
        self.device, self.runtime, self.workers = device, rt, workers

    def resolve_program(self) -> Resolved:
        global resolved
        assert len({w.tile for w in self.workers}) == len(self.workers), "two cores on one tile"
        tiles: dict[tuple[int, int], Used] = defaultdict(Used)
        links: dict[int, Link] = {}
        kernels = {a.object_file_name for w in self.workers for a in w.fn_args if isinstance(a, Kernel)}
        for worker in self.workers:
            self.device.check(worker.tile, range(2, 6))
            worker.trace()
            used = tiles[worker.tile]
            used.memory["stack"] = worker.stack_size
            for buffer in worker.buffers:
                used.memory[buffer.name] = nbytes(buffer.array_type)
            for handle in worker.fifos:
                count = handle.fifo.count_at(handle)
                used.memory[handle.fifo.name] = count * nbytes(handle.fifo.obj_type)
                (used.outgoing if handle.produces else used.incoming).append(count)
                used.locks += 2
                for end in handle.fifo.ends():
                    if isinstance(end.endpoint, Link):
                        links[id(end.endpoint)] = end.endpoint
        for link in links.values():
            self.device.check(link.tile, range(1, 2))
            used = tiles[link.tile]
            depth = link.whole.depth
            used.memory[link.whole.fifo.name] = depth * nbytes(link.whole.fifo.obj_type)
            used.locks += 2 * len(link.parts)
            divides = not link.whole.produces
            (used.incoming if divides else used.outgoing).append(depth * len(link.parts))
            (used.outgoing if divides else used.incoming).extend([depth] * len(link.parts))
        run = self.runtime.trace()
        for handle in self.runtime.handles:
            assert handle.tile is not None
            self.device.check(handle.tile, range(1))
            count = sum(m.fifo == handle.fifo.name for m in run.moved)
            assert count, f"{handle.fifo.name}: no transfer"
            used = tiles[handle.tile]
            (used.outgoing if handle.produces else used.incoming).append(count)
        sizes = [nbytes(buffer.array_type) for buffer in self.runtime.buffers]
        resolved = Resolved(self.device.columns, dict(tiles), run.moved, sizes, self.workers, kernels)
        return resolved


def install() -> dict[str, ModuleType]:
    """The modules under the names by which the design imports them."""
    this = sys.modules[__name__]

    def module(name: str, **names: Any) -> ModuleType:
        made = ModuleType(name)
        made.__dict__.update(names)
        return made

    narrow = {f"NPU1Col{n}": partial(Device, n) for n in (1, 2, 3)}
    device = module("aie.iron.device", Tile=Tile, NPU1=partial(Device, 4), **narrow)
    made = (
        module("aie"),
        module("aie.helpers"),
        module("aie.helpers.taplib", TensorAccessPattern=TensorAccessPattern),
        module("aie.iron", device=device, **{name: getattr(this, name) for name in _IRON}),
        device,
        module("aie.iron.controlflow", range_=range_),
    )
    return {part.__name__: part for part in made}


_IRON = ("Buffer", "Kernel", "ObjectFifo", "Program", "Runtime", "TaskGroup", "Worker")
