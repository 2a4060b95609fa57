"""Linear layers in each compute type, against `torch.nn.Linear`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.compute import ResolvedType
from models.linear import prepare


def layer(inputs: int, outputs: int, bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(inputs + outputs)
    return torch.nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def rows(count: int, inputs: int) -> Tensor:
    """Of very different sizes, as what comes out of a GELU."""
    torch.manual_seed(count)
    return torch.randn(count, inputs) * torch.logspace(-3, 3, count)[:, None]


@pytest.mark.parametrize("count", [1, 3, 256, 300])
@pytest.mark.parametrize(("compute_type", "bound"), [("float32", 0.0), ("bfloat16", 0.004), ("int8", 0.015)])
def test_each_row_is_the_layers_own(compute_type: ResolvedType, bound: float, count: int) -> None:
    linear, x = layer(192, 320), rows(count, 192)
    result, expected = prepare([linear], compute_type)(x).float(), linear(x)
    # measured: 0, 0.0030, 0.0098
    assert ((result - expected).norm(dim=1) <= bound * expected.norm(dim=1)).all()
    assert bound == 0 or not torch.equal(result, expected)


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
def test_layers_that_share_their_input_are_stacked(compute_type: ResolvedType) -> None:
    several, x = [layer(64, 32), layer(64, 48, bias=False), layer(64, 16)], rows(5, 64)
    stacked = prepare(several, compute_type)(x)
    apart = torch.cat([prepare([one], compute_type)(x) for one in several], 1)
    torch.testing.assert_close(stacked, apart, rtol=1e-2 if compute_type == "bfloat16" else 1e-5, atol=1e-5)


def test_int8_is_exact_where_int8_holds_the_numbers() -> None:
    linear = layer(64, 16)
    linear.weight.copy_(torch.randint(-126, 127, (16, 64)))
    linear.weight[:, 0] = 127
    x = torch.randint(-126, 127, (9, 64)).float()
    x[:, 1] = -127
    assert torch.allclose(prepare([linear], "int8")(x), linear(x), rtol=1e-6)


def test_a_row_and_a_channel_of_zeros_give_the_bias() -> None:
    linear = layer(64, 16)
    linear.weight[3] = 0
    result = prepare([linear], "int8")(torch.cat([torch.zeros(1, 64), rows(4, 64)]))
    assert torch.equal(result[0], linear.bias)
    assert torch.equal(result[:, 3], linear.bias[3].expand(5))


def test_a_row_that_is_not_finite_stays_so() -> None:
    x = rows(3, 64)
    x[1, 5] = torch.nan
    for compute_type in ("float32", "bfloat16", "int8"):
        result = prepare([layer(64, 16)], compute_type)(x)  # type: ignore[arg-type]
        assert result[1].isnan().all()
        assert result[[0, 2]].isfinite().all()


def test_the_input_and_the_weights_are_left_alone() -> None:
    linear, x = layer(64, 16), rows(3, 64)
    weight, kept = linear.weight.clone(), x.clone()
    for compute_type in ("float32", "bfloat16", "int8"):
        prepare([linear], compute_type)(x)  # type: ignore[arg-type]
    assert torch.equal(linear.weight, weight)
    assert torch.equal(x, kept)
