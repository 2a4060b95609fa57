"""For whoever has the device: the real NPU against the reference and the emulator, bit for bit, and a verdict.

`python -m pytest -m hardware tests/kernels/npu/test_hardware.py` runs it. Where the NPU cannot be used every test
skips and says why; what is not built is skipped, and the verdict fails where no streaming program with INT32 scores
was validated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from material.operands import random_operands

from app import load_model
from app.audio.reading import load_audio
from datasets.utterance import Utterance
from kernels import reference
from kernels.contract import SCORE_TYPES, ScoreType
from kernels.emulator import Emulator
from kernels.npu.build import store
from kernels.npu.build.store import BuildError, Program
from kernels.npu.cost import plans
from kernels.npu.diagnosis import npu_obstacle
from kernels.npu.program.layout import tile_operands
from kernels.npu.program.plan import PADDED_TOKENS, ROWS_PER_CORE, Plan
from kernels.npu.runtime.device import NpuDevice
from kernels.validation import tile_data
from models.features import LogMelFeatures

pytestmark = pytest.mark.hardware

passed: list[str] = []
"""What agreed bit for bit, for the verdict."""

rebuilds: list[int] = []


@pytest.fixture(autouse=True)
def _obstacle() -> None:
    obstacle = npu_obstacle()
    if obstacle is not None:
        pytest.skip(str(obstacle))


def opened(columns: int) -> Iterator[NpuDevice]:
    with NpuDevice(columns=columns) as device:
        yield device
        rebuilds.append(device.rebuilds)


@pytest.fixture
def npu() -> Iterator[NpuDevice]:
    yield from opened(4)


def built(plan: Plan) -> list[int]:
    try:
        return sorted(store.by_heads(Program(plan)))
    except BuildError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("scores", SCORE_TYPES)
def test_single_tile(npu: NpuDevice, scores: ScoreType) -> None:
    try:
        store.find(Program(scores))
    except BuildError as error:
        pytest.skip(str(error))
    q, k, v = tile_data()
    expected = reference.attention(tile_operands(scores, q, k, v), scores=scores, output_bits=8)[0]
    for _ in range(3):
        assert np.array_equal(npu.run_single(scores, q, k, v), expected)
    passed.append(f"single tile {scores}")


@pytest.mark.parametrize("plan", plans(), ids=lambda plan: plan.name)
def test_streaming(plan: Plan) -> None:
    counts = built(plan)
    emulator = Emulator()
    how: Any = {"scores": plan.scores, "tile_size": plan.tile_size}
    random = np.random.default_rng(7)
    for npu in opened(plan.columns):
        for heads in counts:
            for valid, bits in ((PADDED_TOKENS, 16), (1500, 16), (plan.tile_size + 1, 8)):
                chosen = random_operands(random, heads, PADDED_TOKENS, PADDED_TOKENS, valid_keys=valid)
                found, expected = (one.run(chosen, output_bits=bits, **how) for one in (npu, emulator))
                assert np.array_equal(found, expected), (heads, valid, bits)
        # 128 value columns, fewer rows, a number of heads without instructions; by the reference, a row of each core
        wide = random.integers(-128, 128, (3, 700, 128)).astype(np.int8)
        chosen = random_operands(random, 3, 1500, 700, v=wide, valid_keys=300)
        found = npu.run(chosen, **how)
        assert np.array_equal(found, emulator.run(chosen, **how))
        rows = np.arange(0, 1500, ROWS_PER_CORE)
        some = replace(chosen, q=chosen.q[:, rows], multiplier=chosen.multiplier[:, rows])
        assert np.array_equal(found[:, rows], reference.attention(some, **how))
    passed.append(f"{plan.name} with {', '.join(map(str, counts))} heads")


def test_encoder_window(spoken: Utterance) -> None:
    built(Plan())
    with LogMelFeatures([load_audio(spoken.audio)]) as features:
        mel = features.window(0, 1400, pad_to=3000)[None]
    states = {name: load_model("tiny.en", "int32", name).encoder(mel).numpy() for name in ("npu", "emulator")}
    assert np.array_equal(states["npu"], states["emulator"])
    passed.append("a window of tiny.en's encoder")


def test_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    """Last in this file: what the device has shown, in a line."""
    with capsys.disabled():
        shown = "; ".join(passed) or "nothing"
        print(
            f"\nNPU, bit for bit equal to the reference and the emulator: {shown}. Opened anew: {sum(rebuilds)} times."
        )
    assert any(what.startswith("int32_") for what in passed), "no streaming program was validated"
