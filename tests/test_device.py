from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels.device import DeviceError, open_device
from kernels.emulator import Emulator


def test_without_an_npu_auto_is_the_emulator_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glob.glob", lambda _: [])
    opened = open_device("auto")
    assert (opened.device.name, opened.reason) == (
        "emulator",
        "there is no NPU here (/dev/accel/accel* is absent)",
    )


def test_with_an_npu_this_version_still_says_that_it_cannot_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glob.glob", lambda _: ["/dev/accel/accel0"])
    opened = open_device("auto")
    assert (opened.device.name, opened.reason) == ("emulator", "this version has no NPU runtime yet")


def test_npu_never_falls_back() -> None:
    with pytest.raises(DeviceError, match="--device emulator computes the same bits on the CPU"):
        open_device("npu")


def test_an_emulator_that_is_not_the_reference_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Emulator.run

    def off_by_one(self: Emulator, *arguments: Any, **options: Any) -> Any:
        result = honest(self, *arguments, **options)
        result[0, 0, 0] += np.int16(1)
        return result

    monkeypatch.setattr(Emulator, "run", off_by_one)
    with pytest.raises(
        DeviceError, match=r"the emulator disagrees with the reference; .* remove __pycache__"
    ):
        open_device("emulator")
