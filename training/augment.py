"""Augmentations for training a CLIP that guides: noise, blur, colour, edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(pictures: Tensor) -> Tensor:
    """Pictures [n, 3, H, W] in [0, 1], each lightly changed in some of the ways below."""
    for change, chance in (
        (coarse, 0.2), (sharpened, 0.1), (moved, 0.6), (recoloured, 0.35), (noisy, 0.4),
    ):  # fmt: skip
        rows = (torch.rand(len(pictures)) < chance).nonzero().squeeze(1)
        if len(rows):
            pictures[rows] = change(pictures[rows])
    return pictures.clamp_(0, 1)


def coarse(pictures: Tensor) -> Tensor:
    """Scaled down to between 0.35 and 0.8 of the size, and up again."""
    side = pictures.shape[-1]
    small = int(side * (0.35 + 0.45 * torch.rand(()).item()))
    down = F.interpolate(pictures, small, mode="bilinear", antialias=True)
    return F.interpolate(down, side, mode="bicubic" if torch.rand(()) < 0.5 else "bilinear")


def sharpened(pictures: Tensor) -> Tensor:
    """Unsharp masking with a 3 x 3 box."""
    soft = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    amount = 2 * torch.rand(len(pictures), 1, 1, 1)
    return (pictures + amount * (pictures - soft)).clamp(0, 1)


def moved(pictures: Tensor) -> Tensor:
    """Turned by up to 29 degrees, shifted, scaled, sheared, bent; around them grey or the edge.

    Bending stands in for the many hands that draw the same thing; the icon sets show only a few.
    """
    n = len(pictures)
    angle = torch.empty(n).uniform_(-0.5, 0.5)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(n)
    turn = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(n, 2, 3)
    theta = turn * torch.empty(n, 1, 1).uniform_(0.85, 1.25)
    theta = theta + torch.randn(n, 2, 3) * torch.tensor([0.06, 0.06, 0.12])
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    bends = 0.07 * torch.rand(n, 1, 1, 1) * torch.randn(n, 2, 5, 5)
    grid = grid + F.interpolate(bends, pictures.shape[-1], mode="bicubic").permute(0, 2, 3, 1)
    if torch.rand(()) < 0.6:
        return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return F.grid_sample(pictures - 0.5, grid, align_corners=False) + 0.5


def recoloured(pictures: Tensor) -> Tensor:
    """Changed in brightness, contrast and saturation; never in hue, as captions name colours."""
    n = len(pictures)
    gray = pictures.mean(1, keepdim=True)
    saturation = torch.empty(n, 1, 1, 1).uniform_(0.65, 1.5)
    contrast = torch.empty(n, 1, 1, 1).uniform_(0.75, 1.2)
    brightness = torch.empty(n, 1, 1, 1).uniform_(-0.1, 0.1)
    pictures = gray + saturation * (pictures - gray)
    return ((pictures - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)


def noisy(pictures: Tensor) -> Tensor:
    """With Gaussian noise of up to 0.25: training on much noise gives gradients that show things.

    Kaur et al. 2019, "Are perceptually-aligned gradients a general property of robust classifiers?"
    """
    return pictures + 0.25 * torch.rand(len(pictures), 1, 1, 1) * torch.randn_like(pictures)
