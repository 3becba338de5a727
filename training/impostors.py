"""Pictures that CLIP takes for something that they do not show.

CLIP's gradient leads to where the similarity is highest, and that need not be a picture of the
prompt at all. So the training follows the gradient too: in the bundled VQGAN's latents, as a run
does, one step at a time from kept latents (like the replay buffer of Du and Mordatch 2019). Every
caption must prefer its real picture.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.artefacts import newest_vqgan
from training.data import Composer, Sample
from vqgan_utils import clamp_with_gradient, random_latent, vector_quantize

COUNTS = {8: 20, 12: 9, 16: 5}  # in a batch, by the latent's side: about equal work
POOL_BATCHES = 2  # batches of each size that are kept
STEP_SIZE = 0.4  # root mean square of the change to a latent
OLDEST = 60  # moves after which an impostor is replaced
SMALLEST_CROP = 0.6  # of the picture's side


@dataclass
class Impostor:
    """A latent z [d, h, w] on its way to fooling CLIP with its sample's caption."""

    z: Tensor
    sample: Sample
    age: int


class ImpostorPool:
    """Kept impostors; `draw` some, `advance` them along the gradient."""

    def __init__(self, composer: Composer):
        self.composer = composer
        self.vqgan = newest_vqgan()
        self.pools = {
            side: [self._new(side, random.randrange(OLDEST)) for _ in range(POOL_BATCHES * count)]
            for side, count in COUNTS.items()
        }

    def draw(self) -> list[Impostor]:
        """Impostors of one size; new ones replace those that are too old."""
        self.vqgan = newest_vqgan()
        side = random.choice(list(COUNTS))
        pool = self.pools[side]
        rows = random.sample(range(len(pool)), COUNTS[side])
        for row in rows:
            if pool[row].age >= OLDEST:
                pool[row] = self._new(side)
        return [pool[row] for row in rows]

    @torch.no_grad()
    def _new(self, side: int, age: int = 0) -> Impostor:
        """Start from blots or random codes, as runs do, or from a picture of something else."""
        sample, other = self.composer.samples(1)[0], self.composer.samples(1)[0]
        start = random.choice(("blots", "codes", "picture"))
        if start == "codes":
            return Impostor(random_latent(self.vqgan.codebook, side, side)[0], sample, age)
        if start == "blots":
            picture = blots(8 * side)
        else:
            picture = self.composer.compose([other.scene], 8 * side)
        return Impostor(self.vqgan.encode(2 * picture - 1)[0], sample, age)

    def advance(
        self, drawn: list[Impostor], encode: Callable[[Tensor], Tensor], texts: Tensor
    ) -> Tensor:
        """Move the drawn ones towards their captions' features [n, D]; returns their new pictures.

        CLIP sees whole pictures or crops; those returned, [n, 3, S, S] in [0, 1], are whole.
        """
        size = self.composer.size
        z = torch.stack([impostor.z for impostor in drawn]).requires_grad_()
        seen = F.interpolate(_crop(self._decode(z)), size, mode="bilinear", antialias=True)
        (gradient,) = torch.autograd.grad((encode(seen) * texts).sum(), z)
        rms = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        z = z.detach() + STEP_SIZE * (gradient / rms).nan_to_num()
        for impostor, latent in zip(drawn, z, strict=True):
            impostor.z = latent
            impostor.age += 1
        with torch.no_grad():
            return F.interpolate(self._decode(z), size, mode="bilinear", antialias=True)

    def _decode(self, z: Tensor) -> Tensor:
        z_q = vector_quantize(z, self.vqgan.codebook)
        with torch.autocast("cpu", torch.bfloat16):
            decoded = self.vqgan.decode(z_q.to(memory_format=torch.channels_last))
        return clamp_with_gradient((decoded.float() + 1) / 2)


def blots(side: int) -> Tensor:
    """One to five ellipses of plain colour on plain ground: [1, 3, side, side] in [0, 1]."""
    picture = torch.rand(3, 1, 1).expand(3, side, side)
    axis = (torch.arange(side) + 0.5) * 2 / side - 1
    for _ in range(random.randint(1, 5)):
        x, y = (random.uniform(-0.65, 0.65) for _ in range(2))
        across, along = (random.uniform(0.12, 0.57) for _ in range(2))
        inside = ((axis - x) / across) ** 2 + ((axis[:, None] - y) / along) ** 2 < 1
        picture = torch.where(inside, torch.rand(3, 1, 1), picture)
    return picture[None]


def _crop(pictures: Tensor) -> Tensor:
    """The pictures, or half of the time a square part of them."""
    if random.random() < 0.5:
        return pictures
    side = pictures.shape[-1]
    part = int(side * random.uniform(SMALLEST_CROP, 1))
    top, left = random.randint(0, side - part), random.randint(0, side - part)
    return pictures[..., top : top + part, left : left + part]
