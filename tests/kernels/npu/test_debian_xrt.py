"""The runtime over Debian 13's own XRT, before a driver that pretends: `make test-xrt`. No NPU is involved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from material.operands import random_operands
from standins.amdxdna import SHARED, Pretended

from datasets.sample import sample
from kernels.device import DeviceError
from kernels.emulator import Emulator
from kernels.npu.program.layout import tile_operands
from kernels.npu.runtime.device import NpuDevice, open_npu
from kernels.npu.runtime.xrt import Launch

pytestmark = pytest.mark.skipif(SHARED not in os.environ, reason="make test-xrt runs it, in Debian 13")


@pytest.fixture
def pretended() -> Pretended:
    return Pretended()


@pytest.fixture
def npu(pretended: Pretended) -> Iterator[NpuDevice]:
    with NpuDevice(timeout_ms=2000) as opened:
        opened.load()
        yield opened


def test_a_tile_is_the_contracts(npu: NpuDevice) -> None:
    q, k, v = np.random.default_rng(3).integers(-64, 64, (3, 64, 64)).astype(np.int8)
    expected = Emulator().run(tile_operands("int32", q, k, v), scores="int32", output_bits=8)[0]
    assert np.array_equal(npu.run_single("int32", q, k, v), expected)


@pytest.mark.parametrize(("scores", "tile_size"), [("int32", 64), ("int32", 128), ("int8", 256)])
def test_a_layer_of_heads_has_the_emulators_bits(npu: NpuDevice, scores: str, tile_size: int) -> None:
    chosen = random_operands(np.random.default_rng(1), 8, 1500, 1500)
    how: dict[str, object] = {"scores": scores, "tile_size": tile_size}
    assert np.array_equal(npu.run(chosen, **how), Emulator().run(chosen, **how))  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["TO", "FROM"])
def test_a_missing_sync_is_noticed(npu: NpuDevice, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    first, second = (random_operands(np.random.default_rng(seed), 6, 100, 100) for seed in (1, 2))
    npu.run(first)
    honest = Launch._sync
    monkeypatch.setattr(
        Launch, "_sync", lambda self, buffer, way: way == missing or honest(self, buffer, way)
    )
    expected = Emulator().run(second)
    assert not np.array_equal(npu.run(second), expected)
    monkeypatch.undo()
    assert np.array_equal(npu.run(second), expected)


@pytest.mark.parametrize("fault", ["error", "abort", "timeout"])
def test_a_run_that_the_driver_ends_is_repeated_on_a_device_opened_anew(
    pretended: Pretended, npu: NpuDevice, fault: str
) -> None:
    pretended.faults = {2: fault}
    chosen = random_operands(np.random.default_rng(1), 6, 100, 100)
    assert np.array_equal(npu.run(chosen), Emulator().run(chosen))
    assert (npu.rebuilds, pretended.runs) == (1, 4)


def test_contexts_of_another_process_are_in_the_way_until_it_ends(pretended: Pretended) -> None:
    pretended.contexts = 1
    held = (
        "from kernels.npu.runtime.device import open_npu; n = open_npu(); print('open', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(DeviceError, match=r"CREATE_HWCTX IOCTL failed \(err=-2\)"):
            open_npu()
        other.kill()
    with open_npu():
        pass


# What may leave a run at work keeps the device for as long as its process lives.
def test_a_run_that_hangs_is_no_result(pretended: Pretended) -> None:
    pretended.faults = {2: "hang", 4: "hang"}
    said = in_a_process(
        "with NpuDevice(timeout_ms=300) as npu:",
        "    npu.run(random_operands(np.random.default_rng(1), 6, 100, 100))",
    )
    assert said.startswith("kernels.device.DeviceLost: the NPU is lost: ")


def test_a_device_that_goes_while_it_works_is_lost(pretended: Pretended) -> None:
    pretended.faults = {2: "lost while waiting"}
    said = in_a_process(
        "with NpuDevice(timeout_ms=300) as npu:",
        "    npu.run(random_operands(np.random.default_rng(1), 6, 100, 100))",
    )
    assert said.startswith("kernels.device.DeviceLost: the NPU is lost: ")
    assert "No such device" in said


def test_ctrl_c_while_the_device_works_waits_for_it(pretended: Pretended) -> None:
    pretended.faults = {2: "slow"}
    said = in_a_process(
        "import signal, threading, time",
        "with NpuDevice() as npu:",
        "    npu.load()",
        "    threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()",
        "    npu.run(random_operands(np.random.default_rng(1), 6, 100, 100))",
        "    time.sleep(1)",
    )
    assert said == "KeyboardInterrupt"
    assert (pretended.runs, pretended.alive["run"]) == (2, 0)


def in_a_process(*lines: str) -> str:
    """Run lines in a process of their own; returns the last line of its traceback."""
    begin = (
        "import numpy as np",
        "from material.operands import random_operands",
        "from kernels.npu.runtime.device import NpuDevice",
    )
    command = [sys.executable, "-c", "\n".join((*begin, *lines))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (1, -signal.SIGINT), done.stderr
    return done.stderr.splitlines()[-1]


def test_the_sample_is_transcribed_as_on_the_emulator(pretended: Pretended, scripts: Path) -> None:
    words = ["--model", "tiny.en", "--quiet", str(sample().audio)]
    texts = [
        subprocess.run(
            [scripts / "transcribe", "--device", device, *words], capture_output=True, text=True, check=True
        ).stdout
        for device in ("npu", "emulator")
    ]
    assert texts[0] == texts[1]
    assert texts[0].startswith("The quiet harbor wakes before the sun")
    assert pretended.runs == 5  # the check, and the four layers
