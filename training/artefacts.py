"""Pictures as the bundled VQGAN draws them, so that CLIP knows its artefacts."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from training.data import Composer, Sample
from training.train_vqgan import CONFIG, WEIGHTS, look_up, nearest_codes
from vqgan_utils import VQGAN, load_vqgan_model

POOL = 1536  # pictures kept for reuse: decoding new ones at each step would cost too much
REFRESHED = {64: 24, 128: 6}  # pictures made at once, by their side in pixels
DAMAGE = 0.15  # largest share of codes replaced by random ones
WORST = 0.1  # mean absolute error above which the caption may no longer hold


def newest_vqgan() -> VQGAN:
    """The VQGAN with the weights that its trainer wrote last."""
    return _load(WEIGHTS.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _load(written: int) -> VQGAN:
    return load_vqgan_model(CONFIG, WEIGHTS).to(memory_format=torch.channels_last)


@dataclass
class ArtefactPool:
    """Captioned pictures [3, size, size] that went through the VQGAN, the newest POOL of them."""

    composer: Composer
    entries: list[tuple[Tensor, Sample]] = field(default_factory=list)

    def refresh(self) -> None:
        """Add pictures, redrawn by the newest VQGAN."""
        side = random.choice(list(REFRESHED))
        samples = self.composer.samples(REFRESHED[side])
        pictures = self.composer.compose([sample.scene for sample in samples], side)
        redrawn = self.redrawn(pictures)
        errors = (redrawn - pictures).abs().mean(dim=(1, 2, 3)).tolist()
        redrawn = F.interpolate(redrawn, self.composer.size, mode="bilinear", antialias=True)
        for picture, sample, error in zip(redrawn, samples, errors, strict=True):
            if error < WORST:
                self.entries.append((picture, sample))
        self.entries = self.entries[-POOL:]

    @torch.no_grad()  # not inference mode: impostors could not use its tensors
    def redrawn(self, pictures: Tensor) -> Tensor:
        """Pictures [n, 3, H, W] in [0, 1] after encoding, damaging some codes, and decoding."""
        vqgan = newest_vqgan()
        codebook = vqgan.codebook
        codes = nearest_codes(vqgan.encode(2 * pictures - 1), codebook)
        damaged = torch.rand(codes.shape) < DAMAGE * torch.rand(len(codes), 1, 1)
        codes = torch.where(damaged, torch.randint(len(codebook), codes.shape), codes)
        return (0.5 + 0.5 * vqgan.decode(look_up(codes, codebook))).clamp(0, 1)

    def mix_in(self, pictures: Tensor, samples: list[Sample], among: int, share: float) -> None:
        """Replace about `share` of the first `among` pictures and samples with redrawn ones."""
        count = min(int(share * among), len(self.entries) // 4)
        rows = random.sample(range(among), count)
        for row, entry in zip(rows, random.sample(self.entries, count), strict=True):
            pictures[row], samples[row] = entry
