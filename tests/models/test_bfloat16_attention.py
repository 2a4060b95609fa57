"""Attention in bfloat16, against softmax attention in float64 of the same bfloat16 numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kernels.workers import Workers
from models import bfloat16_attention

pytestmark = pytest.mark.skipif(
    not bfloat16_attention.available(), reason="this processor has no bfloat16 instructions (AVX512-BF16)"
)


def run(q: Tensor, k: Tensor, v: Tensor, threads: int = 1) -> Tensor:
    out = torch.full(q.shape, math.nan)
    queries, keys, values = (x.view(torch.int16).numpy() for x in (q, k, v))
    bfloat16_attention.Bfloat16Attention(Workers(threads)).run(queries, keys, values, out.numpy())
    return out


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.double() for x in (q, k, v))
    return (q @ k.transpose(-1, -2) / 8).softmax(-1) @ v


def heads(rows: int, keys: int, size: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(rows * 1000 + keys)
    q, k, v = torch.randn(2, 3, rows, 64), torch.randn(2, 3, keys, 64), torch.randn(2, 3, keys, 64)
    return (q * size).bfloat16(), k.bfloat16(), v.bfloat16()


@pytest.mark.parametrize("size", [0.01, 1.0, 5.0, 100.0])
@pytest.mark.parametrize(
    ("rows", "keys"), [(1, 1), (5, 63), (6, 64), (7, 65), (13, 128), (12, 129), (50, 1500)]
)
def test_it_is_softmax_attention(rows: int, keys: int, size: float) -> None:
    operands = heads(rows, keys, size)
    result, expected = run(*operands), exact(*operands)
    # Weights are rounded to 8 bits, each on its own: at most 2^-9 of their weighted mean's parts.
    assert (result - expected).abs().max() <= 2**-8 * operands[2].abs().max()
    assert (result - expected).norm() < 0.003 * expected.norm()


def test_the_largest_logit_may_come_first_or_last() -> None:
    q, k, v = heads(8, 256)
    steep = torch.linspace(-3, 3, 256).view(256, 1) * torch.ones(64) / 8
    for keys in (steep, steep.flip(0)):
        operands = (torch.ones_like(q) * 30, (k * 0.01 + keys).bfloat16(), v)
        assert (run(*operands) - exact(*operands)).norm() < 0.003 * exact(*operands).norm()


def test_scores_that_are_all_hugely_negative_still_have_weights_that_sum_to_one() -> None:
    q, k, v = heads(6, 70)
    operands = (torch.full_like(q, 1000), torch.full_like(k, -1000), v)
    assert torch.allclose(run(*operands), v.float().mean(-2, keepdim=True).expand(q.shape), atol=2e-3)


def test_strides_and_threads_change_nothing() -> None:
    q, k, v = heads(20, 100)
    expected = run(q, k, v)
    apart = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert torch.equal(run(*apart, threads=2), expected)


def test_each_run_has_only_its_own_keys() -> None:
    attention = bfloat16_attention.Bfloat16Attention(Workers(1))
    expected: list[Tensor] = []
    for _ in range(2):
        for keys in (130, 66, 129):
            q, k, v = heads(9, keys)
            out = torch.empty(q.shape)
            attention.run(*(x.view(torch.int16).numpy() for x in (q, k, v)), out.numpy())
            expected.append(out)
    assert all(torch.equal(a, b) for a, b in zip(expected[:3], expected[3:], strict=True))
