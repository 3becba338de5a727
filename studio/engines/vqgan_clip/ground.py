"""The ground of a picture: the plain area around what it shows.

CLIP pulls weakly at plain areas, and mostly at random. So they gather tints and specks, step after
step, which no prompt asked for. A loss keeps the ground as a run began with it.
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

NEAR = 0.1  # colours of one ground differ from its usual one by at most this much, in each channel
SAME = 0.2  # two grounds of the same name, such as white, differ by less
LEAST = 0.5  # of the border's pixels: fewer make no ground
SIDE = 128  # px; the shorter side at which the ground is followed inwards
ROWS = 1024  # of a picture, that are differentiated at a time: memory grows with them
SOFT = 0.02  # differences below this count by their square, as rounding makes small ones


@dataclass(frozen=True)
class Ground:
    """A picture [1, 3, H, W] in [0, 1], and where it shows its ground: a mask [1, 1, H, W]."""

    picture: Tensor
    mask: Tensor

    @classmethod
    def of(cls, picture: Tensor) -> Self | None:
        """The ground is what has the border's usual colour, and is linked with the border by it.

        None if less than half of the border has one colour, as in a photograph.
        """
        colour = border_colour(picture)
        plain = _is_near(picture, colour)
        if float(border(plain).mean()) < LEAST:
            return None
        scale = min(1.0, SIDE / min(picture.shape[-2:]))
        small = F.interpolate(picture, scale_factor=scale, mode="area") if scale < 1 else picture
        linked = _linked_with_border(_is_near(small, colour))
        return cls(picture, plain * F.interpolate(linked, picture.shape[-2:], mode="nearest"))

    def loss(self, picture: Tensor) -> Tensor:
        """The mean over all pixels of how far the ground's channels are from where they were.

        The absolute difference is rounded at zero (Charbonnier et al. 1994, "Two deterministic
        half-quadratic regularization algorithms for computed imaging").
        """
        away = ((picture - self.picture).square() + SOFT**2).sqrt() - SOFT
        return (self.mask * away).mean()

    def differentiate(self, picture: Tensor, weight: float, gradient: Tensor) -> Tensor:
        """`weight` times the loss of a picture; adds its gradient there to `gradient`."""
        height, losses = picture.shape[-2], []
        for top in range(0, height, ROWS):
            rows = slice(top, min(top + ROWS, height))
            part = picture[..., rows, :].detach().requires_grad_()
            of_part = Ground(self.picture[..., rows, :], self.mask[..., rows, :]).loss(part)
            losses.append(weight * of_part * ((rows.stop - top) / height))
            gradient[..., rows, :] += torch.autograd.grad(losses[-1], part)[0]
        return torch.stack(losses).sum().detach()


def border(picture: Tensor) -> Tensor:
    """The pixels [N, C, n] along the four edges of pictures [N, C, H, W]."""
    edges = picture[..., 0, :], picture[..., -1, :], picture[..., 0], picture[..., -1]
    return torch.cat(edges, dim=-1)


def border_colour(pictures: Tensor) -> Tensor:
    """The median of each channel along the edges of all pictures [N, C, H, W]: [C]."""
    return border(pictures).transpose(0, 1).flatten(1).median(dim=1).values


def kept_ground(begun: Tensor, sketches: Tensor | None) -> Ground | None:
    """The ground of the picture that a run began with, if it is what the prompts ask for.

    sketches: of the prompts [N, 3, S, S], which show what ground they ask for; None keeps any.
    """
    ground = Ground.of(begun)
    if ground is None or sketches is None:
        return ground
    asked = (border_colour(sketches) - border_colour(begun)).abs().max()
    return ground if asked < SAME else None


def _is_near(picture: Tensor, colour: Tensor) -> Tensor:
    return ((picture - colour[:, None, None]).abs().amax(dim=1, keepdim=True) < NEAR).float()


def _linked_with_border(plain: Tensor) -> Tensor:
    """Of a mask [1, 1, H, W], what a path of pixels, through edges or corners, links with it."""
    inside = torch.zeros_like(plain[..., 2:, 2:])
    linked = plain * F.pad(inside, (1, 1, 1, 1), value=1.0)
    while True:
        grown = plain * F.max_pool2d(linked, 3, stride=1, padding=1)
        if torch.equal(grown, linked):
            return linked
        linked = grown
