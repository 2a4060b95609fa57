"""The disk that temporary files take: looked for before, and said."""

from __future__ import annotations

import errno
import logging
import shutil
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest

from models.features import LogMelFeatures
from models.temporary import NoRoomError, temporary_file


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=500_000_000))


@pytest.mark.usefixtures("free")
def test_the_room_that_long_audio_takes_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for seconds in (None, 1800.0, 7200.0):
        LogMelFeatures([np.zeros(1600, np.float32)], expected=seconds).close()
    assert caplog.messages == [
        f"audio of 2.0 h takes 0.2 GB of temporary files in {tempfile.gettempdir()}, where 0.5 GB are free"
    ]


@pytest.mark.usefixtures("free")
def test_without_the_room_nothing_is_read() -> None:
    blocks = iter([np.zeros(1600, np.float32)])
    with pytest.raises(NoRoomError) as caught:
        LogMelFeatures(blocks, 128, expected=36000.0)
    assert len(list(blocks)) == 1
    assert caught.value.filename == tempfile.gettempdir()
    assert caught.value.strerror == (
        "audio of 10.0 h takes 1.8 GB of temporary files, and 0.5 GB are free; "
        "TMPDIR=FOLDER puts temporary files into another folder"
    )


@pytest.mark.parametrize("full", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_is_named(full: int) -> None:
    with pytest.raises(NoRoomError, match=r"; TMPDIR=FOLDER puts") as caught, temporary_file():
        raise OSError(full, "No space left")
    assert caught.value.filename == tempfile.gettempdir()
    with pytest.raises(OSError, match="else") as other, temporary_file():
        raise OSError(errno.EIO, "something else")
    assert not isinstance(other.value, NoRoomError)
