"""The latent that a run starts from: of a picture, of noise, of a sketch, or random."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from studio.engines.arrays import to_tensor
from studio.engines.clip.targets import Target
from studio.engines.vqgan_clip import noise
from studio.engines.vqgan_clip.sketch import Sketcher, fit
from studio.engines.vqgan_clip.tiles import Canvas
from studio.media.pictures import cover
from vqgan_utils import Perceptor, random_latent

# A sketch whose cosine similarity to the wish is lower by this much is chosen e times as rarely.
NEAR_BEST = 0.02


def latent_of_image(canvas: Canvas, image: Image.Image, size: tuple[int, int]) -> Tensor:
    """A picture, scaled to cover `size` (width, height), as a latent [1, d, h, w]."""
    picture = to_tensor(cover(image, size)).to(canvas.codebook.device)
    return encode(canvas, picture)


def latent_of_noise(canvas: Canvas, kind: str, size: tuple[int, int]) -> Tensor:
    """A picture of noise of `size` (width, height), as a latent. kind: one of `noise.PICTURES`."""
    width, height = size
    return encode(canvas, noise.PICTURES[kind](height, width).to(canvas.codebook.device))


def latent_of_sketch(canvas: Canvas, sketch: Tensor, size: tuple[int, int]) -> Tensor:
    """A sketch [1, 3, S, S] in the middle of `size` (width, height), as a latent."""
    width, height = size
    return encode(canvas, fit(sketch, height, width))


def latent_of_codes(canvas: Canvas, size: tuple[int, int], factor: int) -> Tensor:
    """Random codes for `size` (width, height), where a code covers `factor` pixels a side."""
    width, height = size
    return random_latent(canvas.codebook, height // factor, width // factor)


def wish_of(wished: Sequence[Target]) -> Tensor:
    """All that is wished as one unit embedding [1, D]."""
    parts = (target.weight * target.embedding for target in wished)
    return F.normalize(sum(parts, start=torch.zeros(())), dim=-1)


def choose_sketch(perceptor: Perceptor, sketcher: Sketcher, wished: Sequence[Target]) -> Tensor:
    """One sketch [1, 3, S, S] of all that is wished, at random among those near the best."""
    wish = wish_of(wished)
    sketches = sketcher.draw(wish)
    side = perceptor.input_resolution
    seen = F.interpolate(sketches, side, mode="bilinear", antialias=True)
    near = (perceptor.encode_image(seen) @ wish[0]).cpu().nan_to_num()
    chosen = torch.multinomial((near / NEAR_BEST).softmax(0), 1)
    return sketches[chosen.to(sketches.device)]


def enlarged(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture [1, 3, H, W] in [0, 1] at a larger size (width, height)."""
    width, height = size
    return F.interpolate(picture, (height, width), mode="bicubic").clamp(0, 1)


def encode(canvas: Canvas, picture: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] as latents [B, d, h, w] before quantisation, in float32."""
    return canvas.encode(picture * 2 - 1)
