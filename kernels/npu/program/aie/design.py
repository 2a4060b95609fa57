"""The device programs in IRON Python: which tiles do what, how data flows between them, and what a run transfers.

    python kernels/npu/program/aie/design.py --tile-size 64 --columns 4 --heads 8 > streaming.mlir
    python kernels/npu/program/aie/design.py --single-tile > single.mlir

Written for IRON as mlir-aie 1.4 has it (its wheel `mlir_aie` 1.4.2): workers and links placed with `tile=`, a run's
sequence as a function with `fill` and `drain` on fifo handles. It has NOT been compiled by that tool chain yet, nor run
on an NPU: the tests execute it against a stand-in of the names it uses (`tests/standins/iron.py`).

A column has four cores. Its memory tile cuts query groups into a block for each core, hands every key and value tile
to all four, and joins their output blocks again. Columns know nothing of each other. The cores never end: they wait for
the next query block, so one program serves runs of any number of heads, each with its own instructions. The scores'
type is a matter of the object file alone.

Sizes and depths come from `plan.py` and `memory_map.py`, transfers from `transfers.py`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a file, perhaps by the tool chain's own Python: the project is four folders up
    sys.path[0] = str(Path(__file__).resolve().parents[4])

import numpy as np
from aie.helpers.taplib import TensorAccessPattern  # type: ignore[import-not-found, unused-ignore]
from aie.iron import (  # type: ignore[import-not-found, unused-ignore]
    Buffer,
    Kernel,
    ObjectFifo,
    Program,
    Runtime,
    TaskGroup,
    Worker,
)
from aie.iron import device as devices
from aie.iron.controlflow import range_  # type: ignore[import-not-found, unused-ignore]

from kernels.contract import DEFAULT_TILE_SIZE, HEAD_DIM, SCORE_TYPES, TILE_SIZES
from kernels.npu.program import memory_map, transfers
from kernels.npu.program import plan as p
from kernels.npu.program.plan import Plan, Work

OBJECT = "kernel.o"  # compiled from `kernel.cc`, beside the MLIR when it is built

SHIM_ROW, MEMORY_ROW, FIRST_CORE_ROW = 0, 1, 2


def streaming(plan: Plan, heads: int) -> str:
    """MLIR text of a streaming program, with the instructions for a run of `heads` heads."""
    query_block = _array(np.int8, p.QUERY_BLOCK_BYTES)
    key_value_tile = _array(np.int8, plan.key_value_bytes)
    output_block = _array(np.int16, p.OUTPUT_BLOCK_BYTES // 2)
    work = _work_types(plan.work)
    start = Kernel("attention_start", OBJECT, [work["state"]])
    tile = Kernel("attention_tile", OBJECT, [query_block, key_value_tile, *work.values()])
    finish = Kernel("attention_finish", OBJECT, [query_block, work["state"], output_block])

    def core(  # type: ignore[no-untyped-def]
        queries, keys_and_values, outputs, state, scores, weights, start, tile, finish
    ):
        block = queries.acquire(1)
        output = outputs.acquire(1)
        start(state)
        for _ in range_(plan.tiles):
            key_value = keys_and_values.acquire(1)
            tile(block, key_value, state, scores, weights)
            keys_and_values.release(1)
        finish(block, state, output)
        queries.release(1)
        outputs.release(1)

    depth = memory_map.MEMORY_TILE_DEPTH
    workers, query_ends, key_value_ends, output_ends = [], [], [], []
    for column in range(plan.columns):
        shim, memory = devices.Tile(column, SHIM_ROW), devices.Tile(column, MEMORY_ROW)
        cores = range(p.CORES_PER_COLUMN)

        query_groups = ObjectFifo(
            _array(np.int8, transfers.QUERY_GROUP_BYTES), depth=depth, name=f"queries{column}"
        )
        query_blocks = query_groups.cons().split(
            [core * p.QUERY_BLOCK_BYTES for core in cores],
            tile=memory,
            obj_types=[query_block] * p.CORES_PER_COLUMN,
            names=[f"queries{column}_{core}" for core in cores],
        )
        stream = ObjectFifo(key_value_tile, depth=depth, name=f"stream{column}")
        tiles = stream.cons().forward(tile=memory, name=f"tiles{column}")
        output_groups = ObjectFifo(
            _array(np.int16, transfers.OUTPUT_GROUP_BYTES // 2), depth=depth, name=f"output{column}"
        )
        output_blocks = output_groups.prod().join(
            [core * (p.OUTPUT_BLOCK_BYTES // 2) for core in cores],
            tile=memory,
            obj_types=[output_block] * p.CORES_PER_COLUMN,
            names=[f"output{column}_{core}" for core in cores],
        )
        for i in cores:
            buffers = [Buffer(kind, name=f"{name}{column}_{i}") for name, kind in work.items()]
            inputs = [end.cons(depth=plan.input_depth) for end in (query_blocks[i], tiles)]
            outputs = output_blocks[i].prod(depth=plan.output_depth)
            arguments = [*inputs, outputs, *buffers, start, tile, finish]
            where = devices.Tile(column, FIRST_CORE_ROW + i)
            workers.append(Worker(core, arguments, tile=where, stack_size=p.STACK_BYTES))
        query_ends.append(query_groups.prod(tile=shim))
        key_value_ends.append(stream.prod(tile=shim))
        output_ends.append(output_groups.cons(tile=shim))

    query_bytes, stream_bytes, output_bytes = plan.buffer_bytes(heads)

    def run(  # type: ignore[no-untyped-def]
        queries, stream, output, query_ends, key_value_ends, output_ends
    ):
        parts = {
            "queries": (queries, query_ends, query_bytes, np.int8),
            "keys and values": (stream, key_value_ends, stream_bytes, np.int8),
            "output": (output, output_ends, output_bytes, np.int16),
        }
        group = TaskGroup()
        for transfer in transfers.streaming(plan, heads):
            buffer, ends, nbytes, dtype = parts[transfer.stream]
            _move(transfer, ends[transfer.column], buffer, nbytes, dtype, group)
        group.finish()

    inward = [_array(np.int8, query_bytes), _array(np.int8, stream_bytes)]
    outward = _array(np.int16, output_bytes // 2)
    runtime = Runtime(run, [*inward, outward, query_ends, key_value_ends, output_ends])
    return str(Program(_device(plan.columns), runtime, workers=workers).resolve_program())


def single_tile() -> str:
    """MLIR text of the single-tile program: one core, whose DMA cuts row-major matrices into blocks on the way in."""
    matrix = _array(np.int8, p.SINGLE_TILE * HEAD_DIM)
    work = _work_types(p.SINGLE_TILE_WORK)
    attention = Kernel("attention_single", OBJECT, [matrix, matrix, matrix, *work.values(), matrix])

    def core(inputs, outputs, state, scores, weights, attention):  # type: ignore[no-untyped-def]
        qkv = inputs.acquire(memory_map.SINGLE_TILE_INPUTS)
        output = outputs.acquire(1)
        attention(qkv[0], qkv[1], qkv[2], state, scores, weights, output)
        inputs.release(memory_map.SINGLE_TILE_INPUTS)
        outputs.release(1)

    shim = devices.Tile(0, SHIM_ROW)
    inputs = ObjectFifo(matrix, depth=memory_map.SINGLE_TILE_INPUT_DEPTH, name="input")
    outputs = ObjectFifo(matrix, depth=1, name="output")
    buffers = [Buffer(kind, name=name) for name, kind in work.items()]
    arguments = [inputs.cons(), outputs.prod(), *buffers, attention]
    worker = Worker(core, arguments, tile=devices.Tile(0, FIRST_CORE_ROW), stack_size=p.STACK_BYTES)

    def run(qkv, output, inward, outward):  # type: ignore[no-untyped-def]
        group = TaskGroup()
        parts = {
            "input": (qkv, inward, p.SINGLE_TILE_INPUT_BYTES),
            "output": (output, outward, p.SINGLE_TILE_OUTPUT_BYTES),
        }
        for transfer in transfers.single_tile():
            buffer, end, nbytes = parts[transfer.stream]
            _move(transfer, end, buffer, nbytes, np.int8, group)
        group.finish()

    sizes = [_array(np.int8, p.SINGLE_TILE_INPUT_BYTES), _array(np.int8, p.SINGLE_TILE_OUTPUT_BYTES)]
    runtime = Runtime(run, [*sizes, inputs.prod(tile=shim), outputs.cons(tile=shim)])
    return str(Program(_device(1), runtime, workers=[worker]).resolve_program())


def _array(dtype: type[Any], size: int) -> Any:
    return np.ndarray[(size,), np.dtype[dtype]]  # type: ignore[misc, valid-type]


def _work_types(work: Work) -> dict[str, Any]:
    """What a core works in, in the order in which its functions take it."""
    return {
        "state": _array(np.int32, work.state_words),
        "scores": _array(np.int16, work.score_halves),
        "weights": _array(np.int16, work.weight_halves),
    }


def _device(columns: int) -> Any:
    return getattr(devices, "NPU1" if columns == max(p.COLUMN_COUNTS) else f"NPU1Col{columns}")()


def _move(
    transfer: transfers.Transfer, end: Any, buffer: Any, nbytes: int, dtype: type[Any], group: Any
) -> None:
    """Put a transfer, its words as elements of the buffer's type, into the run's sequence; outputs are waited for."""
    size = np.dtype(dtype).itemsize
    elements = p.WORD_BYTES // size
    pattern = TensorAccessPattern(
        (1, nbytes // size),
        offset=transfer.offset * elements,
        sizes=[*transfer.sizes[:3], transfer.sizes[3] * elements],
        strides=[*(stride * elements for stride in transfer.strides[:3]), 1],
    )
    if transfer.stream == "output":
        end.drain(buffer, tap=pattern, wait=True, group=group)
    else:
        end.fill(buffer, tap=pattern, group=group)


def main() -> int:
    """Print the MLIR of the program that the options name."""
    parser = argparse.ArgumentParser(description="Print a device program as MLIR.")
    parser.add_argument("--single-tile", action="store_true", help="the single-tile program")
    parser.add_argument("--scores", default=SCORE_TYPES[0], choices=SCORE_TYPES, help="changes no MLIR")
    parser.add_argument("--tile-size", type=int, default=DEFAULT_TILE_SIZE, choices=TILE_SIZES)
    parser.add_argument("--columns", type=int, default=4, choices=p.COLUMN_COUNTS)
    parser.add_argument("--heads", type=int, default=8)
    options = parser.parse_args()
    if not 1 <= options.heads <= transfers.MAX_HEADS:
        parser.error(f"--heads has to be 1 to {transfers.MAX_HEADS}")
    plan = Plan(options.scores, options.tile_size, options.columns)
    print(single_tile() if options.single_tile else streaming(plan, options.heads))
    return 0


if __name__ == "__main__":
    sys.exit(main())
