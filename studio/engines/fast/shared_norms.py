"""Group norms that see a tile as a part of its whole picture.

A group norm divides by the spread of its whole input. Were that a tile, each tile would have
contrasts and colours of its own. So all tiles take the moments of a reduced picture of the whole.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.engines.fast.frozen_layers import NormSiLU
from studio.engines.fast.operators import silu_gradient

Norm = nn.GroupNorm | NormSiLU


def moments_of(network: nn.Module, compute: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """What `compute` gives, and the moments of the inputs of a network's group norms meanwhile.

    Moments are means and variances, [norms, 2, groups] in float32. `compute` uses each norm
    once, for one picture.
    """
    norms = _norms(network)
    found: dict[nn.Module, Tensor] = {}

    def hear(norm: Norm, inputs: tuple[Tensor]) -> None:
        found[norm] = _moments(norm, inputs[0])

    handles = [norm.register_forward_pre_hook(hear) for norm in norms]
    try:
        return compute(), torch.stack([found[norm] for norm in norms])
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def shared_norms(network: nn.Module, moments: Tensor) -> Iterator[None]:
    """Within it, the group norms of a network take these moments instead of their input's."""
    norms = _norms(network)
    for norm, given in zip(norms, moments, strict=True):
        norm.forward = _Shared(norm, given)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _norms(network: nn.Module) -> list[Norm]:
    return [part for part in network.modules() if isinstance(part, Norm)]


def _groups(norm: Norm) -> int:
    return norm.num_groups if isinstance(norm, nn.GroupNorm) else norm.groups


def _moments(norm: Norm, x: Tensor) -> Tensor:
    by_group = x[0].detach().float().unflatten(0, (_groups(norm), -1)).flatten(1)
    variance, mean = torch.var_mean(by_group, 1, correction=0)
    return torch.stack([mean, variance])


class _Shared:
    """The forward pass of a norm by given moments [2, groups]."""

    def __init__(self, norm: Norm, moments: Tensor) -> None:
        per_group = len(norm.weight) // _groups(norm)
        mean, variance = moments.repeat_interleave(per_group, dim=1)
        self._affine = mean, variance, norm.weight.float(), norm.bias.float(), norm.eps
        self._rectifies = isinstance(norm, NormSiLU)

    def __call__(self, x: Tensor) -> Tensor:
        return (
            _FixedNormSiLU.apply(x, *self._affine)
            if self._rectifies
            else _fixed_norm(x, *self._affine)
        )


def _fixed_norm(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) weight + bias, each [C]."""
    return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)


class _FixedNormSiLU(torch.autograd.Function):
    """silu of `_fixed_norm`; only x is kept for the gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, *affine):
        ctx.save_for_backward(x, *affine[:-1])
        ctx.eps = affine[-1]
        return F.silu(_fixed_norm(x, *affine), inplace=True)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, mean, variance, weight, bias = ctx.saved_tensors
        y = _fixed_norm(x, mean, variance, weight, bias, ctx.eps)
        scale = weight * (variance + ctx.eps).rsqrt()
        found = silu_gradient(grad, y) * scale.to(grad.dtype).view(-1, 1, 1)
        return found, None, None, None, None, None
