from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from standins import iron as iron_standin

from kernels.contract import TILE_SIZES
from kernels.npu.program import memory_map, transfers
from kernels.npu.program.plan import COLUMN_COUNTS, STACK_BYTES, Plan


@pytest.fixture
def design(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The design, on the stand-in of IRON."""
    for name, module in iron_standin.install().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "kernels.npu.program.aie.design", raising=False)
    yield importlib.import_module("kernels.npu.program.aie.design")
    sys.modules.pop("kernels.npu.program.aie.design", None)


def held(used: iron_standin.Used) -> dict[str, int]:
    """Bytes by the memory map's names, without numbers of columns and cores."""
    found: dict[str, int] = {}
    for name, nbytes in used.memory.items():
        plain = name.rstrip("0123456789_")
        plain = {"tiles": "keys and values", "stream": "keys and values"}.get(plain, plain)
        found[plain] = found.get(plain, 0) + nbytes
    return found


def assert_is_the_map(used: iron_standin.Used, tile: memory_map.TileMap) -> None:
    names = {region.name.split("#")[0] for region in tile.regions} - {"constants"}
    assert held(used) == {name: tile.of(name) for name in names}
    assert sorted(used.incoming) == sorted(tile.incoming)
    assert sorted(used.outgoing) == sorted(tile.outgoing)
    assert used.locks == tile.locks


@pytest.mark.parametrize("columns", COLUMN_COUNTS)
@pytest.mark.parametrize("tile_size", TILE_SIZES)
def test_what_the_streaming_design_allocates_is_what_the_memory_map_counts(
    design: ModuleType, tile_size: int, columns: int
) -> None:
    plan = Plan("int8", tile_size, columns)
    design.streaming(plan, 8)
    program, expected = iron_standin.resolved, memory_map.streaming(plan)
    assert expected.memory is not None
    assert program.columns == columns
    rows = {0: expected.shim, 1: expected.memory, **dict.fromkeys(range(2, 6), expected.core)}
    assert set(program.tiles) == {(column, row) for column in range(columns) for row in rows}
    for (_, row), used in program.tiles.items():
        assert_is_the_map(used, rows[row])
    assert all(worker.stack_size == STACK_BYTES for worker in program.workers)
    assert program.kernels == {"kernel.o"}


def test_what_the_single_tile_design_allocates_is_what_the_memory_map_counts(design: ModuleType) -> None:
    design.single_tile()
    program, expected = iron_standin.resolved, memory_map.single_tile()
    assert set(program.tiles) == {(0, 0), (0, 2)}
    assert_is_the_map(program.tiles[0, 0], expected.shim)
    assert_is_the_map(program.tiles[0, 2], expected.core)
    assert program.buffers == [12288, 4096]


@pytest.mark.parametrize("columns", COLUMN_COUNTS)
@pytest.mark.parametrize("tile_size", TILE_SIZES)
@pytest.mark.parametrize("heads", [1, *transfers.HEAD_COUNTS, transfers.MAX_HEADS])
def test_a_run_moves_what_the_description_says_and_waits_for_its_outputs(
    design: ModuleType, heads: int, tile_size: int, columns: int
) -> None:
    """Descriptors that the array's DMA cannot express are refused by the stand-in, as they are by the tool chain."""
    plan = Plan("int32", tile_size, columns)
    design.streaming(plan, heads)
    program = iron_standin.resolved
    assert program.buffers == list(plan.buffer_bytes(heads))
    numbers = {"queries": 0, "keys and values": 1, "output": 2}
    expected = [
        (t.column, numbers[t.stream], t.offset, t.sizes, t.strides) for t in transfers.streaming(plan, heads)
    ]
    assert [(m.tile[0], m.buffer, m.offset, m.sizes, m.strides) for m in program.moved] == expected
    assert [m.wait for m in program.moved] == [m.buffer == 2 for m in program.moved]
    assert [m.outgoing for m in program.moved] == [m.buffer != 2 for m in program.moved]


@pytest.mark.parametrize(
    ("sizes", "strides", "text"),
    [
        ((2, 1, 4, 0), (64, 0, 16, 1), "sizes"),
        ((1, 1, 1, 1024), (0, 0, 0, 1), "sizes"),
        ((1, 1, 1024, 4), (0, 0, 4, 1), "sizes"),
        ((65, 1, 4, 16), (64, 0, 16, 1), "sizes"),
        ((2, 1, 4, 16), (64, 0, 16, 2), "the innermost words do not lie together"),
        ((2, 3, 4, 16), (64, 0, 16, 1), "only the outermost stride may be 0"),
        ((2, 1, 4, 16), ((1 << 20) + 1, 0, 16, 1), "strides"),
        ((2, 1, 4, 16), (1 << 21, 0, 16, 1), "outside the tensor"),
    ],
)
def test_what_a_descriptor_cannot_express_is_refused(
    sizes: tuple[int, ...], strides: tuple[int, ...], text: str
) -> None:
    words = np.ndarray[(1 << 21,), np.dtype[np.int32]]  # type: ignore[misc, valid-type]
    end = iron_standin.ObjectFifo(words, name="words").prod(tile=iron_standin.Tile(0, 0))

    def run(buffer: Any, end: Any) -> None:
        pattern = iron_standin.TensorAccessPattern((1, 1 << 21), 0, sizes, strides)
        end.fill(buffer, tap=pattern, group=iron_standin.TaskGroup())

    with pytest.raises(AssertionError, match=text):
        iron_standin.Runtime(run, [words, end]).trace()


@pytest.mark.parametrize("tile_size", TILE_SIZES)
def test_a_core_takes_a_heads_tiles_for_each_block(design: ModuleType, tile_size: int) -> None:
    plan = Plan("int32", tile_size, 2)
    design.streaming(plan, 6)
    for worker in iron_standin.resolved.workers:
        queries, stream, output = worker.fifos
        assert (queries.taken, stream.taken, output.taken) == (1, plan.tiles, 1)
        start, tile, finish = worker.fn_args[-3:]
        assert (start.name, tile.name, finish.name) == (
            "attention_start",
            "attention_tile",
            "attention_finish",
        )


def test_only_the_run_differs_between_numbers_of_heads(design: ModuleType) -> None:
    plan = Plan()
    few, many = (design.streaming(plan, heads).split("aie.runtime_sequence") for heads in (6, 40))
    assert few[0] == many[0]
    assert few[1] != many[1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--tile-size", "256", "--columns", "1", "--heads", "6"], "columns = 1"),
        (["--single-tile"], "[12288, 4096]"),
    ],
)
def test_as_a_script_it_prints_the_program(
    design: ModuleType,
    options: list[str],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["design.py", *options])
    assert design.main() == 0
    assert text in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [["--heads", "0"], ["--heads", "65"], ["--tile-size", "32"], ["--columns", "5"]]
)
def test_options_that_no_program_has_are_refused(
    design: ModuleType, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["design.py", *options])
    with pytest.raises(SystemExit) as stopped:
        design.main()
    assert stopped.value.code == 2
