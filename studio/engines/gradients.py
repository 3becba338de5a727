"""Operations whose gradients are not those of what they compute."""

from typing import Any

import torch
from torch import Tensor


class _ReplaceGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradient_to: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[None, Tensor]:
        return None, grad


class _ClampWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        clamped = x.clamp(low, high)
        ctx.save_for_backward(x - clamped)
        return clamped

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, None, None]:
        (excess,) = ctx.saved_tensors
        return grad * (grad * excess >= 0), None, None


def replace_gradient(value: Tensor, gradient_to: Tensor) -> Tensor:
    """`value`; its gradient goes unchanged to `gradient_to`, which has the same shape."""
    return _ReplaceGradient.apply(value, gradient_to)


def clamp_with_gradient(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Clamp; the gradient passes where the value is in range, or would move back towards it."""
    return _ClampWithGradient.apply(x, low, high)
