"""The hires fix: a picture that was drawn small is enlarged, and drawn on at its full size.

After github.com/AUTOMATIC1111/stable-diffusion-webui's "Hires. fix".
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from studio.engines.arrays import to_tensor, to_uint8
from studio.engines.diffusion.canvas import Canvas
from studio.engines.diffusion.drawing import Drawing
from studio.engines.diffusion.schedule import Schedule
from studio.media.pictures import scaled
from studio.models import upscaler_networks, upscalers
from studio.models.enlarging import bands

LATENT, LANCZOS = "latent", "lanczos"
Enlarge = Callable[[Image.Image, tuple[int, int]], Image.Image]  # to a width and a height


def enlarger(name: str, assets_dir: Path, device: torch.device) -> Enlarge | None:
    """What makes pictures larger; None enlarges latents. Raises BadInput."""
    if name == LATENT:
        return None
    if name == LANCZOS:
        return scaled
    network = upscaler_networks.load(upscalers.get(name, assets_dir), device)

    def enlarge(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
        pixels = np.asarray(picture)
        larger = np.concatenate(list(bands(pixels, network, Fraction(network.scale))))
        return scaled(Image.fromarray(larger), size)

    return enlarge


def enlarged(
    drawing: Drawing,
    enlarge: Enlarge | None,
    size: tuple[int, int],
    canvas: Canvas,
    schedule: Schedule,
) -> Drawing:
    """The picture at `size` (width, height), with as much noise as the schedule begins with.

    Around a mask, what was there stays. The drawing goes on with the same random numbers.
    """
    generator = drawing.copy().generator
    shape = size[1] // canvas.factor, size[0] // canvas.factor
    if enlarge is None:
        clean = F.interpolate(drawing.latent, shape, mode="bilinear", antialias=True)
    else:
        picture = Image.fromarray(to_uint8(canvas.decode(drawing.latent)))
        clean = canvas.encode(to_tensor(enlarge(picture, size)), generator).cpu()
    noise = torch.randn(clean.shape, generator=generator)
    given = {"clean": clean, "noise": noise} | _around(drawing, shape)
    return Drawing(schedule.noised(clean, noise, 0), schedule, generator, given, False)


def _around(drawing: Drawing, shape: tuple[int, int]) -> dict[str, Tensor]:
    """What the drawing knows of a mask, enlarged."""
    found = {}
    if "mask" in drawing.given:
        found["mask"] = F.interpolate(drawing.given["mask"], shape, mode="nearest")
    if "seen" in drawing.given:
        mask, rest = drawing.given["seen"].split([1, drawing.latent.shape[1]], 1)
        larger = F.interpolate(rest, shape, mode="bilinear", antialias=True)
        found["seen"] = torch.cat([F.interpolate(mask, shape, mode="nearest"), larger], 1)
    return found
