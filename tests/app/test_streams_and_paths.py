"""Standard streams that are closed, full or of another encoding, and paths that the system refuses."""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
from places import ROOT

from app.cli import app as tilescribe
from app.console import LACKING, edge


def shell(command: str, scripts: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{scripts}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("redirection", "reason"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
@pytest.mark.parametrize("command", ["transcribe --help", "tilescribe datasets list"])
def test_output_that_is_lost_is_an_error(command: str, redirection: str, reason: str, scripts: Path) -> None:
    done = shell(f"{command} {redirection}", scripts)
    assert (done.returncode, done.stderr) == (1, f"error: standard output: {reason}\n")


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_notes_that_are_lost_change_nothing(redirection: str, scripts: Path) -> None:
    assert shell(f"transcribe --nonsense {redirection}", scripts).returncode == 2
    done = shell(f"tilescribe datasets list {redirection}", scripts)
    assert (done.returncode, done.stdout.split()[0]) == (0, "NAME")


def test_what_libraries_print_is_no_output(scripts: Path) -> None:
    code = "import os; from app.console import run; run(lambda: (os.write(1, b'Failed\\n'), print('text')))"
    done = shell(f'python -c "{code}"', scripts)
    assert (done.returncode, done.stdout, done.stderr) == (0, "text\n", "Failed\n")


def test_a_closed_standard_input_is_an_empty_one(scripts: Path) -> None:
    done = shell(
        "python -c 'from app.console import run; run(lambda: print(len(input() or [])))' <&-", scripts
    )
    assert "EOFError" in done.stderr


def test_what_an_encoding_lacks_is_replaced(scripts: Path) -> None:
    code = "from app.console import run, say; run(lambda: (print('\u017elu\u0165'), say('\u017elu\u0165')))"
    done = shell(f'python -c "{code}"', scripts, PYTHONIOENCODING="ascii")
    note = "note: standard output is in ascii, which lacks 2 of its characters: ? there\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "?lu?\n", "\\u017elu\\u0165\n" + note)


def test_how_characters_are_replaced_may_be_asked_for(scripts: Path) -> None:
    code = "from app.console import run; run(lambda: print('\u017e'))"
    done = shell(f'python -c "{code}"', scripts, PYTHONIOENCODING="ascii:xmlcharrefreplace")
    assert (done.returncode, done.stdout, done.stderr) == (0, "&#382;\n", "")


def test_a_reader_of_notes_that_left_changes_nothing(scripts: Path) -> None:
    code = "from app.console import run, say; run(lambda: [say('x' * 99999) for _ in range(9)] and print('done'))"
    done = shell(f'(sleep 0.1; python -c "{code}"; echo $?) 2> >(true)', scripts)
    assert done.stdout == "done\n0\n"


def test_a_stream_that_does_not_wait_gets_everything(scripts: Path) -> None:
    code = (
        "import os; from app.console import run; os.set_blocking(1, False); run(lambda: print('x' * 999999))"
    )
    done = shell(f'python -c "{code}" | (sleep 0.5; wc -c)', scripts)
    assert (done.stdout, done.stderr) == ("1000000\n", "")


LONG = "x" * 300


def lacking(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The line with which a command ends that lacks something, run here as `app.console.run` does."""
    try:
        with edge():
            code = tilescribe(shlex.split(command), standalone_mode=False)
    except typer.Exit as ended:
        code = ended.exit_code
    said = capsys.readouterr()
    assert (code, said.out) == (LACKING, "")
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("command", "cache"),
    [
        (f"datasets list --data-dir {LONG}", ""),
        (f"datasets verify librispeech-test-clean --data-dir {LONG}", ""),
        ("datasets list", f"/tmp/{LONG}"),
        ("models list", f"/tmp/{LONG}"),
        (f"evaluate --dataset {LONG}.jsonl", ""),
        (f"transcribe a.wav --model ./{LONG}.pt", ""),
    ],
)
def test_a_path_that_the_system_refuses_is_one_line(
    command: str, cache: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if cache:
        monkeypatch.setenv("TILESCRIBE_CACHE", cache)
    assert "File name too long" in lacking(command, capsys)


@pytest.mark.parametrize(
    "command",
    [
        "transcribe a.wav --model '~nobody-here/x.pt'",
        "evaluate --dataset '~nobody-here/x.jsonl'",
        "evaluate --dataset librispeech-test-clean --data-dir '~nobody-here/x'",
    ],
)
def test_the_home_of_nobody_is_a_path_without_a_file(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nobody-here" in lacking(command, capsys)


@pytest.mark.parametrize("home", ["-u HOME", "HOME=", "HOME=here"])
def test_a_user_without_a_home_has_nothing_there(home: str, scripts: Path, tmp_path: Path) -> None:
    code = (
        "import os; from app.console import run; os.getuid = lambda: 4000000; "
        "run(lambda: print(os.path.expanduser('~/a')))"
    )
    done = shell(f'cd {tmp_path}; env {home} python -c "{code}"', scripts, PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stdout, done.stderr) == (0, "/nonexistent/a\n", "")
    code = "import os; from app.console import run; run(lambda: print(os.path.expanduser('~')))"
    own = pwd.getpwuid(os.getuid()).pw_dir
    assert shell(f'env {home} python -c "{code}"', scripts).stdout == f"{own}\n"


@pytest.mark.parametrize("kilobytes", [420_000, 500_000])  # in which LLVM, or OpenVINO, gets no more
def test_where_there_is_no_memory_a_command_ends_with_one_line(
    kilobytes: int, scripts: Path, tmp_path: Path
) -> None:
    command = f"ulimit -c 0; ulimit -v {kilobytes}; transcribe a.wav --model tiny.en"
    done = shell(command, scripts, NUMBA_CACHE_DIR=str(tmp_path))
    assert done.returncode == 5
    said = [line for line in done.stderr.splitlines() if "compiling the kernels" not in line]
    assert len(said) == 1
    assert said[0].startswith("error: the system has no more memory or threads: ")
