from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from places import ROOT
from typer.testing import CliRunner

from app.cli import _evaluate
from app.cli import _transcribe as command
from app.cli import app as tilescribe
from datasets.utterance import Utterance

README = (ROOT / "README.md").read_text(encoding="utf-8")
INDENTED = re.compile(r"(?:^    .*\n(?:\n(?=    ))?)+", re.MULTILINE)
BLOCKS = INDENTED.findall(README)
DOCS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
LINES = [
    line.strip().removeprefix("$ ").removeprefix(".venv/bin/").partition("  #")[0]
    for text in (README, *DOCS)
    for block in INDENTED.findall(text)
    for line in block.splitlines()
]


def test_the_first_screen_is_what_the_demonstration_prints(spoken: Utterance) -> None:
    demo = next(block for block in BLOCKS if "make demo" in block).splitlines()
    how = ("--model", "tiny.en", "--backend", "int32", "--no-progress")  # which a busy machine has
    result = CliRunner().invoke(command, [str(spoken.audio), *how])
    assert [line.strip() for line in demo[2:]] == result.stdout.splitlines()
    if not list(Path("/dev/accel").glob("accel*")):
        assert demo[1].strip() == result.stderr.strip()
    assert "datasets/sample/harbour.flac --model tiny.en --backend int32" in (ROOT / "Makefile").read_text()


@cache
def help_of(script: str) -> str:
    command = [sys.executable, script, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


@cache
def help_of_command(name: str, *subcommand: str) -> str:
    application = {"transcribe": command, "evaluate": _evaluate, "tilescribe": tilescribe}[name]
    result = CliRunner().invoke(application, [*subcommand, "--help"])
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize(
    "line", [line for line in LINES if line.startswith(("python scripts/", "scripts/build_xclbin"))]
)
def test_each_script_has_the_options_that_it_is_shown_with(line: str) -> None:
    script, *arguments = shlex.split(line.removeprefix("python "))
    assert all(option in help_of(script) for option in options_of(arguments))


def options_of(arguments: list[str]) -> list[str]:
    return [argument for argument in arguments if argument.startswith("-") and argument != "-"]


@pytest.mark.parametrize(
    "line",
    [line for line in LINES if re.search(r"(^|\| (\.venv/bin/)?)(transcribe|evaluate|tilescribe) ", line)],
)
def test_each_command_has_the_options_that_it_is_shown_with(line: str) -> None:
    name, *arguments = shlex.split(re.split(r"\| (?:\.venv/bin/)?", line)[-1])
    shown = help_of_command(name, *([arguments.pop(0)] if name == "tilescribe" else []))
    assert not [o for o in options_of(arguments) if not re.search(rf"(?<![\w-]){re.escape(o)}\b", shown)]


def test_commands_were_found_to_check() -> None:
    for start in ("transcribe ", "evaluate ", "tilescribe ", "python scripts/", "scripts/build_xclbin"):
        assert [line for line in LINES if line.startswith(start)], start


def test_each_target_that_is_named_is_one() -> None:
    named = set(re.findall(r"`make ([a-z-]+)`", README))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "lint", "bench"} <= named <= targets


def test_the_python_example_runs(spoken: Utterance, capsys: pytest.CaptureFixture[str]) -> None:
    example = next(block for block in BLOCKS if "import app" in block)
    lines = [line[4:] for line in example.splitlines()]
    code = (
        "\n".join(lines).replace('"base"', '"tiny.en"').replace('"audio.wav"', repr(os.fspath(spoken.audio)))
    )
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.count("market is full of voices") == 2
