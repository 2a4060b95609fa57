"""The runtime over Debian 13's own XRT, before a driver that pretends: `make test-xrt`. No NPU is involved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

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


# A busy CPU may take longer for a layer than an NPU is given.
TRANSCRIBE = (
    "from app.cli import transcribe_main; from kernels.npu.runtime import device; "
    "device.TIMEOUT_MS = 60_000; transcribe_main()"
)


@pytest.fixture
def pretended() -> Pretended:
    return Pretended()


@pytest.fixture
def npu(pretended: Pretended) -> Iterator[NpuDevice]:
    with NpuDevice(timeout_ms=60_000) as opened:
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
def test_a_run_that_the_driver_ends_is_repeated_in_a_context_made_anew(
    pretended: Pretended, npu: NpuDevice, fault: str
) -> None:
    pretended.faults = {2: fault}
    chosen = random_operands(np.random.default_rng(1), 6, 100, 100)
    assert np.array_equal(npu.run(chosen), Emulator().run(chosen))
    assert (npu.rebuilds, pretended.runs) == (1, 4)
    assert (pretended.made["hw_context"], pretended.made["device"], pretended.alive["hw_context"]) == (
        2,
        1,
        1,
    )


def test_a_device_that_comes_back_is_waited_for(
    pretended: Pretended, npu: NpuDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended.lost_from = 2
    monkeypatch.setattr(time, "sleep", lambda _: setattr(pretended, "lost_from", None))
    chosen = random_operands(np.random.default_rng(1), 6, 100, 100)
    assert np.array_equal(npu.run(chosen), Emulator().run(chosen))
    assert (npu.rebuilds, pretended.made["device"]) == (1, 2)


def test_memory_that_runs_out_is_not_a_lost_device(pretended: Pretended, npu: NpuDevice) -> None:
    pretended.memory = pretended.taken + (1 << 20)
    chosen = random_operands(np.random.default_rng(1), 12, 100, 100)
    with pytest.raises(DeviceError, match=r"\(err=-12\).*not enough memory for its buffers"):
        npu.run(chosen)
    pretended.memory = 1 << 30
    assert np.array_equal(npu.run(chosen), Emulator().run(chosen))
    assert pretended.made["device"] == 1


def test_signals_and_other_threads_are_served_while_the_device_works(
    pretended: Pretended, npu: NpuDevice
) -> None:
    pretended.faults = {2: "slow"}  # 0.4 s
    chosen = random_operands(np.random.default_rng(1), 6, 100, 100)
    signals: list[int] = []
    turns = iter(range(1_000_000))
    over = threading.Event()

    def turn() -> None:
        while not over.wait(0.001):
            next(turns)

    other = threading.Thread(target=turn)
    before = signal.signal(signal.SIGALRM, lambda number, _: signals.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        other.start()
        found = npu.run(chosen)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        over.set()
        other.join()
    assert np.array_equal(found, Emulator().run(chosen))
    assert (npu.rebuilds, pretended.runs) == (0, 2)
    assert len(signals) > 5
    assert next(turns) > 50


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
        with pytest.raises(DeviceError, match=r"CREATE_HWCTX IOCTL failed \(err=-2\).*: it has six contexts"):
            open_npu()
        other.kill()
    with open_npu():
        pass


# What may leave a run at work keeps the device for as long as its process lives.
@pytest.mark.parametrize("again", [False, True])
def test_a_run_that_hangs_is_no_result(pretended: Pretended, again: bool) -> None:
    pretended.faults = {2: "hang", 4: "hang"} if again else {2: "hang"}
    said = in_a_process(
        "with NpuDevice(timeout_ms=300) as npu:",
        "    npu.run_single('int32', *np.zeros((3, 64, 64), np.int8))",
        "raise SystemExit(1)",
    )
    lost = "kernels.device.DeviceLost: the NPU is lost: the run did not complete within 300 ms, also after a fresh"
    assert said.startswith(lost) if again else not said


def test_a_device_that_goes_while_it_works_is_lost(pretended: Pretended) -> None:
    pretended.faults = {2: "lost while waiting"}
    said = in_a_process(
        "with NpuDevice(timeout_ms=300) as npu:",
        "    npu.run_single('int32', *np.zeros((3, 64, 64), np.int8))",
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


@pytest.mark.parametrize("run", ["single", "streaming"])
def test_ctrl_c_at_every_line_leaves_a_device_that_works(pretended: Pretended, run: str) -> None:
    assert in_a_process(f"KIND = {run!r}", *CTRL_C.splitlines()) == "every line"


# For each line that opening, loading, a run and closing pass through: Ctrl-C just before it, and then the same again. A
# streaming run, which takes longer, is interrupted in the lines of its own.
CTRL_C = """
import gc, signal, sys
from kernels.emulator import Emulator
from kernels.npu.program.layout import tile_operands
from kernels.npu.runtime import device, xrt
from standins.amdxdna import Pretended

FILES = (device.__file__, xrt.__file__)
OWN = {"_compute", "cut_heads", "_heads_of_run", "run", "_start", "_wait"}
device.compare = lambda *_, **how: None  # tested elsewhere, and slow
tile = np.random.default_rng(1).integers(-64, 64, (3, 64, 64)).astype(np.int8)
if KIND == "single":
    run = lambda npu: npu.run_single("int32", *tile)
    expected = Emulator().run(tile_operands("int32", *tile), output_bits=8)[0]
else:
    chosen = random_operands(np.random.default_rng(1), 5, 100, 100)  # a run of 6 heads, the least that there is
    run = lambda npu: npu.run(chosen)
    expected = Emulator().run(chosen)
pretended = Pretended()
seen = set()

def trace(frame, event, _):
    where = frame.f_code.co_filename, frame.f_lineno
    if where[0] not in FILES or (KIND == "streaming" and frame.f_code.co_name not in OWN):
        return None
    if event == "line" and where not in seen:
        seen.add(where)
        sys.settrace(None)
        signal.raise_signal(signal.SIGINT)
    return trace

gc.collect()
gc.freeze()
interrupted = True
while interrupted:
    npu, interrupted = None, False
    sys.settrace(trace)
    try:
        npu = NpuDevice(timeout_ms=60_000)
        run(npu)
        npu.close()
    except KeyboardInterrupt:
        interrupted = True
    sys.settrace(None)
    if npu is not None and npu._closed is None:
        assert np.array_equal(run(npu), expected), seen
        assert npu.rebuilds == 0
        npu.close()
    npu = None
    gc.collect()
    assert not any(pretended.alive.values()), (pretended.alive, seen)
assert len(seen) > (100 if KIND == "single" else 40), len(seen)
print("every line", file=sys.stderr)
raise SystemExit(1)
"""


def in_a_process(*lines: str) -> str:
    """Run lines in a process of their own; returns the last line of its traceback."""
    begin = (
        "import numpy as np",
        "from material.operands import random_operands",
        "from kernels.npu.runtime.device import NpuDevice",
    )
    command = [sys.executable, "-c", "\n".join((*begin, *lines))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode in (1, -signal.SIGINT), done.stderr
    assert done.stdout == ""
    return (done.stderr.splitlines() or [""])[-1]


def test_the_sample_is_transcribed_as_on_the_emulator(pretended: Pretended) -> None:
    words = [str(sample().audio), "--model", "tiny.en", "--device"]
    npu, emulator = (
        subprocess.run(
            [sys.executable, "-c", TRANSCRIBE, *words, device], capture_output=True, text=True, check=True
        )
        for device in ("npu", "emulator")
    )
    assert npu.stdout == emulator.stdout
    assert npu.stdout.startswith("The quiet harbor wakes before the sun")
    said = "tiny.en: int32 attention on the NPU: XRT names it pretended, the CPU computes; asked for\n"
    assert said in npu.stderr
    assert pretended.runs == 5  # the check, and the four layers
    assert (pretended.made["hw_context"], pretended.made["run"]) == (
        1,
        2,
    )  # one program: for 6 heads, and for 12


@pytest.mark.parametrize("run", [1, 3])
def test_ctrl_c_in_the_middle_of_a_window_ends_transcribe_in_order(pretended: Pretended, run: int) -> None:
    """At the check of the device, and with a layer in flight: it waits for that run, and starts no other."""
    pretended.faults, pretended.contexts = {run: "slow"}, 1
    command = [sys.executable, "-c", TRANSCRIBE, str(sample().audio), "--model", "tiny.en", "--device", "npu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while pretended.runs < run and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        text, notes = process.communicate(timeout=120)
    assert (process.returncode, text) == (130, "")
    assert "Traceback" not in notes
    assert "interrupted" in notes.splitlines()[-1]
    assert pretended.runs == run
    with open_npu():  # there is one context, and it is free
        pass


def test_ctrl_c_between_a_streams_segments_leaves_a_model_that_transcribes(pretended: Pretended) -> None:
    """Through the API, with the third run, a layer of the first window, in flight."""
    pretended.faults = {3: "slow"}
    said = in_a_process(
        "import signal, sys, threading, time",
        "from app.api import load_model",
        "from datasets.sample import sample",
        "from kernels.npu.runtime import device",
        "from standins.amdxdna import Pretended",
        "device.TIMEOUT_MS = 60_000",
        "model, pretended = load_model('tiny.en', backend='int32', device='npu'), Pretended()",
        "def interrupt():",
        "    while pretended.runs < 3:",
        "        time.sleep(0.01)",
        "    signal.raise_signal(signal.SIGINT)",
        "threading.Thread(target=interrupt).start()",
        "try:",
        "    list(model.stream(sample().audio))",
        "except KeyboardInterrupt:",
        "    began = pretended.runs",
        "text = ' '.join(segment.text.strip() for segment in model.stream(sample().audio))",
        "print(began, pretended.runs, text, file=sys.stderr)",
        "raise SystemExit(1)",
    )
    assert said.startswith("3 7 The quiet harbor wakes before the sun")


@pytest.mark.parametrize(
    "line",
    [
        "pyxrt.run(kernel).set_arg(8, buffer)",
        "view = buffer.map(); del buffer; gc.collect(); view[0]",
        "pretended.faults = {1: 'hang'}; run = pyxrt.run(kernel); run.start(); del run",
    ],
)
def test_what_ends_the_process_with_the_real_binding(pretended: Pretended, line: str) -> None:
    lines = (
        "import gc, pyxrt, sys",
        "from kernels.npu.build import store",
        "from kernels.npu.program.plan import Plan",
        "from standins.amdxdna import Pretended",
        "pretended = Pretended()",
        "device = pyxrt.device(0)",
        "xclbin = pyxrt.xclbin(str(store.by_heads(store.Program(Plan()))[6].xclbin))",
        "context = pyxrt.hw_context(device, device.register_xclbin(xclbin))",
        "kernel = pyxrt.kernel(context, 'MLIR_AIE')",
        "buffer = pyxrt.bo(device, 4096, pyxrt.bo.host_only, kernel.group_id(3))",
        line,
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, timeout=60, check=False
    )
    assert done.returncode in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS), done.stderr
