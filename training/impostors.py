"""Pictures that CLIP takes for something that they do not show.

Whoever follows CLIP's gradient ends where its similarity is highest, and that may be no picture of
the prompt at all. So the training follows it too, for a few steps at a time from kept pictures (as
the replay buffer of Du and Mordatch 2019), and every caption must prefer its real picture.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.data import Composer, Sample

COUNT = 20  # in a batch
POOL = 400
STEPS = 2  # along the gradient each time
STEP_SIZE = 0.08  # root mean square of the change
OLDEST = 24  # steps after which one starts anew


@dataclass
class Impostor:
    """A picture [3, H, W] in [0, 1] on its way to fooling CLIP with its sample's caption."""

    picture: Tensor
    sample: Sample
    age: int = 0


class ImpostorPool:
    """Kept impostors; `draw` some, `advance` them along the gradient."""

    def __init__(self, composer: Composer):
        self.composer = composer
        self.entries = [self._new(sample) for sample in composer.samples(POOL)]

    def draw(self) -> list[Impostor]:
        """COUNT impostors, those too old replaced by new ones."""
        rows = random.sample(range(POOL), COUNT)
        old = [row for row in rows if self.entries[row].age >= OLDEST]
        for row, sample in zip(old, self.composer.samples(len(old)), strict=True):
            self.entries[row] = self._new(sample)
        return [self.entries[row] for row in rows]

    def _new(self, sample: Sample) -> Impostor:
        """Coloured blobs of some sizes, half of the time over the picture of something else."""
        size = self.composer.size
        picture = torch.full((1, 3, size, size), 0.5)
        if random.random() < 0.5:
            picture = self.composer.compose([self.composer.samples(1)[0].scene])
        for cells in random.sample((1, 2, 4, 8, 16), 3):
            blobs = 0.25 * torch.randn(1, 3, cells, cells)
            picture = picture + F.interpolate(blobs, size, mode="bilinear")
        return Impostor(picture[0].clamp(0, 1), sample)

    def advance(
        self, drawn: list[Impostor], encode: Callable[[Tensor], Tensor], texts: Tensor
    ) -> Tensor:
        """Move the drawn towards their captions' features [COUNT, 256] and return the pictures.

        The gradient is smoothed at a random scale, for a VQGAN cannot draw every pixel freely.
        """
        pictures = torch.stack([impostor.picture for impostor in drawn])
        for _ in range(STEPS):
            pictures.requires_grad_()
            similarity = (encode(pictures) * texts).sum()
            (gradient,) = torch.autograd.grad(similarity, pictures)
            step = smoothed(gradient, random.choice((1, 2, 4, 8)))
            step = STEP_SIZE * step / step.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
            pictures = (pictures.detach() + step.nan_to_num()).clamp(0, 1)
        for impostor, picture in zip(drawn, pictures, strict=True):
            impostor.picture = picture
            impostor.age += STEPS
        return pictures.clone()


def smoothed(pictures: Tensor, scale: int) -> Tensor:
    """The means of scale x scale blocks, interpolated back."""
    means = F.avg_pool2d(pictures, scale)
    return F.interpolate(means, pictures.shape[-1], mode="bilinear")
