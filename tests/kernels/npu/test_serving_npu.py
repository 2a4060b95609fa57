"""A server whose NPU hangs, before a strict stand-in for pyxrt: no part of this has run on an NPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from material.servers import serving, until
from standins.machine import Machine

from app import load_model
from datasets.utterance import Utterance
from kernels.npu.runtime import device


def test_health_answers_while_a_run_hangs_and_then_tells_that_the_npu_is_lost(
    machine: Machine, spoken: Utterance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "TIMEOUT_MS", 1000)
    model = load_model("tiny.en", "int32", "npu")
    before = machine.runs
    machine.faults = {before + 1: "hang", before + 3: "hang"}
    with serving(model) as served, ThreadPoolExecutor(2) as clients:

        def ask() -> requests.Response:
            return requests.post(
                f"{served.url}/inference", files={"file": spoken.audio.read_bytes()}, timeout=600
            )

        asked = [clients.submit(ask) for _ in range(2)]
        until(lambda: machine.runs > before)
        meanwhile = []
        while not any(one.done() for one in asked):
            meanwhile.append(requests.get(f"{served.url}/health", timeout=60).status_code)
        assert meanwhile[0] == 200
        assert len(meanwhile) > 3
        for one in asked:
            assert one.result().status_code == 503
            assert one.result().json()["error"]["code"] == "device_lost"
        assert requests.get(f"{served.url}/health", timeout=60).status_code == 503
        assert "tilescribe_healthy 0.0" in requests.get(f"{served.url}/metrics", timeout=60).text
