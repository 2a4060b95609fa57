"""Graphs that are compiled once and kept: the same bits, and nothing that a bad file or folder could change."""

import gc
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material.small_models import small_random_model

from models.graphs import compiling
from models.graphs.decoder import GraphDecoder
from models.weights.building import Model

Reals = np.ndarray


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The graphs that OpenVINO has compiled, by their names."""
    names: list[str] = []
    core = compiling.core()

    class Telling:
        def compile_model(self, graph: Any, *how: Any) -> Any:
            names.append(graph.get_friendly_name())
            return core.compile_model(graph, *how)

        import_model = staticmethod(core.import_model)

    monkeypatch.setattr(compiling, "core", Telling)
    return names


@pytest.fixture
def model(cache: Path) -> Model:
    return replace(small_random_model(), sha256="a" * 64)


GRAPHS = ["cross-attention keys and values", "vocabulary", "decoder"]


def logits(model: Model, int8: bool = True) -> Reals:
    decoder = GraphDecoder(model, 1, int8=int8)
    gc.collect()
    states = np.random.default_rng(0).standard_normal((1, 1500, 128), np.float32)
    memory, row = decoder.attend_to(states), np.zeros(1, np.int32)
    tokens = np.array([[50257, 50362, 7]])
    return decoder.run(tokens, cache=decoder.start(), position=0, sources=row, memory=memory, wanted=[0, 2])


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_kept_graphs_give_the_same_bits(model: Model, cache: Path, compiled: list[str]) -> None:
    exact = logits(replace(model, sha256=None))
    assert (compiled, files(cache)) == (GRAPHS, [])
    assert np.array_equal(logits(model), exact)
    assert (compiled, len(files(cache))) == (GRAPHS * 2, 3)
    assert np.array_equal(logits(model), exact)
    assert compiled == GRAPHS * 2


def test_of_each_model_and_type_they_are_its_own(model: Model, cache: Path, compiled: list[str]) -> None:
    logits(model)
    assert not np.array_equal(logits(model, int8=False), logits(model))
    logits(replace(model, sha256="b" * 64))
    assert compiled == [*GRAPHS, *GRAPHS[1:], *GRAPHS]


def test_those_of_another_version_are_deleted(
    model: Model, cache: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits(model)
    monkeypatch.setattr(compiling.ov, "__version__", "later")
    logits(model)
    assert (compiled, len(files(cache))) == (GRAPHS * 2, 3)


@pytest.mark.parametrize("kept", [b"", b"no graph", 0.5, 0.99])
def test_a_damaged_file_is_made_again(
    kept: bytes | float, model: Model, cache: Path, compiled: list[str]
) -> None:
    exact = logits(model)
    for path in files(cache):
        path.write_bytes(
            kept if isinstance(kept, bytes) else path.read_bytes()[: int(path.stat().st_size * kept)]
        )
    assert np.array_equal(logits(model), exact)
    assert np.array_equal(logits(model), exact)
    assert compiled == GRAPHS * 2


def test_a_byte_that_has_changed_is_noticed(model: Model, cache: Path, compiled: list[str]) -> None:
    exact = logits(model)
    for path in files(cache):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 64
        path.write_bytes(content)
    assert np.array_equal(logits(model), exact)
    assert compiled == GRAPHS * 2


def test_without_a_folder_to_write_to_they_are_compiled_each_time(
    model: Model, cache: Path, compiled: list[str]
) -> None:
    cache.write_text("a file")
    assert np.array_equal(logits(model), logits(model))
    assert compiled == GRAPHS * 2


def test_nothing_is_left_of_one_that_does_not_fit(
    model: Model, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "no space left on device")

    exact = logits(replace(model, sha256=None))
    monkeypatch.setattr(os, "fsync", full)
    assert np.array_equal(logits(model), exact)
    assert files(cache) == []
