"""Networks to freeze, and how frozen ones are compared with them."""

from collections.abc import Callable

import tiny_models
import torch
from clip.model import build_model
from torch import Tensor, nn

Network = Callable[[Tensor], Tensor]


def output_and_gradient(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """What a network makes of x, and the gradient at x of a fixed function of it."""
    x = x.detach().requires_grad_()
    y = network(x)
    upstream = torch.linspace(-1, 1, y.numel()).view(y.shape).to(y.dtype)
    return y.float(), torch.autograd.grad(y, x, upstream)[0].float()


def assert_same(
    fast: Network, plain: Network, x: Tensor, dtype: torch.dtype, *shares: float
) -> None:
    """Output and gradient differ by at most these shares of their size."""
    of_fast, of_plain = output_and_gradient(fast, x.to(dtype)), output_and_gradient(plain, x)
    for ours, theirs, share in zip(of_fast, of_plain, shares, strict=True):
        assert (ours - theirs).norm() <= share * theirs.norm()


def prepared_visual(resnet: bool) -> nn.Module:
    """What a tiny CLIP sees with, its batch norms as after a training."""
    plain = build_model(tiny_models.clip_state_dict(resnet, vision_layers=2)).float().visual.eval()
    for norm in (part for part in plain.modules() if isinstance(part, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm.weight, 0.5, 2)
    return plain.requires_grad_(False)
