"""Products and attention for few rows against float64, for every shape that tasks and overlaps make different."""

import numba
import numpy as np
import pytest
import torch

from models.few_rows import MOST_ROWS, Threads, attend, multiply, multiply_half

RNG = np.random.default_rng(20)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> int:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    taken = Threads().take()
    torch.set_num_threads(before)
    return taken


@pytest.mark.parametrize("rows", [1, 2, 7, MOST_ROWS])
@pytest.mark.parametrize("n_out", [4, 5, 31, 32, 33, 64, 999])
@pytest.mark.parametrize("n_in", [3, 64, 384])
def test_a_product_with_few_rows_is_the_product(threads: int, rows: int, n_out: int, n_in: int) -> None:
    weights, bias, x = normal(n_out, n_in), normal(n_out), normal(rows, n_in)
    out = np.full((rows, n_out), np.nan, np.float32)
    multiply(weights, bias, x, out)
    exact = x.astype(np.float64) @ weights.T.astype(np.float64) + bias
    np.testing.assert_allclose(out, exact, rtol=0, atol=2e-6 * n_in**0.5 * 4)


@pytest.mark.parametrize("rows", [1, 6, MOST_ROWS])
@pytest.mark.parametrize("n_out", [4, 37, 64, 1001])
def test_half_weights_count_as_the_numbers_that_they_are(threads: int, rows: int, n_out: int) -> None:
    halves, x = normal(n_out, 128).astype(np.float16), normal(rows, 128)
    halves[0, :5] = [0, -0.0, 6e-8, -6e-8, 65504]  # zeros, the smallest subnormals, the largest
    out = np.full((rows, n_out), np.nan, np.float32)
    multiply_half(halves.view(np.uint16), x, out)
    exact = x.astype(np.float64) @ halves.astype(np.float64).T
    np.testing.assert_allclose(out, exact, rtol=1e-6, atol=5e-5)


@pytest.mark.parametrize("length", [1, 2, 63, 1500])
def test_rows_attend_to_the_first_keys_of_their_sources(threads: int, length: int) -> None:
    heads, source = 3, np.array([1, 0, 1, 1, 4])
    q, keys, values = normal(5, heads, 64), normal(6, heads, length + 3, 64), normal(6, heads, length + 3, 64)
    keys[:, :, length:] = np.nan  # what is not filled yet
    values[:, :, length:] = np.nan
    out = np.full_like(q, np.nan)
    attend(q, keys, values, source, length, out)
    for r, s in enumerate(source):
        expected = torch.nn.functional.scaled_dot_product_attention(
            *(
                torch.from_numpy(x.astype(np.float64))
                for x in (q[r][:, None], keys[s, :, :length], values[s, :, :length])
            )
        )
        np.testing.assert_allclose(out[r], expected[:, 0], rtol=0, atol=3e-6)


def test_attention_follows_logits_that_are_far_apart() -> None:
    q, keys = np.zeros((1, 1, 64), np.float32), np.zeros((1, 1, 4, 64), np.float32)
    values = normal(1, 1, 4, 64)
    q[0, 0, 0], keys[0, 0, :, 0] = 1000.0, [-50, 40, 39, -1000]
    out = np.empty_like(q)
    attend(q, keys, values, np.array([0]), 4, out)
    np.testing.assert_allclose(out[0, 0], values[0, 0, 1], rtol=1e-6)


def test_threads_are_pytorchs_and_pytorch_keeps_them() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        threads = Threads()
        assert torch.get_num_threads() == 1
        assert threads.take() == 1
        assert numba.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert threads.take() == min(before, numba.config.NUMBA_NUM_THREADS)
