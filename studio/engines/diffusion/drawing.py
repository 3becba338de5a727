"""One picture on its way from noise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from studio.engines.arrays import to_tensor
from studio.engines.diffusion.canvas import Canvas
from studio.engines.diffusion.clip_guidance import ClipGuidance
from studio.engines.diffusion.conditioning import Conditioning
from studio.engines.diffusion.denoiser import Denoiser
from studio.engines.diffusion.schedule import Schedule
from studio.media.pictures import cover

# What a picture may start from, beside its noise: the clean latent of a starting image; the mask
# of what is drawn anew; and what inpainting weights see, which is the mask and the rest's latent.
GIVEN = ("noise", "clean", "mask", "seen")


@dataclass
class Drawing:
    """A latent [1, d, h, w] in float32, its sampler and its random numbers.

    given: of GIVEN, those that there are. is_all_new: whether it begins with noise alone.
    losses: of the last step, where CLIP guides it.
    """

    latent: Tensor
    schedule: Schedule
    generator: torch.Generator
    given: dict[str, Tensor] = field(default_factory=dict)
    is_all_new: bool = True
    losses: Mapping[str, float] = field(default_factory=dict)

    def copy(self) -> "Drawing":
        """The same, to be changed without changing this one."""
        generator = torch.Generator()
        generator.set_state(self.generator.get_state())
        return Drawing(self.latent, self.schedule.copy(), generator, self.given, self.is_all_new)

    def see_nothing(self, canvas: Canvas, size: tuple[int, int]) -> None:
        """Let inpainting weights draw all of the picture: it is masked wholly, and grey."""
        width, height = size
        seen = canvas.encode(torch.full((1, 3, height, width), 0.5), self.generator).cpu()
        self.given["seen"] = torch.cat([torch.ones_like(seen[:, :1]), seen], 1)

    def move(self, predicted: Tensor, scaled: Tensor, place: int) -> Tensor:
        """Move the latent by what the denoiser says; the clean latent as it guesses it."""
        guess = self.schedule.without_noise(predicted, scaled, place)
        self.latent = self.schedule.move(predicted, self.latent, place, self.generator)
        self._keep_the_rest(place)
        return guess

    def seen_with(self, latent: Tensor) -> Tensor:
        """A latent with what inpainting weights see beside it."""
        seen = self.given.get("seen")
        return latent if seen is None else torch.cat([latent, seen], 1)

    def _keep_the_rest(self, place: int) -> None:
        """Outside of the mask, take the starting image with the noise of the next evaluation."""
        mask = self.given.get("mask")
        if mask is None:
            return
        rest = self.given["clean"]
        if place + 1 < len(self.schedule.timesteps):
            rest = self.schedule.noised(rest, self.given["noise"], place + 1)
        self.latent = (1 - mask) * rest + mask * self.latent

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "latent": self.latent,
            "schedule": self.schedule.state(),
            "first_step": self.schedule.first_step,
            "random": self.generator.get_state(),
            "is_all_new": self.is_all_new,
            **self.given,
        }

    @classmethod
    def restored(
        cls,
        state: Mapping[str, Any],
        schedule: Callable[[int], Schedule],
        shape: tuple[int, ...],
    ) -> "Drawing":
        """From a checkpoint's state; fails in Python's and torch's ways where it does not fit."""
        at = schedule(int(state["first_step"]))
        at.restore(state.get("schedule", {}))  # DDIM's has nothing in it
        generator = torch.Generator()
        generator.set_state(torch.tensor(state["random"], dtype=torch.uint8))
        latent = _latent(state["latent"], shape)
        return cls(latent, at, generator, _given(state, shape), bool(state["is_all_new"]))

    def begin_as(
        self, begun: Mapping[str, Any], schedule: Schedule, shape: tuple[int, ...]
    ) -> None:
        """Begin with what another drawing began with, by another schedule."""
        given, self.is_all_new = _given(begun, shape), bool(begun["is_all_new"])
        noise = given["noise"]
        self.given, self.schedule = given, schedule
        if self.is_all_new:
            self.latent = schedule.begin(noise)
        else:
            self.latent = schedule.noised(given["clean"], noise, 0)


def take_step(
    drawings: Sequence[Drawing],
    step: int,
    denoiser: Denoiser,
    texts: Conditioning,
    guidance: float,
    clip: ClipGuidance | None = None,
) -> Sequence[Tensor | None]:
    """Let the drawings of a run take a step, counted from 0.

    Returns their clean latents as the denoiser guesses them, if it did.
    """
    guesses: Sequence[Tensor | None] = [None] * len(drawings)
    for place in drawings[0].schedule.evaluations(step):
        time = drawings[0].schedule.timesteps[place]
        scaled = [drawing.schedule.scaled(drawing.latent, place) for drawing in drawings]
        if clip is None:
            seen = [drawing.seen_with(one) for drawing, one in zip(drawings, scaled, strict=True)]
            told = [one.cpu() for one in denoiser.predict_each(seen, time, texts, guidance)]
        else:
            told = [
                _guided(drawing, one, place, clip, denoiser, texts, guidance)
                for drawing, one in zip(drawings, scaled, strict=True)
            ]
        guesses = [
            drawing.move(predicted, one, place)
            for drawing, predicted, one in zip(drawings, told, scaled, strict=True)
        ]
    return guesses


def _guided(
    drawing: Drawing,
    scaled: Tensor,
    place: int,
    clip: ClipGuidance,
    denoiser: Denoiser,
    texts: Conditioning,
    guidance: float,
) -> Tensor:
    """What the denoiser says of the latent, as CLIP pulls it."""
    time = drawing.schedule.timesteps[place]

    def predict(latent: Tensor) -> Tensor:
        return denoiser.predict(drawing.seen_with(latent), time, texts, guidance).cpu()

    predicted, drawing.losses = clip.guided(
        predict, scaled, drawing.schedule, place, drawing.generator
    )
    return predicted


def from_noise(schedule: Schedule, shape: tuple[int, ...], generator: torch.Generator) -> Drawing:
    """A picture that begins with noise alone."""
    noise = torch.randn(shape, generator=generator)
    return Drawing(schedule.begin(noise), schedule, generator, {"noise": noise})


def beginning_with(
    image: Image.Image,
    mask: Image.Image | None,
    size: tuple[int, int],
    canvas: Canvas,
    schedule: Schedule,
    generator: torch.Generator,
    *,
    is_all_new: bool,
    sees_mask: bool,
) -> Drawing:
    """A picture that begins with a starting image, of which only the mask may be drawn anew.

    size: width and height. is_all_new: begin with noise alone inside the mask, at full strength.
    sees_mask: whether the denoiser takes mask and picture. The order of random draws is that of
    diffusers' pipelines: the image, the noise, the picture around the mask.
    """
    picture = to_tensor(cover(image, size))
    is_inpainted = mask is not None or sees_mask
    is_all_new = is_all_new and is_inpainted
    given = {}
    if not (sees_mask and is_all_new):
        given["clean"] = canvas.encode(picture, generator).cpu()
    width, height = size[0] // canvas.factor, size[1] // canvas.factor
    shape = 1, canvas.vae.config.latent_channels, height, width
    given["noise"] = noise = torch.randn(shape, generator=generator)
    latent = schedule.begin(noise) if is_all_new else schedule.noised(given["clean"], noise, 0)
    if is_inpainted:
        white = torch.ones(1, 1, size[1], size[0])
        wanted = white if mask is None else (to_tensor(cover(mask, size))[:, :1] >= 0.5).float()
        small = F.interpolate(wanted, (height, width))
        around = canvas.encode((picture * 2 - 1) * (wanted < 0.5) / 2 + 0.5, generator).cpu()
        given |= {"seen": torch.cat([small, around], 1)} if sees_mask else {"mask": small}
    return Drawing(latent, schedule, generator, given, is_all_new)


def _latent(found: Any, shape: tuple[int, ...]) -> Tensor:
    latent = torch.from_numpy(np.array(found, dtype=np.float32))
    if latent.shape != shape:
        raise ValueError("a latent of another size")
    return latent


def _given(state: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, Tensor]:
    channels = {"mask": 1, "seen": shape[1] + 1}
    return {
        name: _latent(state[name], (1, channels.get(name, shape[1]), *shape[2:]))
        for name in GIVEN
        if name in state
    }
