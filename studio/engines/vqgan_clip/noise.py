"""Noise: pictures to begin from, and directions to go to."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.engines.random_stream import RandomStream

Noise = Callable[[int, int], Tensor]  # of a height and a width, a picture [1, 3, H, W] in [0, 1]


def pixels(height: int, width: int) -> Tensor:
    """Each pixel has a colour of its own."""
    return torch.rand(1, 3, height, width)


def gradient(height: int, width: int) -> Tensor:
    """Red, green and blue each run from one random value to another, either across or down."""
    first, last = torch.rand(2, 1, 3, 1, 1)
    across = (torch.rand(1, 3, 1, 1) < 0.5).expand(1, 3, height, width)
    x, y = torch.linspace(0, 1, width), torch.linspace(0, 1, height)[:, None]
    places = torch.where(across, x.expand(height, width), y.expand(height, width))
    return first + (last - first) * places


def fractal(height: int, width: int) -> Tensor:
    """Clouds: value noise in octaves, each twice as fine and half as strong as the one before.

    Each colour fills the whole range.
    """
    total, longest, cells, strength = torch.zeros(1, 3, height, width), max(height, width), 2, 1.0
    while cells <= longest:
        rows, columns = (max(2, round(cells * side / longest) + 1) for side in (height, width))
        octave = torch.rand(1, 3, rows, columns)
        total += strength * F.interpolate(
            octave, (height, width), mode="bicubic", align_corners=True
        )
        cells, strength = 2 * cells, strength / 2
    low, high = total.amin(dim=(2, 3), keepdim=True), total.amax(dim=(2, 3), keepdim=True)
    return (total - low) / (high - low).clamp(min=1e-6)


PICTURES: dict[str, Noise] = {"pixels": pixels, "gradient": gradient, "fractal": fractal}


def embedding(seed: int, width: int) -> Tensor:
    """A random direction [1, width] of length 1; a seed has one, whatever the run's own seed is."""
    with RandomStream(seed):
        return F.normalize(torch.randn(1, width), dim=-1)
