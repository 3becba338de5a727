"""Between pictures and latents: the autoencoder, and a cheap projection for the live picture."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NARROW = 32  # channels up to which a decoder takes about as long as a step, or less
PATCH, PATCHES = 4, 8  # of colours to fit the projection to: positions a side, and how many a side


@dataclass
class Canvas:
    """Pictures [B, 3, H, W] in [0, 1], and latents [B, d, h, w] in float32.

    vae: diffusers' AutoencoderKL or VQModel. factor: pixels that a position covers, a side.
    width: its channels at full size. dtype: what it computes in.
    """

    vae: Any
    factor: int
    width: int
    dtype: torch.dtype
    _projection: Tensor | None = None

    @torch.no_grad()
    def encode(self, picture: Tensor, generator: torch.Generator | None) -> Tensor:
        """A picture's latent, drawn from what the encoder says. generator: None takes its mean."""
        told = self.vae.encode((picture * 2 - 1).to(self.vae.device, self.dtype))
        if not hasattr(told, "latent_dist"):
            latent = told.latents
        elif generator is None:
            latent = told.latent_dist.mode()
        else:
            latent = told.latent_dist.sample(generator)
        # As a checkpoint brings it back: channels last, networks would round it otherwise.
        return self._standardised(latent.float()).contiguous()

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """The picture of a latent."""
        return self.decoded(latent).clamp(0, 1)

    def decoded(self, latent: Tensor) -> Tensor:
        """About in [0, 1]; a gradient passes."""
        config = self.vae.config
        latent = latent / config.scaling_factor
        if getattr(config, "latents_mean", None) and getattr(config, "latents_std", None):
            mean, std = self._published(config.latents_mean), self._published(config.latents_std)
            latent = latent * std.to(latent) + mean.to(latent)
        picture = self.vae.decode(latent.to(self.vae.device, self.dtype)).sample
        return picture.float() / 2 + 0.5

    @property
    def is_quick(self) -> bool:
        """Whether the decoder is quick enough to show each step."""
        return self.width <= NARROW

    @torch.no_grad()
    def sketch(self, latent: Tensor) -> Tensor:
        """Roughly the picture of a latent: each position as one colour, enlarged."""
        if self._projection is None:
            self._projection = self._fitted()
        matrix, constant = self._projection[:-1], self._projection[-1]
        colours = torch.einsum("bdhw,dc->bchw", latent.cpu(), matrix) + constant[:, None, None]
        return F.interpolate(colours, scale_factor=self.factor, mode="bilinear").clamp(0, 1)

    def _fitted(self) -> Tensor:
        """A matrix [d + 1, 3] from latents to colours, by least squares over patches of colour."""
        colours = torch.rand(1, 3, PATCHES, PATCHES, generator=torch.Generator().manual_seed(0))
        side = PATCH * self.factor
        patches = F.interpolate(colours, scale_factor=side, mode="nearest")
        latent = self.encode(patches, None).cpu()
        wanted = F.interpolate(colours, latent.shape[-2:], mode="nearest").flatten(2)[0].T
        known = F.pad(latent.flatten(2)[0].T, (0, 1), value=1.0)
        return torch.linalg.lstsq(known, wanted, driver="gelsd").solution

    def _standardised(self, latent: Tensor) -> Tensor:
        config = self.vae.config
        if getattr(config, "latents_mean", None) and getattr(config, "latents_std", None):
            mean, std = self._published(config.latents_mean), self._published(config.latents_std)
            latent = (latent - mean.to(latent)) / std.to(latent)
        return latent * config.scaling_factor

    @staticmethod
    def _published(numbers: Any) -> Tensor:
        return torch.as_tensor(numbers, dtype=torch.float32).reshape(1, -1, 1, 1)
