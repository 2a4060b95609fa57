"""The NPU's runtime before a strict stand-in for pyxrt: no part of this has run on an NPU."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material.operands import random_operands
from standins.machine import Machine, build_programs

from kernels import contract as c
from kernels.device import DeviceError
from kernels.emulator import Emulator
from kernels.npu.program.layout import tile_operands
from kernels.npu.runtime.device import NpuDevice, cut_heads, open_npu


@pytest.fixture
def few_heads(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Programs for one head and two: less to compute."""
    build_programs(monkeypatch, tmp_path / "few", (1, 2))


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator()


def operands(heads: int, rows: int, keys: int, valid: int, columns: int = 64, seed: int = 0) -> c.Operands:
    random = np.random.default_rng(seed)
    v = random.integers(-128, 128, (heads, keys, columns)).astype(np.int8)
    shift = random.integers(14, 20, heads).astype(np.int32)
    return random_operands(random, heads, rows, keys, v=v, shift=shift, valid_keys=valid)


@pytest.mark.parametrize(
    ("scores", "tile_size", "bits", "shape"),
    [
        ("int32", 64, 16, (6, 1500, 1500, 1500, 64)),
        ("int32", 64, 8, (6, 1536, 1536, 1, 64)),
        ("int32", 128, 16, (6, 1, 70, 65, 128)),
        ("int32", 256, 16, (8, 33, 1536, 1300, 64)),
        ("int8", 64, 16, (8, 129, 200, 130, 64)),
        ("int8", 128, 8, (7, 40, 128, 128, 64)),
        ("int8", 256, 16, (3, 1500, 1536, 1500, 128)),
        # numbers of heads that there are no instructions for
        ("int32", 64, 16, (1, 20, 64, 60)),
        ("int32", 64, 16, (7, 20, 64, 60)),
        ("int32", 64, 16, (13, 20, 64, 60)),
        ("int32", 64, 16, (30, 20, 64, 60)),
        ("int32", 64, 16, (0, 10, 64, 64)),
    ],
)
def test_the_bits_are_the_emulators(
    machine: Machine, emulator: Emulator, scores: Any, tile_size: int, bits: int, shape: tuple[int, ...]
) -> None:
    chosen = operands(*shape)
    how: Any = {"scores": scores, "tile_size": tile_size, "output_bits": bits}
    with NpuDevice() as npu:
        found = npu.run(chosen, **how)
    assert (found.dtype, found.shape) == (np.int16, chosen.q.shape[:2] + chosen.v.shape[2:])
    assert np.array_equal(found, emulator.run(chosen, **how))


@pytest.mark.parametrize(("scores", "tile_size"), [("int32", 64), ("int8", 256)])
def test_the_bytes_are_what_the_aie2_source_takes(
    machine: Machine, few_heads: None, emulator: Emulator, scores: c.ScoreType, tile_size: int
) -> None:
    machine.cores = "host"
    chosen = operands(1, 1500, 1500, 1400)
    with NpuDevice() as npu:
        found = npu.run(chosen, scores=scores, tile_size=tile_size)
        assert np.array_equal(found, emulator.run(chosen, scores=scores, tile_size=tile_size))
        q, k, v = (x[0, :64] for x in (chosen.q, chosen.k, chosen.v))
        expected = emulator.run(tile_operands(scores, q, k, v), scores=scores, output_bits=8)[0]
        assert np.array_equal(npu.run_single(scores, q, k, v), expected)


def test_a_run_leaves_nothing_of_the_one_before(machine: Machine, emulator: Emulator) -> None:
    with NpuDevice() as npu:
        for shape in ((6, 1536, 1536, 1536), (6, 5, 70, 3), (2, 1536, 64, 64), (6, 5, 70, 3)):
            chosen = operands(*shape, seed=shape[0])
            assert np.array_equal(npu.run(chosen), emulator.run(chosen))


@pytest.mark.parametrize(
    ("heads", "counts", "runs"),
    [
        (6, (6, 8, 12), (6,)),
        (7, (6, 8, 12), (8,)),
        (12, (6, 8, 12), (12,)),
        (14, (6, 8, 12), (8, 6)),
        (16, (6, 8, 12), (8, 8)),
        (1, (6, 8, 12), (6,)),
        (48, (6, 8, 12, 16, 20, 24, 32, 40), (40, 8)),
        (36, (6, 8, 12, 16, 20, 24, 32, 40), (24, 12)),
        (41, (6, 8, 12, 16, 20, 24, 32, 40), (24, 12, 6)),
        (25, (8,), (8, 8, 8, 8)),
        (0, (6,), ()),
    ],
)
def test_heads_are_cut_into_the_runs_that_there_are(
    heads: int, counts: tuple[int, ...], runs: tuple[int, ...]
) -> None:
    assert cut_heads(heads, counts) == cut_heads(heads, counts[::-1]) == runs


def test_a_thousand_runs_make_nothing_new(machine: Machine, few_heads: None) -> None:
    with NpuDevice() as npu:
        npu.load()
        chosen = operands(1, 8, 64, 64)
        npu.run(chosen)
        npu.run(replace(chosen, v=np.zeros((1, 64, 128), np.int8)))
        machine.cores = "nothing"
        before = machine.made.copy()
        for _ in range(1000):
            npu.run(chosen)
        assert machine.made == before
        # instructions, queries, keys and values, output: for one head (which the check ran with) and for two
        assert (before["bo"], before["run"], before["hw_context"], before["device"]) == (8, 2, 1, 1)
    gc.collect()
    assert {kind: n for kind, n in machine.alive.items() if n} == {}
    assert machine.taken == 0


def test_what_was_returned_is_the_callers_own(machine: Machine) -> None:
    npu = NpuDevice()
    first = npu.run(operands(6, 8, 64, 64))
    kept = first.copy()
    npu.run(operands(6, 8, 64, 64, seed=1))
    npu.close()
    gc.collect()
    assert np.array_equal(first, kept)


def test_each_program_has_its_context_and_is_checked_once(machine: Machine) -> None:
    with NpuDevice() as npu:
        npu.load("int32", 64)
        assert machine.runs == 1
        npu.load("int32", 64)
        assert machine.runs == 1
        npu.load("int8", 64)
        assert (machine.runs, machine.alive["hw_context"], machine.alive["device"]) == (2, 2, 1)


def test_contexts_that_are_not_in_use_give_way(machine: Machine, emulator: Emulator) -> None:
    machine.contexts = 1
    chosen = operands(6, 8, 64, 64)
    with NpuDevice() as npu:
        for scores in ("int32", "int8", "int32"):
            assert np.array_equal(npu.run(chosen, scores=scores), emulator.run(chosen, scores=scores))
        assert (machine.alive["hw_context"], npu.rebuilds) == (1, 0)


def test_threads_take_turns(machine: Machine, emulator: Emulator) -> None:
    jobs = [operands(6, 20, 64, 64, seed=i) for i in range(6)]
    with NpuDevice() as npu, ThreadPoolExecutor(len(jobs)) as threads:
        found = list(threads.map(npu.run, jobs))
    assert all(np.array_equal(one, emulator.run(job)) for one, job in zip(found, jobs, strict=True))


def test_the_single_tile_is_the_contracts(machine: Machine, emulator: Emulator) -> None:
    random = np.random.default_rng(3)
    q, k, v = random.integers(-64, 64, (3, 64, 64)).astype(np.int8)
    with NpuDevice() as npu:
        for scores in ("int32", "int8"):
            expected = emulator.run(tile_operands(scores, q, k, v), scores=scores, output_bits=8)[0]
            found = npu.run_single(scores, q, k, v)
            assert found.dtype == np.int8
            assert np.array_equal(found, expected)


def test_what_does_not_fit_is_refused_before_the_device_sees_it(machine: Machine) -> None:
    with NpuDevice() as npu:
        good = operands(6, 8, 64, 64)
        for bad, said in (
            (operands(6, 1537, 64, 64), "1537 rows and 64 keys: a run on the NPU takes 1536 of each"),
            (operands(6, 8, 2048, 64), "8 rows and 2048 keys"),
            (replace(good, multiplier=good.multiplier.astype(np.int32)), "multiplier has to be uint16"),
            (replace(good, shift=np.full(6, 40, np.int32)), "a shift is outside"),
        ):
            with pytest.raises(c.ContractError, match=said):
                npu.run(bad)
        tile: Any = np.zeros((64, 64), np.int8)
        for scores, q, v, said in (
            (
                "int32",
                tile,
                tile[:63],
                r"v of a single tile has to be int8, \(64, 64\), not int8, \(63, 64\)",
            ),
            ("int32", tile.astype(np.float32), tile, "q of a single tile has to be int8"),
            ("fp16", tile, tile, "scores 'fp16'"),
        ):
            with pytest.raises(c.ContractError, match=said):
                npu.run_single(scores, q, tile, v)  # type: ignore[arg-type]
    assert machine.runs == 0


def test_a_closed_device_runs_no_more(machine: Machine) -> None:
    npu = NpuDevice()
    npu.close()
    npu.close()
    with pytest.raises(DeviceError, match="the NPU was closed; open it again"):
        npu.run(operands(6, 8, 64, 64))


def test_a_single_tile_with_other_bits_is_refused(machine: Machine) -> None:
    machine.corrupt_from = 1
    tile: Any = np.zeros((64, 64), np.int8)
    with NpuDevice() as npu, pytest.raises(DeviceError, match="NPU's program int8_single disagrees"):
        npu.run_single("int8", tile, tile, tile)


def test_what_is_not_built_is_said(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TILESCRIBE_KERNELS", str(tmp_path / "none"))
    tile: Any = np.zeros((64, 64), np.int8)
    with pytest.raises(DeviceError, match=r"^there is no build of int8_t128_c4 in .*none: "):
        open_npu("int8", 128)
    with NpuDevice() as npu, pytest.raises(DeviceError, match=r"^there is no build of int32_single in "):
        npu.run_single("int32", tile, tile, tile)
