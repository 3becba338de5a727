"""Products by packed weights against those of torch."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from studio.engines.fast.frozen_layers import EightBitLinear
from studio.engines.fast.onednn import (
    LARGEST,
    EightBitKernels,
    EightBitMatrix,
)
from studio.engines.fast.packed import PackedKernels, PackedMatrix

pytestmark = pytest.mark.vnni
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def off(found: Tensor, expected: Tensor) -> float:
    """The relative error."""
    return float((found.detach().float() - expected).norm() / expected.norm())


def whole_numbers(*shape: int, most: int) -> Tensor:
    """Random whole numbers; every row reaches `most`, so its scale is 1."""
    numbers = torch.randint(-most, most + 1, shape).float()
    numbers.flatten(1)[:, 0] = most
    return numbers


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rectifies", [False, True])
@pytest.mark.parametrize("stride, padding, side", [(1, 1, 3), (1, 0, 1), (1, 2, 3), (2, 1, 3)])
def test_packed_convolutions_are_torchs(
    stride: int, padding: int, side: int, rectifies: bool, dtype: torch.dtype
) -> None:
    weight, bias = whole_numbers(7, 20, side, side, most=2), whole_numbers(1, 7, most=3)[0]
    kernels = PackedKernels(weight.to(dtype), bias.to(dtype), stride, padding, rectifies)
    for height, width in ((8, 12), (16, 6), (8, 12)):
        x = whole_numbers(2, 20, height, width, most=1)
        plain = F.conv2d(x, weight, bias, stride, padding)
        added = whole_numbers(*plain.shape, most=9)
        for more, expected in ((None, plain), (added.to(dtype), plain + added)):
            found = kernels.convolve(x.to(dtype), more).float()
            expected = expected.relu() if rectifies else expected
            assert torch.equal(found, expected.to(dtype).float())
        assert kernels.packed_for == (x.shape, padding)
        assert torch.equal(kernels.plain_weight(), weight.to(dtype))
    assert (plain < 0).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_bias", [False, True])
def test_packed_products_are_torchs(has_bias: bool, dtype: torch.dtype) -> None:
    weight = whole_numbers(7, 20, most=2)
    bias = whole_numbers(1, 7, most=3)[0] if has_bias else None
    matrix = PackedMatrix(weight.to(dtype), None if bias is None else bias.to(dtype))
    for shape in ((1, 20), (2, 77, 20), (300, 20)):
        x = whole_numbers(*shape, most=1)
        found = matrix.times(x.to(dtype))
        assert torch.equal(found, F.linear(x, weight, bias).to(dtype))
        assert torch.equal(matrix.plain_weight(), weight.to(dtype))


def test_products_of_whole_numbers_are_exact() -> None:
    weight, rows = whole_numbers(7, 300, most=127), whole_numbers(5, 300, most=LARGEST)
    product, scale = EightBitMatrix(weight).times(rows)
    torch.testing.assert_close(product * scale, rows @ weight.T, rtol=1e-6, atol=0)


@pytest.mark.parametrize("stride, padding, side", [(1, 1, 3), (1, 0, 1), (1, 2, 3), (2, 1, 4)])
def test_convolutions_of_whole_numbers_are_exact(stride: int, padding: int, side: int) -> None:
    weight, bias = whole_numbers(7, 20, side, side, most=127), torch.randn(7) * 1e4
    kernels = EightBitKernels(weight, stride, padding)
    for height, width in ((8, 12), (16, 6)):  # packed for the first
        x = whole_numbers(2, 20, height, width, most=LARGEST)
        expected = F.conv2d(x, weight, bias, stride, padding)
        for layout in (torch.channels_last, torch.contiguous_format):
            found = kernels.convolve(x.contiguous(memory_format=layout), bias)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_token_has_a_scale_of_its_own(dtype: torch.dtype) -> None:
    weight, rows = torch.randn(64, 256), torch.randn(6, 256)
    rows = (rows * torch.tensor([1e-15, 1e-3, 1, 1e3, 1e15, 1])[:, None]).to(dtype)
    rows[5, 3] = 2000  # drowns the other numbers of its token, and of no other token
    product, scale = EightBitMatrix(weight).times(rows)
    assert product.dtype == scale.dtype == dtype
    for found, row in zip(product * scale, rows, strict=True):
        assert off(found, row.float() @ weight.T) < 0.02


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_output_of_the_weights_has_a_scale_of_its_own(dtype: torch.dtype) -> None:
    sizes = 10.0 ** torch.arange(-6, 7)
    weight, rows = torch.randn(13, 256) * sizes[:, None], torch.randn(9, 256)
    product, scale = EightBitMatrix(weight).times(rows.to(dtype))
    for found, row in zip((product * scale).T, weight, strict=True):
        assert off(found, rows @ row) < 0.02


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_is_that_of_the_floats(dtype: torch.dtype) -> None:
    weight, bias = torch.randn(48, 64), torch.randn(48)
    x = torch.randn(2, 5, 64, dtype=dtype, requires_grad=True)
    y = EightBitLinear(weight, bias, dtype)(x)
    assert off(y, F.linear(x.detach().float(), weight, bias)) < 0.02
    upstream = torch.randn(2, 5, 48)
    (gradient,) = torch.autograd.grad(y, x, upstream.to(dtype))
    assert gradient.dtype == dtype and off(gradient, upstream @ weight) < 0.02


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_give_zeros(dtype: torch.dtype) -> None:
    product, scale = EightBitMatrix(torch.randn(4, 8)).times(torch.zeros(3, 8, dtype=dtype))
    assert not (product * scale).any()
    kernels = EightBitKernels(torch.randn(4, 8, 1, 1))
    assert not kernels.convolve(torch.zeros(1, 8, 2, 2, dtype=dtype)).any()
    product, scale = EightBitMatrix(torch.zeros(4, 8)).times(torch.randn(3, 8, dtype=dtype))
    assert not (product * scale).any()


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_not_hidden(broken: float) -> None:
    x = torch.randn(3, 8)
    x[1, 2] = broken
    product, scale = EightBitMatrix(torch.randn(4, 8)).times(x)
    finite = (product * scale).isfinite().all(dim=1)
    assert finite.tolist() == [True, False, True]
    kernels = EightBitKernels(torch.randn(4, 8, 1, 1))
    assert not kernels.convolve(x.view(3, 8, 1, 1)).isfinite().any()
