"""CLIP guidance: each guess of the clean picture is pulled towards prompts, as CLIP sees it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from studio.engines.clip.compare import Comparison
from studio.engines.clip.perceptor import Perceptor
from studio.engines.clip.prompts import write_prompts
from studio.engines.clip.targets import Target, image_targets, text_targets
from studio.engines.diffusion.canvas import Canvas
from studio.engines.diffusion.clip_prompts import clip_prompts
from studio.engines.diffusion.schedule import Schedule
from studio.engines.diffusion.settings import DiffusionSettings
from studio.engines.gradients import clamp_with_gradient
from studio.engines.random_stream import RandomStream

MOST_NOISE = 1.0  # by which a step's noise is changed, root mean square; noise itself has 1
SEEDS = 2**31


@dataclass(frozen=True)
class ClipGuidance:
    """Crowson's CLIP-guided diffusion (2021), in latents.

    The noise that the denoiser finds in a latent z grows by `scale` sqrt(1 - a) times the gradient
    at z of how far the guess of the clean picture is from the prompts (Dhariwal, Nichol 2021,
    "Diffusion Models Beat GANs", algorithm 2).
    """

    comparison: Comparison
    canvas: Canvas
    scale: float

    def guided(
        self,
        predict: Callable[[Tensor], Tensor],
        scaled: Tensor,
        schedule: Schedule,
        place: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Mapping[str, float]]:
        """What the denoiser says of a scaled latent, pulled towards the prompts; and the losses.

        predict: the denoiser. place: of the evaluation. generator: draws the cutouts.
        """
        stream = RandomStream(int(torch.randint(SEEDS, (), generator=generator)))
        with torch.enable_grad():
            latent = scaled.detach().requires_grad_()
            predicted = predict(latent)
            clean = schedule.without_noise(predicted, latent, place)
            slope, losses = self._slope_at(clean.detach(), stream)
            (slope,) = torch.autograd.grad(clean, latent, slope)
        change = self.scale * schedule.noise_level(place) * slope
        size = change.square().mean().sqrt()
        change = change * (MOST_NOISE / size.clamp(min=MOST_NOISE))
        return schedule.with_noise(predicted.detach(), change, place), losses

    def _slope_at(self, clean: Tensor, stream: RandomStream) -> tuple[Tensor, Mapping[str, float]]:
        """The gradient at a clean latent of how far its picture is from the prompts; the losses."""
        clean.requires_grad_()
        picture = clamp_with_gradient(self.canvas.decoded(clean))
        with stream:
            at_a_time = self.comparison.cutouts_at_a_time()
            slope, losses = self.comparison.differentiate(picture, at_a_time)
        (slope,) = torch.autograd.grad(picture, clean, slope)
        return slope, {name: float(loss) for name, loss in losses.items()}


@dataclass(frozen=True)
class Cutouts:
    """How CLIP looks at a picture. Half of the cutouts show all of it, for its composition."""

    settings: DiffusionSettings

    @property
    def cut_pow(self) -> float:
        """By which their sizes are uniform."""
        return 1.0

    @property
    def whole_views(self) -> float:
        """The share of them that shows all of the picture."""
        return 0.5

    @property
    def cutn(self) -> int:
        """How many."""
        return self.settings.cutn

    @property
    def use_cutout_augmentations(self) -> bool:
        """Whether they are flipped, turned and so on."""
        return self.settings.use_cutout_augmentations


@torch.no_grad()
def clip_targets(
    settings: DiffusionSettings,
    images: Sequence[Image.Image],
    weights: Sequence[float],
    perceptor: Perceptor,
) -> list[Target]:
    """What CLIP pulls pictures to, by these settings. It draws no random numbers."""
    said = write_prompts(clip_prompts(settings.text_input))
    return [*text_targets(said, "", perceptor), *image_targets(images, weights, perceptor)]
