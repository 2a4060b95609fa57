"""The batch of tiles: what is in it, and that nothing slips through it."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from kernels.device import DeviceError
from kernels.emulator import Emulator
from kernels.validation.batch import KINDS, Case, cases, run_batch
from kernels.workers import Workers


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator(Workers(1))


@pytest.mark.parametrize("tiles", [1, 2, 97, 300])
def test_a_batch_has_exactly_as_many_tiles_as_asked_for(tiles: int) -> None:
    batch = list(cases(tiles))
    assert sum(case.tiles for case in batch) == tiles
    assert [case.tile for case in batch] == [sum(case.tiles for case in batch[:i]) for i in range(len(batch))]


@pytest.fixture(scope="module")
def batch() -> list[Case]:
    return list(cases(300))


def test_every_kind_meets_every_tile_size_and_kernel(batch: list[Case]) -> None:
    met = Counter((case.kind, case.tile_size, case.scores) for case in batch)
    assert len(met) == len(KINDS) * 3 * 2
    assert {case.output_bits for case in batch} == {8, 16}
    assert {case.operands.v.shape[2] for case in batch} == {64, 128}
    assert {case.tiles for case in batch} == {1, 2, 3}


def test_every_case_keeps_to_the_contract_and_reaches_its_ends(batch: list[Case]) -> None:
    for case in batch:
        case.operands.check(case.tile_size, case.scores, case.output_bits)
    together: dict[str, set[int]] = {
        name: {int(n) for case in batch for n in np.unique(getattr(case.operands, name))}
        for name in ("q", "k", "v", "multiplier", "key_multiplier", "shift")
    }
    for name, low, high in (
        ("q", -128, 127),
        ("k", -128, 127),
        ("v", -128, 127),
        ("multiplier", 1, 32767),
        ("key_multiplier", 1, 255),
        ("shift", 2, 22),
    ):
        assert (min(together[name]), max(together[name])) == (low, high)
    assert min(case.operands.valid_keys for case in batch) == 1


def test_the_seed_alone_decides_the_operands() -> None:
    first, again, other = (list(cases(40, seed=seed)) for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        for field in fields(a.operands):
            assert np.array_equal(getattr(a.operands, field.name), getattr(b.operands, field.name))
        assert a.reference_rows == b.reference_rows
    assert not np.array_equal(first[0].operands.q, other[0].operands.q)


def test_the_counts_are_what_was_compared(emulator: Emulator) -> None:
    told: list[tuple[int, int]] = []
    found = run_batch(emulator, tiles=30, host=emulator, on_progress=lambda *counts: told.append(counts))
    batch = list(cases(30))
    by_reference, by_host = found.comparisons
    assert found.passed
    assert by_reference.rows == sum(len(case.reference_rows) for case in batch)
    assert {(case.tile_size, len(case.reference_rows)) for case in batch} == {(64, 8), (128, 4), (256, 2)}
    outputs = sum(len(case.reference_rows) * case.operands.v.shape[2] for case in batch)
    assert (by_reference.tiles, by_reference.outputs) == (30, outputs)
    assert (by_host.tiles, by_host.rows, by_host.outputs) == (30, 64 * len(batch), found.outputs)
    assert told[-1] == (30, 30)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_without_a_compiler_it_says_that_nothing_was_compared(emulator: Emulator) -> None:
    found = run_batch(emulator, tiles=1, host="there is no C++ compiler here")
    assert found.comparisons[1].missing == "there is no C++ compiler here"
    assert (found.comparisons[1].tiles, found.passed) == (0, True)


def test_the_compiled_aie2_source_gives_the_same_bits(emulator: Emulator) -> None:
    from kernels.npu.build.host_kernel import HostKernel

    try:
        host = HostKernel()
    except DeviceError as error:
        pytest.skip(str(error))
    found = run_batch(emulator, tiles=60, host=host)
    assert found.passed, found.summary()
    assert found.comparisons[1].tiles == 60


class Wrong(Emulator):
    """One more in one output, in one kind of run."""

    def __init__(self, row: int, column: int, **only: Any) -> None:
        super().__init__(Workers(1))
        self._place, self._only = (0, row, column), only

    def run(self, *arguments: Any, **options: Any) -> Any:
        result = super().run(*arguments, **options)
        if self._only.items() <= options.items():
            result[self._place] -= 1
        return result


def test_a_mismatch_is_found_and_named() -> None:
    run = {"scores": "int8", "tile_size": 64, "output_bits": 16}
    case = next(case for case in cases(400) if run.items() <= vars(case).items())
    row = case.reference_rows[3]
    found = run_batch(Wrong(row, 63, **run), tiles=400)
    mismatch = found.comparisons[0].mismatch
    assert mismatch is not None
    assert not found.passed
    assert (mismatch.row, mismatch.column, mismatch.scores, mismatch.tile_size) == (row, 63, "int8", 64)
    assert mismatch.found == mismatch.expected - 1
    assert found.tiles < 400  # it stops there
    assert f"tile {mismatch.tile} " in found.summary()
    assert f"the reference has {mismatch.expected}, the device {mismatch.found}" in found.summary()
    assert (case.case, case.tile, case.kind) == (mismatch.case, mismatch.tile, mismatch.kind)


def test_a_row_that_the_reference_leaves_out_is_compared_with_the_compiled_source(emulator: Emulator) -> None:
    first = next(iter(cases(1)))
    row = next(r for r in range(64) if r not in first.reference_rows)
    found = run_batch(Wrong(row, 0), tiles=1, host=emulator)
    by_reference, by_host = found.comparisons
    assert by_reference.mismatch is None
    assert by_host.mismatch is not None
    assert by_host.mismatch.row == row
    assert "the compiled AIE2 source has" in found.summary()


@pytest.mark.parametrize("wrong", [{"tiles": 0}, {"tile_sizes": ()}, {"scores": ()}])
def test_an_empty_batch_is_refused(emulator: Emulator, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one tile, one tile size and one kernel"):
        run_batch(emulator, **wrong)
