"""VQGAN-CLIP as the first notebooks and web apps did it; the engine is measured against it.

Every part is written the plain way: a one-hot product for the codebook, cutouts one after the
other with Lanczos resampling, and a second decode for the picture that is shown.
"""

import math
from pathlib import Path
from typing import Any

import clip
import torch
import torch.nn.functional as F
from clip.model import build_model
from torch import Tensor, nn

from studio.models.catalogue import get_weights, picture_size
from studio.models.weight_files import read_state_dict
from vqgan_utils import CLIP_MEAN, CLIP_STD, find_clip_model, load_vqgan_model


class PlainLoop:
    """The loop with a run's settings, on models of its own: as published, in float32."""

    def __init__(self, settings: Any, assets_dir: Path, device: torch.device) -> None:
        import kornia.augmentation as K

        torch.manual_seed(settings.seed)
        weights = get_weights(assets_dir, settings.vqgan_ckpt)
        self.settings, self.device = settings, device
        self.size = picture_size(weights, settings.Xdim, settings.ydim)
        self.vqgan = load_vqgan_model(weights.config_path, weights.checkpoint_path).to(device)
        clip_path = find_clip_model(settings.clip_model, assets_dir)
        self.clip = build_model(read_state_dict(clip_path)).float().to(device)
        self.clip.eval().requires_grad_(False)
        self.mean, self.std = (
            torch.tensor(part, device=device).view(3, 1, 1) for part in (CLIP_MEAN, CLIP_STD)
        )
        codebook = self.vqgan.codebook
        self.low, self.high = codebook.amin(0)[:, None, None], codebook.amax(0)[:, None, None]
        width, height = (side // weights.factor for side in self.size)
        tokens = torch.randint(len(codebook), (height * width,), device=codebook.device)
        z = F.one_hot(tokens, len(codebook)).float() @ codebook
        self.z = z.view(1, height, width, -1).permute(0, 3, 1, 2).clone().requires_grad_()
        self.optimiser = torch.optim.Adam([self.z], lr=self.settings.step_size)
        tokens = clip.tokenize([settings.text_input], self.clip.context_length).to(device)
        self.prompt = F.normalize(self.clip.encode_text(tokens), dim=-1)
        self.augment = nn.Sequential(
            K.RandomHorizontalFlip(p=0.5),
            K.RandomSharpness(0.3, p=0.4),
            K.RandomAffine(degrees=30, translate=(0.1, 0.1), p=0.8, padding_mode="border"),
            K.RandomPerspective(0.2, p=0.4),
            K.ColorJitter(hue=0.01, saturation=0.01, p=0.7),
        )

    def step(self) -> Tensor:
        """Optimise once; the picture, uint8 [H, W, 3], decoded after the update."""
        self.optimiser.zero_grad()
        cutouts = self.cutouts(self.decode())
        embeddings = F.normalize(self.clip.encode_image((cutouts - self.mean) / self.std), dim=-1)
        distance = (embeddings - self.prompt).norm(dim=-1).div(2).arcsin().square().mul(2).mean()
        (distance + self.settings.tv_loss_weight * self.total_variation()).backward()
        self.optimiser.step()
        with torch.no_grad():
            self.z.copy_(self.z.maximum(self.low).minimum(self.high))
            picture = self.decode()[0]
        return picture.mul(255).byte().permute(1, 2, 0).cpu()

    def decode(self) -> Tensor:
        x, codebook = self.z.movedim(1, 3), self.vqgan.codebook
        distances = x.square().sum(-1, keepdim=True) + codebook.square().sum(1)
        nearest = (distances - 2 * x @ codebook.T).argmin(-1)
        codes = F.one_hot(nearest, len(codebook)).to(x.dtype) @ codebook
        return ((self.vqgan.decode((x + (codes - x).detach()).movedim(3, 1)) + 1) / 2).clamp(0, 1)

    def total_variation(self) -> Tensor:
        padded = F.pad(self.z, (0, 1, 0, 1), "replicate")
        across = padded[..., :-1, 1:] - padded[..., :-1, :-1]
        down = padded[..., 1:, :-1] - padded[..., :-1, :-1]
        return (across.square() + down.square() + 1e-8).mean(dim=1).sqrt().mean()

    def cutouts(self, picture: Tensor) -> Tensor:
        (width, height), side = self.size, self.clip.visual.input_resolution
        high, cutouts = min(width, height), []
        low = min(high, side)
        for _ in range(self.settings.cutn):
            size = int(torch.rand(()) ** self.settings.cut_pow * (high - low) + low)
            left, top = (int(torch.randint(edge - size + 1, ())) for edge in (width, height))
            window = picture[:, :, top : top + size, left : left + size]
            cutouts.append(resample(window, side))
        batch = self.augment(torch.cat(cutouts).clamp(0, 1))
        strength = torch.rand(len(batch), 1, 1, 1, device=batch.device) * 0.1
        return batch + strength * torch.randn_like(batch)


def resample(picture: Tensor, side: int) -> Tensor:
    """Low-pass with a Lanczos kernel where it shrinks, then sample bicubically."""
    for _ in range(2):  # once along each axis
        picture = low_pass(picture, side / picture.shape[-1]).transpose(-1, -2)
    return F.interpolate(picture, (side, side), mode="bicubic", align_corners=True)


def low_pass(picture: Tensor, ratio: float) -> Tensor:
    """Smooth along the last axis, for a picture that is to have `ratio` of its size."""
    if ratio >= 1:
        return picture
    kernel = lanczos(ratio).to(picture)
    reach, channels = len(kernel) // 2, picture.shape[1]
    padded = F.pad(picture, (reach, reach, 0, 0), mode="reflect")
    return F.conv2d(padded, kernel.expand(channels, 1, 1, -1), groups=channels)


def lanczos(ratio: float, lobes: int = 2) -> Tensor:
    """A normalised Lanczos kernel that keeps the lowest `ratio` of all frequencies."""
    reach = math.ceil(lobes / ratio)
    x = torch.arange(-reach, reach + 1) * ratio
    kernel = torch.sinc(x) * torch.sinc(x / lobes) * (x.abs() < lobes)
    return kernel / kernel.sum()
