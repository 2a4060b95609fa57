"""What a command does to start sooner, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.utterance import Utterance


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", ["transcribe", "evaluate", "tilescribe"])
def test_help_comes_without_loading_what_is_heavy(script: str, scripts: Path) -> None:
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(
        [scripts / script, "--help"], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.startswith("Usage: ")
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    heavy = {
        "torch",
        "numpy",
        "numba",
        "scipy",
        "whisper",
        "librosa",
        "av",
        "jiwer",
        "tqdm",
        "msgspec",
        "openvino",
    }
    assert not imported & heavy


@pytest.mark.parametrize(
    ("command", "code"), [(["tilescribe", "models", "list"], 0), (["transcribe", "a.wav", "-m", "tinny"], 2)]
)
def test_models_are_named_without_pytorch(command: list[str], code: int, scripts: Path) -> None:
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(
        [scripts / command[0], *command[1:]], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == code
    assert "large-v3-turbo" in done.stdout + done.stderr
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "tiktoken" in imported
    assert not imported & {"torch", "openvino", "numba"}


def test_transcribing_calls_nobody_starts_no_process_and_takes_no_pytorch(spoken: Utterance) -> None:
    # Of the emulator: where there is an NPU, `auto` asks pyxrt in a process of its own.
    printed = run(
        f"""
import sys
seen = []
def note(event, arguments):
    if event.startswith(("socket.", "os.fork", "os.posix_spawn", "subprocess.")):
        seen.append(event)
sys.addaudithook(note)
sys.argv = ["transcribe", {str(spoken.audio)!r}, "--model", "tiny.en", "--device", "emulator", "-q",
            "--word-timestamps", "True"]
from app.cli import transcribe_main
try:
    transcribe_main()
except SystemExit as ended:
    print(ended.code, seen, "torch" in sys.modules)
"""
    )
    assert printed.splitlines()[-1] == "0 [] False"


def test_a_ctrl_c_is_ours_before_anything_else_is_imported() -> None:
    printed = run(
        """
import _signal, sys
early = []
class Noting:
    def find_spec(self, name, path=None, target=None):
        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
            early.append(name)
for name in ("enum", "signal", "typing"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Noting())
sys.argv = ["transcribe"]
import app.cli
print(early)
"""
    )
    assert printed == "['app', 'app.startup']\n"


@pytest.mark.parametrize("moment", ["import typer", "from app.cli import transcribe_main", "import numba"])
def test_a_ctrl_c_in_the_middle_of_an_import_is_one_line(moment: str) -> None:
    code = f"""
import os, signal, sys
sys.argv = ["transcribe", "nothing.wav"]
import app.startup
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name in ("click", "typer", "app.commands.transcribe", "numba.core"):
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
{moment}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


LOST = """
import sys, time
sys.argv = ["transcribe"]
import app.startup, os, signal
from app.console import edge, run
class Lossy:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
def work():
    with edge("interrupted: go on"):
        {how}
run(work)
"""


@pytest.mark.parametrize(
    "how",
    [
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
        "Lossy(); time.sleep(9)",
        """try:
            os.kill(os.getpid(), signal.SIGINT); time.sleep(9)
        except KeyboardInterrupt:
            raise RuntimeError("a library's own words")""",
    ],
    ids=["plain", "lost in a finaliser", "turned into another error"],
)
def test_a_ctrl_c_ends_a_command_in_order_whatever_becomes_of_it(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST.format(how=how)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted: go on\n")


def test_a_ctrl_c_while_a_command_imports_what_it_needs_is_one_line() -> None:
    code = """
import sys, time
sys.argv = ["transcribe"]
import app.startup, os, signal, typer
from app.console import run
application = typer.Typer(pretty_exceptions_enable=False)
@application.command()
def work():
    os.kill(os.getpid(), signal.SIGINT); time.sleep(9)
run(application)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


def test_a_second_ctrl_c_waits_for_nothing() -> None:
    how = """try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT); time.sleep(9)"""
    done = subprocess.run(
        [sys.executable, "-c", LOST.format(how=how)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")
