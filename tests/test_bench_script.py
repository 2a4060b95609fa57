from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import wave
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import whisper
from material.small_librispeech import make_set
from places import SCRIPTS
from whisper.tokenizer import get_encoding

from models.weights import loading as weights

sys.path.insert(0, str(SCRIPTS))

import bench
from peers import conversion, environments, first_word, ggml, material, openvino_model, rows
from peers.environments import Environment, PeerError
from peers.process import MeasureError, Worker
from peers.racers import RACERS
from peers.ratios import Figures, Ratio
from peers.rows import ROWS
from peers.sides import OpenAIWhisper


def ratio(**changes: Any) -> Ratio:
    given = {
        "row": "long",
        "what": "one long file",
        "peer": "a peer",
        "model": "tiny.en",
        "goal": 1.0,
        "aim": 0.7,
        "unit": "s",
        "ours": (1.0, 3.0, 2.0),
        "theirs": (2.0, 2.0, 2.0),
    }
    return Ratio(**(given | changes))


def test_ratios_are_taken_pair_by_pair() -> None:
    made = ratio(ours=(1.0, 9.0, 4.0), theirs=(4.0, 9.0, 2.0))
    assert made.ratios == (0.25, 1.0, 2.0)
    assert made.spread == "0.25 1.00 2.00"
    assert "tiny.en: one long file / a peer: 0.25 1.00 2.00 (4.00 and 4.00 s)" in made.line


def test_words_of_both_sides_are_said() -> None:
    assert ratio(words=(12, 11)).line.endswith("; 12 and 11 words)")


def test_pairs_are_interleaved_and_each_side_begins_in_turn() -> None:
    order: list[str] = []

    def side(name: str, value: float) -> Any:
        return lambda: (order.append(name), value)[1]

    assert rows.interleave(side("a", 1.0), side("b", 2.0), 3) == ((1.0,) * 3, (2.0,) * 3)
    assert "".join(order) == "abbaab"


def test_the_table_has_a_row_for_each_comparison_and_a_column_for_each_model() -> None:
    made = [ratio(), ratio(model="base", ours=(2.0,), theirs=(1.0,)), ratio(what="start", goal=0.5, aim=0.3)]
    assert bench.table(made).splitlines() == [
        "|  | against | at most | aim | tiny.en | base |",
        "| --- | --- | --- | --- | --- | --- |",
        "| one long file | a peer | 1.0 | 0.7 | 0.50 1.00 1.50 | 2.00 2.00 2.00 |",
        "| start | a peer | 0.5 | 0.3 | 0.50 1.00 1.50 |  |",
    ]


def test_every_row_is_of_a_peer_that_there_is() -> None:
    assert {row.racer for row in ROWS.values()} == {None, *RACERS}
    assert ROWS["encoder"].racer is None
    assert ROWS["long"].peer == "faster-whisper INT8 batched, same pieces and timestamps"


def test_an_unknown_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        bench.arguments(["--only", "speed"])
    assert stopped.value.code == 2
    assert "singles-openai" in capsys.readouterr().err


def test_a_peer_that_cannot_be_had_is_named_and_its_rows_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def install(environment: Environment) -> None:
        if environment.name == "whisper.cpp":
            raise PeerError("whisper.cpp: ERROR: no compiler")

    monkeypatch.setattr(Environment, "install", install)
    left, missing = bench.installed(list(ROWS))
    assert set(ROWS) - set(left) == {"singles-whisper.cpp", "long-whisper.cpp"}
    assert missing == {"whisper.cpp 16 bit": "whisper.cpp: ERROR: no compiler"}
    assert bench.installed(["encoder"]) == (["encoder"], {})


def test_an_environment_is_one_peers_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESCRIBE_CACHE", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    first, second = Environment(tmp_path / "a.txt"), Environment(tmp_path / "a.b.txt", compiled=True)
    for environment in (first, second):
        environment.requirements.write_text("x==1")
    assert first.folder.parent == tmp_path / "peers"
    assert (first.name, second.name) == ("a", "a.b")
    assert first.folder == Environment(first.requirements).folder
    first.requirements.write_text("x==2")
    assert first.folder != Environment(first.requirements).folder
    assert first.folder != second.folder
    assert first.packages.is_relative_to(first.folder)
    assert (first.variables, second.variables["LD_LIBRARY_PATH"]) == ({}, str(second.packages))
    assert "PYTHONPATH" not in environments.apart()
    with pytest.raises(PeerError, match=r"^a: ERROR: no such package$"):
        environments.run(
            "a", [sys.executable, "-c", "import sys; sys.exit('trying\\nERROR: no such package\\n')"]
        )
    with pytest.raises(PeerError, match=r"^a: .*No such file"):
        environments.run("a", [str(tmp_path / "none")])


def test_the_json_has_the_table_and_every_figure(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    given = bench.arguments(["--threads", "1", "--quick", "--json", str(path)])
    said = {"version": "1", "instructions": "AVX2"}
    sides = (Figures(0.5, 300.2, 1.94, said), Figures(0.25, 200.0, 3.0, {**said, "version": "2"}))
    other = ratio(peer="whisper.cpp 16 bit", sides=sides)
    bench.write([ratio(), other], given, "some audio", {"openai-whisper FP32": "no pip"})
    report = json.loads(path.read_text())
    assert report["columns"] == [
        *("what", "over", "model", "minimum", "median", "maximum", "CPU s/min", "MB", "load s")
    ]
    figures = ["0.50", "1.00", "1.50"]
    assert report["rows"] == [
        ["one long file", "a peer", "tiny.en", *figures, "-", "-", "-"],
        ["one long file", other.peer, "tiny.en", *figures, "1.9 / 3.0", "300 / 200", "0.50 / 0.25"],
    ]
    assert report["sides"] == {"Tilescribe": "1 (AVX2)", other.peer: "2 (AVX2)"}
    assert report["missing"] == {"openai-whisper FP32": "no pip"}
    assert (report["threads"], report["quick"], report["audio"]) == (1, True, "some audio")
    assert report["measured"][0]["ours"] == [1.0, 3.0, 2.0]
    assert report["processor"]
    assert {"python", "tilescribe", "torch", "numpy"} <= set(report["versions"])
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_data_set_the_sample_is_cut_and_repeated(tmp_path: Path) -> None:
    made = material.gather(None, None, 0.5, tmp_path)
    assert len(made.timed) == 20
    assert all(3 < seconds <= 12 for _, seconds in made.timed)
    for path, seconds in ((made.long, 30), (made.ten_seconds, 10)):
        with wave.open(str(path)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (
                16000,
                1,
                seconds * 16000,
            )
    assert (
        made.description == "cuttings of the sample (20 utterances); the sample over and over (0.5 minutes)"
    )


def test_some_utterances_are_spread_over_the_set(tmp_path: Path) -> None:
    made = material.gather(None, None, 0.2, tmp_path)
    assert [u.id for u, _ in made.some(4)] == ["cutting-00", "cutting-05", "cutting-10", "cutting-15"]
    assert len(made.some(99)) == 20


def test_the_long_recording_is_a_chapter_where_one_is_given(tmp_path: Path) -> None:
    data = make_set(tmp_path / "LibriSpeech" / "test-small")
    made = material.gather(data, data / "19" / "198", 0.01, tmp_path)
    assert made.description == "test-small (4 utterances); chapter 198 joined (0.0 minutes)"
    assert all(u.text for u, _ in made.timed)
    with wave.open(str(made.long)) as file:
        assert file.getnframes() == 0.01 * 60 * 16000  # of two recordings of half a second


def test_openai_whisper_loads_the_checkpoint_that_is_written(tmp_path: Path, tiny: Any) -> None:
    path = tmp_path / "tiny.en.pt"
    OpenAIWhisper("tiny.en", torch.get_num_threads()).write_checkpoint(path)
    loaded = whisper.load_model(str(path), device="cpu")
    assert asdict(loaded.dims) == asdict(tiny.dims)
    theirs = loaded.state_dict()
    assert all(np.array_equal(tensor, theirs[name].numpy()) for name, tensor in tiny.tensors.items())


def test_a_token_is_split_as_byte_pair_encoding_joined_it() -> None:
    ranks = get_encoding("gpt2", num_languages=99)._mergeable_ranks
    for token in list(ranks)[300:50000:997]:
        left, right = conversion.split_as_joined(token, ranks)
        assert left + right == token
        assert max(ranks[left], ranks[right]) < ranks[token]


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_faster_whisper_gets_whispers_tokens(name: str, tmp_path: Path) -> None:
    folder = conversion.write_ctranslate2_folder(name, tmp_path / name)
    written = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    exact = get_encoding("gpt2" if name == "tiny.en" else "multilingual", num_languages=99)
    text = " Zwölf Boxkämpfer jagen Viktor, naïve señor — 東京; it's 1,234 o'clock\n\n  and so on."
    assert written.encode(text, add_special_tokens=False).ids == exact.encode(text)
    assert written.decode(exact.encode(text)) == text
    vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    assert len(vocabulary) == exact.n_vocab
    for special, number in exact._special_tokens.items():
        assert vocabulary[number] == special
        assert written.token_to_id(special) == number


def test_only_models_from_wheels_can_be_given_to_faster_whisper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "fetch", lambda name: tmp_path / "small.pt")
    with pytest.raises(
        ValueError, match=r"small is no CTranslate2 model here: choose among tiny\.en and base"
    ):
        conversion.write_ctranslate2_folder("small", tmp_path / "small")


def test_a_side_that_fails_gives_its_traceback() -> None:
    with pytest.raises(MeasureError, match=r"process\.py(.|\n)*has no attribute 'NoSuchSide'"):
        Worker("NoSuchSide")


def test_a_side_that_ends_on_its_own_is_told_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no library here' >&2\n")
    broken.chmod(0o755)
    with pytest.raises(MeasureError, match="process of WhisperCpp ended on its own: no library here"):
        Worker("WhisperCpp", "file", 1, python=broken)


def test_whisper_cpp_gets_every_tensor(tmp_path: Path) -> None:
    right = weights.load("tiny.en").model.tensors
    for bfloat16 in (False, True):
        path = tmp_path / "model.ggml"
        ggml.write_ggml("tiny.en", path, bfloat16)
        with open(path, "rb") as file:
            magic, vocabulary, *_, kind, rows_, columns = struct.unpack("<14i", file.read(56))
            assert (magic, vocabulary, kind, rows_, columns) == (
                0x67676D6C,
                51864,
                24 if bfloat16 else 1,
                80,
                201,
            )
            file.read(4 * rows_ * columns)
            tokens = [
                file.read(*struct.unpack("<i", file.read(4)))
                for _ in range(*struct.unpack("<i", file.read(4)))
            ]
            assert (len(tokens), tokens[0], tokens[220]) == (50256, b"!", b" ")
            found = {}
            while head := file.read(12):
                dimensions, letters, number = struct.unpack("<3i", head)
                shape = struct.unpack(f"<{dimensions}i", file.read(4 * dimensions))[::-1]
                name = file.read(letters).decode()
                data = file.read(int(np.prod(shape)) * (2 if number else 4))
                kind_of = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}[number]
                found[name] = torch.frombuffer(bytearray(data), dtype=kind_of).reshape(shape)
        assert found.keys() == right.keys()
        for name, values in found.items():
            exact = torch.from_numpy(right[name].astype(np.float32))
            assert torch.equal(values, exact.reshape(values.shape).to(values.dtype)), name
        assert found["encoder.conv1.bias"].shape == (384, 1)
        assert found["encoder.conv1.weight"].dtype == torch.float16
        assert found["decoder.blocks.0.mlp.0.weight"].dtype == (torch.bfloat16 if bfloat16 else torch.float16)


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_openvino_gets_transformers_files(name: str, tmp_path: Path) -> None:
    model = weights.load(name).model
    openvino_model.write_transformers_folder(name, model, tmp_path)
    with open(tmp_path / "model.safetensors", "rb") as file:
        described = json.loads(file.read(*struct.unpack("<Q", file.read(8))))
        first = file.tell()
        del described["__metadata__"]
        key = "model.decoder.layers.1.encoder_attn.q_proj.weight"
        file.seek(first + described[key]["data_offsets"][0])
        found = np.frombuffer(
            file.read(described[key]["data_offsets"][1] - described[key]["data_offsets"][0]), "<f4"
        )
    assert np.array_equal(
        found, model.tensors["decoder.blocks.1.cross_attn.query.weight"].astype("<f4").ravel()
    )
    assert len(described) == len(model.tensors)
    assert all(re.match(r"model\.(en|de)coder\.", name) for name in described)
    assert not any(re.search(r"blocks|mlp|\.attn|cross|positional|token_", name) for name in described)
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation["is_multilingual"] is (name == "base")
    assert ("<|ru|>" in generation.get("lang_to_id", {})) is (name == "base")
    assert json.loads((tmp_path / "config.json").read_text())["vocab_size"] == model.dims.n_vocab


def test_the_stand_in_for_ffmpeg_gives_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = material.gather(None, None, 0.2, tmp_path)
    monkeypatch.setattr(first_word.shutil, "which", lambda name: None)
    monkeypatch.setenv("PATH", first_word.ffmpeg(tmp_path)["PATH"])
    samples = whisper.load_audio(str(made.ten_seconds))
    with wave.open(str(made.ten_seconds)) as file:
        exact = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    assert np.array_equal(samples * 32768, exact)


def test_a_command_that_writes_no_text_is_reported() -> None:
    code = "import sys; sys.exit('no model')"
    with pytest.raises(MeasureError, match="wrote no text: no model"):
        first_word.seconds_to([sys.executable, "-c", code], {})


def test_a_folder_that_is_no_data_set_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", "--data-dir", str(tmp_path), "--only", "encoder"])
    for name in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
        monkeypatch.setenv(f"{name}_NUM_THREADS", "1")
    assert bench.main() == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: no SPEAKER/CHAPTER/")


def test_a_row_that_fails_does_not_lose_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: Any) -> Any:
        raise MeasureError("the process of Tilescribe ended on its own")

    for name, measure in (("singles-openai", failing), ("encoder", lambda *_: [ratio(row="encoder")])):
        monkeypatch.setitem(ROWS, name, replace(ROWS[name], measure=measure))
    options = ["--quick", "--models", "tiny.en", "--json", str(tmp_path / "figures.json")]
    made: list[Ratio] = []
    failures = bench.measure(bench.arguments(options), ["singles-openai", "encoder"], tmp_path, made, {})
    assert failures == ["tiny.en, singles-openai: the process of Tilescribe ended on its own"]
    assert [r.row for r in made] == ["encoder"]
    assert len(json.loads((tmp_path / "figures.json").read_text())["rows"]) == 1
    assert "error: tiny.en, singles-openai" in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_measures_and_prints_a_table(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "bench.py"), "--quick", "--pairs", "1", "--threads", "1"]
    command += ["--models", "tiny.en", "--only", "singles-openai", "encoder", "start"]
    run = subprocess.run(
        [*command, "--json", str(tmp_path / "figures.json")], capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr
    rows = [line.split("|")[1].strip() for line in run.stdout.splitlines() if line.startswith("| ")]
    assert rows[:2] == ["", "---"]
    assert rows[6:8] == ["what", "---"]
    assert rows[2:6] == rows[8:]
    report = json.loads((tmp_path / "figures.json").read_text())
    assert {row["row"] for row in report["measured"]} == {"singles-openai", "encoder", "start"}


@pytest.mark.slow
def test_peak_memory_is_that_of_the_process(tmp_path: Path) -> None:
    made = material.gather(None, None, 0.2, tmp_path)
    with Worker("Tilescribe", "tiny.en", 1) as side:
        assert 150 < side.call("peak", made.long, 60.0)[1] < 2000
