"""Kernels on an encoder's own queries, keys and values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from material.small_models import steep_model

from kernels.arrays import Reals
from models.attention import Attention, CpuAttention, open_attention
from models.capture import LayerResult, measure_layers
from models.encoder import Encoder
from models.weights.building import Model

pytestmark = pytest.mark.usefixtures("one_thread")

KERNELS: tuple[str, ...] = ("int32", "int8", "legacy-int32", "legacy-int8")


@pytest.fixture(scope="module")
def model() -> Model:
    return steep_model(80)


@pytest.fixture(scope="module")
def mel() -> Reals:
    return np.random.default_rng(1).standard_normal((80, 400), np.float32)


@pytest.fixture(scope="module")
def others() -> list[Attention]:
    return [open_attention(name, "emulator", threads=1) for name in KERNELS]


@pytest.fixture(scope="module")
def results(model: Model, mel: Reals, others: list[Attention]) -> tuple[LayerResult, ...]:
    return measure_layers(model, mel, others)


def test_every_layer_head_and_kernel_is_measured(results: tuple[LayerResult, ...]) -> None:
    assert [(r.layer, r.kernel) for r in results] == [(layer, name) for layer in (0, 1) for name in KERNELS]
    assert all([head.head for head in r.heads] == [0, 1, 2] for r in results)
    json.dumps([r.to_dict() for r in results])


def test_the_figures_are_those_of_the_layers_own_input(
    model: Model, mel: Reals, others: list[Attention], results: tuple[LayerResult, ...]
) -> None:
    """FP32 goes on through the layers, whatever the kernels do."""
    seen: list[tuple[Reals, Reals, Reals]] = []

    class Recording(CpuAttention):
        def __call__(self, q: Reals, k: Reals, v: Reals, *, layer: int) -> Reals:
            seen.append((q.copy(), k.copy(), v.copy()))
            return super().__call__(q, k, v, layer=layer)

    Encoder(model, Recording())(mel[None])
    for result in results:
        other = next(o for o in others if o.name == result.kernel)
        q, k, v = seen[result.layer]
        exact = CpuAttention()(q, k, v, layer=result.layer)
        error = other(q, k, v, layer=result.layer) - exact
        relative = np.linalg.norm(error) / np.linalg.norm(exact)
        assert result.accuracy.relative_error == pytest.approx(relative, rel=1e-4)
        assert result.accuracy.max_error == pytest.approx(abs(error).max(), rel=1e-4)
        for head in result.heads:
            part, whole = error[:, :, head.head], exact[:, :, head.head]
            relative = np.linalg.norm(part) / np.linalg.norm(whole)
            assert head.accuracy.relative_error == pytest.approx(relative, rel=1e-4)
        scores = np.einsum("wqhc,wkhc->whqk", q, k) / 8
        if result.kernel.startswith("legacy-"):
            least, largest = result.score_limits
            assert least == pytest.approx(scores.min(), abs=0.05 * float(abs(scores).max()))
            assert largest == pytest.approx(scores.max(), abs=0.05 * float(abs(scores).max()))


def test_the_kernels_are_told_apart(results: tuple[LayerResult, ...]) -> None:
    errors = {name: [r.accuracy.relative_error for r in results if r.kernel == name] for name in KERNELS}
    for worse, better in (("int8", "int32"), ("legacy-int32", "int8"), ("legacy-int8", "legacy-int32")):
        assert all(a > b for a, b in zip(errors[worse], errors[better], strict=True))
    clipped = {name: max(r.clipped for r in results if r.kernel == name) for name in KERNELS}
    assert clipped["int32"] == clipped["legacy-int32"] == 0
    assert clipped["legacy-int8"] > 0.5 > clipped["int8"]


def test_the_worst_head_is_the_one_with_the_largest_error(results: tuple[LayerResult, ...]) -> None:
    for result in results:
        errors = [head.accuracy.relative_error for head in result.heads]
        assert result.worst.head == errors.index(max(errors))
        assert result.to_dict()["worst_head"] == result.worst.head


def test_progress_counts_heads(model: Model, mel: Reals, others: list[Attention]) -> None:
    told: list[tuple[int, int]] = []
    measure_layers(model, mel, others[2:], lambda done, total: told.append((done, total)))
    assert told == [(i, 12) for i in range(1, 13)]
