"""The AIE2 source, compiled for the host, against the reference and the emulator."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material.operands import least_sum, random_operands
from places import ROOT

from kernels import contract as c
from kernels import reference
from kernels.device import DeviceError
from kernels.emulator import Emulator
from kernels.npu.build import host_kernel
from kernels.npu.build.host_kernel import HostKernel
from kernels.npu.program import plan
from kernels.npu.program.layout import tile_operands
from kernels.npu.program.plan import Plan


@pytest.fixture(scope="module")
def host() -> HostKernel:
    if host_kernel.compiler() is None:
        pytest.skip("there is no C++ compiler here")
    return HostKernel()


def assert_equals_the_reference(host: HostKernel, operands: c.Operands, **how: Any) -> None:
    np.testing.assert_array_equal(host.run(operands, **how), reference.attention(operands, **how))


@pytest.mark.parametrize("scores", ["int32", "int8"])
@pytest.mark.parametrize("tiles", [1000, pytest.param(5000, marks=pytest.mark.slow)])
def test_thousands_of_random_tiles_equal_the_reference(
    host: HostKernel, scores: c.ScoreType, tiles: int
) -> None:
    random = np.random.default_rng(11 if scores == "int32" else 12)
    for _ in range(0, tiles, plan.PADDED_TOKENS // 64):
        valid = plan.PADDED_TOKENS - int(random.integers(0, 40))
        operands = random_operands(random, 1, 1, plan.PADDED_TOKENS, valid_keys=valid)
        assert_equals_the_reference(host, operands, scores=scores)


@pytest.mark.parametrize(
    ("scores", "tile_size", "output_bits", "width"),
    list(itertools.product(["int32", "int8"], [64, 128, 256], [16, 8], [64, 128])),
)
def test_every_program_equals_the_reference(
    host: HostKernel, scores: c.ScoreType, tile_size: int, output_bits: int, width: int
) -> None:
    random = np.random.default_rng([tile_size, output_bits, width])
    for rows, keys in ((1, 1), (5, tile_size), (3, tile_size + 9), (2, 3 * tile_size - 1)):
        v = random.integers(-128, 128, (2, keys, width)).astype(np.int8)
        operands = random_operands(random, 2, rows, keys, v=v)
        assert_equals_the_reference(
            host, operands, scores=scores, tile_size=tile_size, output_bits=output_bits
        )


@pytest.mark.parametrize(("scores", "tile_size"), list(itertools.product(["int32", "int8"], [64, 128, 256])))
def test_whole_runs_equal_the_emulator(host: HostKernel, scores: c.ScoreType, tile_size: int) -> None:
    random = np.random.default_rng(tile_size)
    emulator = Emulator()
    for _ in range(3):
        operands = random_operands(random, 3, 200, plan.PADDED_TOKENS)
        how: Any = {"scores": scores, "tile_size": tile_size}
        np.testing.assert_array_equal(host.run(operands, **how), emulator.run(operands, **how))


@pytest.mark.parametrize("scores", ["int32", "int8"])
@pytest.mark.parametrize("shift", [c.SHIFT_MIN, 16, c.SHIFT_MAX])
def test_extremes_equal_the_reference(host: HostKernel, scores: c.ScoreType, shift: int) -> None:
    """The ends of every operand's range, in every combination: nothing overflows (the stand-in would refuse it)."""
    keys, valid = 136, 130
    for q, k, v in itertools.product((-128, 127, 0, 1), (-128, 127), (-128, 127)):
        for multiplier, key_multiplier in itertools.product((1, c.MULTIPLIER_MAX), (1, 255)):
            operands = c.Operands(
                q=np.full((1, 1, 64), q, np.int8),
                k=np.full((1, keys, 64), k, np.int8)
                * np.where(np.arange(keys) % 7 < 5, 1, 0).astype(np.int8)[None, :, None],
                v=np.full((1, keys, 64), v, np.int8),
                key_multiplier=np.full((1, keys), key_multiplier, np.uint8),
                multiplier=np.full((1, 1), multiplier, np.uint16),
                shift=np.array([shift], np.int32),
                valid_keys=valid,
            )
            assert_equals_the_reference(host, operands, scores=scores)


@pytest.mark.parametrize("key", [0, 1, 2, 3, 24, 25, 26, 59, 60, 61, 62, 63, 64, 66, 127])
@pytest.mark.parametrize("rising", [True, False])
def test_merging_across_any_distance_of_exponents(host: HostKernel, key: int, rising: bool) -> None:
    """Two tiles whose logits lie 127 * `key` / 256 octaves apart, half an octave a step: shifts of 0 to 63."""
    keys = np.zeros((1, 128, 64), np.int8)
    keys[0, (np.arange(128) >= 64) == rising, :32] = key
    q = np.zeros((1, 1, 64), np.int8)
    q[0, 0, :32] = 127
    operands = c.Operands(
        q=q,
        k=keys,
        v=np.random.default_rng(key).integers(-128, 128, (1, 128, 64)).astype(np.int8),
        key_multiplier=np.full((1, 128), 255, np.uint8),
        multiplier=np.array([[4]], np.uint16),
        shift=np.array([2], np.int32),
        valid_keys=128,
    )
    assert_equals_the_reference(host, operands)


def test_the_least_sum_has_its_reciprocal(host: HostKernel) -> None:
    assert_equals_the_reference(host, least_sum())


@pytest.mark.parametrize("valid", range(1, 65))
def test_every_number_of_valid_keys(host: HostKernel, valid: int) -> None:
    operands = random_operands(np.random.default_rng(valid), 1, 1, 64, valid_keys=valid)
    assert_equals_the_reference(host, operands)


@pytest.mark.parametrize("scores", ["int32", "int8"])
def test_the_single_tile_equals_the_reference(host: HostKernel, scores: c.ScoreType) -> None:
    """The bring-up run: row-major bytes in and out, the scale fixed to that of softmax(Q K^T / 8) V."""
    random = np.random.default_rng(42)
    for spread in (64, 128, 3):
        data = random.integers(-spread, spread, (3, 64, 64)).astype(np.int8)
        operands = tile_operands(scores, *data)
        output = np.zeros(4096, np.uint8)
        host.run_single(scores, data.reshape(-1).view(np.uint8), output)
        expected = reference.attention(operands, scores=scores, output_bits=8)[0]
        np.testing.assert_array_equal(output.view(np.int8).reshape(64, 64), expected)


def test_buffers_of_another_size_are_refused(host: HostKernel) -> None:
    program = Plan()
    queries, stream, output = (np.zeros(size, np.uint8) for size in program.buffer_bytes(1))
    with pytest.raises(DeviceError, match="a buffer of 104448 bytes, where the run has 208896"):
        host.run_buffers(program, 2, queries, stream, output)
    with pytest.raises(DeviceError, match="a single tile: 12288 bytes in, 4096 out"):
        host.run_single("int32", np.zeros(4096, np.uint8), np.zeros(4096, np.uint8))


def test_what_the_source_may_not_do_is_an_error_and_not_a_result(host: HostKernel) -> None:
    """A multiplier outside the contract overflows the device's 32 bits: the stand-in says so."""
    program = Plan()
    queries, stream, output = (np.zeros(size, np.uint8) for size in program.buffer_bytes(1))
    header = queries[: plan.QUERY_BLOCK_BYTES][-64:].view("<i4")
    header[:3] = 70, 64, 16
    with pytest.raises(DeviceError, match="does what the device does not: SRS: the shift is out of range"):
        host.run_buffers(program, 1, queries, stream, output, rows=32)


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    host_kernel._library.cache_clear()
    with pytest.raises(DeviceError, match=r"no C\+\+ compiler here; install g\+\+ or clang\+\+"):
        HostKernel()


def test_a_compiler_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "c++"
    broken.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo broken $$ && exit\necho 'x:1: error: no luck' >&2; exit 1\n"
    )
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("TILESCRIBE_CACHE", str(tmp_path / "cache"))
    host_kernel._library.cache_clear()
    with pytest.raises(DeviceError, match="cannot compile the AIE2 source: x:1: error: no luck"):
        HostKernel()
    host_kernel._library.cache_clear()
    assert [path.name for path in (tmp_path / "cache").rglob("*")] == ["host"]


def test_the_stand_in_computes_what_aie_api_documents(tmp_path: Path) -> None:
    """Each operation by itself against values worked out by hand, and what it has to refuse."""
    chosen = host_kernel.compiler()
    if chosen is None:
        pytest.skip("there is no C++ compiler here")
    program = tmp_path / "stand_in"
    include = ROOT / "kernels" / "npu" / "program" / "aie" / "host"
    flags = ("-std=c++20", "-Wall", "-Wextra", "-Werror", "-I", str(include))
    source = ROOT / "tests" / "standins" / "aie.cc"
    subprocess.run([chosen, *flags, str(source), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
