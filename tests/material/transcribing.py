"""`transcribe` with tiny.en, run in the process of the tests."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from app.cli import _transcribe as command

TEXT = "The quiet harbor wakes before the sun"
NO_NPU = not list(Path("/dev/accel").glob("accel*")) if Path("/dev/accel").exists() else True


def transcribe(*arguments: str | Path, standard_input: bytes | None = None) -> Result:
    words = ["--model", "tiny.en", *map(str, arguments)]
    return CliRunner().invoke(command, words, input=standard_input)


def notes(result: Result) -> list[str]:
    """The lines on standard error, but for what only the first run on a machine has."""
    return [line for line in result.stderr.splitlines() if "compiling the kernels" not in line]


def one_line(result: Result) -> str:
    """The only line on standard error beside the one about the device."""
    lines = [line for line in notes(result) if not line.startswith("tiny.en: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    return lines[0]
