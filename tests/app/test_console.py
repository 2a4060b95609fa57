"""Errors at the edge of a command: one line, one exit code; faults are not hidden."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import typer

from app.console import CODES, FAILED, INTERRUPTED, LACKING, USAGE, edge
from kernels.device import DeviceLost
from models.decoding.options import OptionsError
from models.weights.loading import UnknownModelError, WeightsError


@pytest.mark.parametrize("name", CODES)
def test_every_error_that_has_a_code_exists(name: str) -> None:
    module, _, kind = name.rpartition(".")
    assert issubclass(getattr(import_module(module), kind), Exception)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (WeightsError("no weights"), LACKING, "no weights"),
        (UnknownModelError("no such model"), USAGE, "no such model"),
        (DeviceLost("the NPU is gone"), LACKING, "the NPU is gone"),
        (OptionsError("no such language"), USAGE, "no such language"),
        (
            FileNotFoundError(2, "No such file or directory", "a.json"),
            FAILED,
            "a.json: No such file or directory",
        ),
        (OSError(28, "No space left on device"), FAILED, "here: No space left on device"),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted: go on"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_a_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, edge("interrupted: go on", {OSError: FAILED}, place="here"):
        raise error
    assert ended.value.exit_code == code
    assert capsys.readouterr() == ("", f"error: {line}\n")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype("f4")),
        RuntimeError("Exception from src/core.cpp:87: std::bad_alloc"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
        ImportError("libx.so: failed to map segment from shared object"),
    ],
)
def test_no_memory_is_one_line_in_whatever_words(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, edge():
        raise ValueError("what came of it") from error
    assert ended.value.exit_code == LACKING
    _, said = capsys.readouterr()
    assert said.startswith("error: the system has no more memory or threads: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("a fault"), OSError(5, "Input/output error"), typer.Exit(3)])
def test_what_is_not_known_passes(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(error)) as passed, edge():
        raise error
    assert passed.value is error
    assert capsys.readouterr() == ("", "")
