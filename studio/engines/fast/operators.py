"""Gradients by private operators of PyTorch, and a group norm with its moments."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.engines.fast.guarded import Guarded, whole_numbers


def _examples_of_gradients() -> Iterator[tuple[Tensor, ...]]:
    grad, y = whole_numbers(2, 3, 4, 5, most=9), whole_numbers(2, 3, 4, 5, most=7) / 2
    for dtype in (torch.float32, torch.bfloat16):
        yield grad.to(dtype), y.to(dtype)


relu_gradient = Guarded(
    "gradient of a ReLU",
    quick=lambda grad, y: torch.ops.aten.threshold_backward(grad, y, 0),
    plain=lambda grad, y: grad * (y > 0),
    examples=_examples_of_gradients,
)


def _silu_gradient_plainly(grad: Tensor, y: Tensor) -> Tensor:
    """d/dy y s = s (1 + y (1 - s)), where s is the sigmoid of y."""
    s = y.float().sigmoid()
    return (grad.float() * s * (1 + y.float() * (1 - s))).to(grad.dtype)


# The quick one overwrites y.
silu_gradient = Guarded(
    "gradient of a SiLU",
    quick=lambda grad, y: torch.ops.aten.silu_backward.grad_input(grad, y, grad_input=y),
    plain=_silu_gradient_plainly,
    examples=_examples_of_gradients,
)


def _input_gradient(grad: Tensor, weight: Tensor, shape: torch.Size, padding: int) -> Tensor:
    """The gradient of a convolution of stride 1 at its input, of which only the shape matters."""
    x = torch.empty(shape, dtype=grad.dtype, memory_format=torch.channels_last)
    geometry = ([1, 1], [padding] * 2, [1, 1], False, [0, 0], 1)
    wanted = [True, False, False]  # of input, weight and bias
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, wanted)[0]


def input_gradient_plainly(grad: Tensor, weight: Tensor, shape: torch.Size, padding: int) -> Tensor:
    """The gradient of a convolution of stride 1 at its input, as a transposed convolution."""
    return F.conv_transpose2d(grad, weight, padding=padding)


def _examples_of_convolutions() -> Iterator[tuple[Tensor, Tensor, torch.Size, int]]:
    weight = whole_numbers(4, 3, 3, 3, most=5)
    for padding in (0, 1):
        side = 4 + 2 * padding
        grad = whole_numbers(2, 4, side, side, most=5)
        yield grad, weight, torch.Size((2, 3, 6, 6)), padding


input_gradient = Guarded(
    "gradient of a convolution",
    quick=_input_gradient,
    plain=input_gradient_plainly,
    examples=_examples_of_convolutions,
)


def _norm_with_moments(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A group norm of x [B, C, H, W], its means [B, groups] and one over its deviations."""
    batch, channels, height, width = x.shape
    return torch.native_group_norm(x, weight, bias, batch, channels, height * width, groups, eps)


def _norm_with_moments_plainly(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    variance, mean = torch.var_mean(
        x.float().unflatten(1, (groups, -1)).flatten(2), 2, correction=0
    )
    return F.group_norm(x, groups, weight, bias, eps), mean, (variance + eps).rsqrt()


def _examples_of_norms() -> Iterator[tuple[Tensor, Tensor, Tensor, int, float]]:
    x = whole_numbers(2, 6, 4, 5, most=9).contiguous(memory_format=torch.channels_last)
    weight, bias = whole_numbers(2, 6, most=4) / 3
    yield x, weight, bias, 3, 1e-6


norm_with_moments = Guarded(
    "group norm with its moments",
    quick=_norm_with_moments,
    plain=_norm_with_moments_plainly,
    examples=_examples_of_norms,
)


def probe_gradients() -> None:
    """Try these operators now, so that no step has to wait for it."""
    for operator in (relu_gradient, silu_gradient, input_gradient, norm_with_moments):
        operator.probe()
