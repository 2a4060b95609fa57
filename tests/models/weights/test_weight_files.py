"""What lies at a path, or under a name, and what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import whisper
from material.model_files import (
    SMALL,
    arrays_of,
    assert_same,
    load_error,
    random_whisper,
    save_checkpoint,
    write_model,
)
from whisper.model import Whisper

from app import Transcriber
from models.weights import loading as weights
from models.weights.building import Dimensions
from models.weights.loading import load

pytestmark = pytest.mark.usefixtures("cache")


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
    assert "config.json whose alignment_heads" in load_error(tmp_path)


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
        assert load_error(path).startswith(f"no such file or folder: {path!r}")
    assert "No such file" in load_error(tmp_path / "none")


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
    message = load_error(tmp_path / name)
    assert message.startswith(f"{tmp_path / name} ")
    assert problem in message
    assert ": g" in message  # a remedy: get or give something else


def test_other_folders_are_named_for_what_they_are(tmp_path: Path) -> None:
    assert "is a folder without model.bin" in load_error(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert "ct2-transformers-converter" in load_error(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in load_error(tmp_path / "pipe")


def test_checkpoints_that_are_damaged_or_not_whispers(
    tmp_path: Path, model: Whisper, checkpoint: bytes
) -> None:
    path = tmp_path / "a.pt"
    for cut in (10, len(checkpoint) // 2, len(checkpoint) - 1):
        path.write_bytes(checkpoint[:cut])
        assert "damaged" in load_error(path)
    torch.save({"weight": torch.ones(2)}, path)
    assert "is not an OpenAI Whisper checkpoint" in load_error(path)
    torch.save({"dims": {"n_mels": 80}, "model_state_dict": {}}, path)
    assert "is not an OpenAI Whisper checkpoint" in load_error(path)
    torch.save(torch.nn.Linear(2, 2), path)
    assert "holds more than tensors" in load_error(path)
    save_checkpoint(path, model, n_text_layer=10**9)
    assert "2 decoder layers, where its dimensions say 1000000000" in load_error(path)
    save_checkpoint(path, model, n_vocab=10**12)
    assert "no decoder.token_embedding.weight of shape" in load_error(path)


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
    assert said in load_error(path)
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
    assert load(with_one(model, tmp_path / "a.pt", change)).model.dims.n_vocab == SMALL.n_vocab


def test_packed_members_are_refused_before_they_are_unpacked(tmp_path: Path, checkpoint: bytes) -> None:
    with (
        zipfile.ZipFile(io.BytesIO(checkpoint)) as given,
        zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in given.infolist():
            packed.writestr(member.filename, given.read(member))
    assert "has packed members" in load_error(tmp_path / "a.pt")


def test_a_model_that_whispers_front_end_can_not_feed(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(write_model(arrays_of(random_whisper())))
    assert "has 12 audio positions, where Whisper has 1500" in load_error(tmp_path)


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
