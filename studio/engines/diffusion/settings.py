"""The settings of Diffusion."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import ValidationInfo, field_validator, model_validator

from studio.base.errors import BadInput
from studio.engines.diffusion.clip_prompts import clip_prompts, denoiser_prompt
from studio.engines.diffusion.prompt_files import prompt_files
from studio.engines.diffusion.prompt_grammar import parse_negative, parse_prompt
from studio.engines.diffusion.samplers import SamplerName, first_step, known_name
from studio.engines.diffusion.vaes import OF_WEIGHTS
from studio.engines.diffusion.weights import BUNDLED, Weights, default_weights, get_weights
from studio.models import upscalers
from studio.models.catalogue import check_checkpoint, find_clip, find_clip_checkpoints
from studio.settings import common
from studio.settings.common import Resize
from studio.settings.declare import BY_WEIGHTS, setting
from studio.settings.run_settings import RunSettings, is_partial
from studio.settings.values import check_values

SEEDS = 2**64
MAX_PICTURES = 64
LONGEST_PROMPT = 100_000  # characters; it fills as many chunks of tokens as it needs
MAX_STEPS = 1000  # each has a noise level of its own, and training knew so many
NO_CLIP = (
    "Image prompts have no effect without CLIP guidance: set it, for example to 100, or remove the"
    " image prompts."
)
ENLARGING = ("lanczos", "latent")  # beside the upscalers
MARGINS = ("outpaint_left", "outpaint_right", "outpaint_top", "outpaint_bottom")
Precision = Literal["auto", "full", "half"]


def _margin(side: str, where: str) -> Any:
    return setting(
        0,
        f"Outpaint {side}",
        f"How many pixels to add {where}, with a starting image or a run that is continued. The"
        " size of that picture counts then, not Xdim and ydim.",
        heading="Look",
        unit="px",
        ge=0,
        le=common.MAX_SIDE,
    )


class DiffusionSettings(RunSettings):
    """The settings of `run.DiffusionRun`."""

    STATE_DEPENDS_ON: ClassVar = ("Xdim", "ydim", "weights", "pictures")
    RECOMMEND: ClassVar = ("weights",)
    OF_START: ClassVar = ("init_image", "mask", *MARGINS)
    CHANGEABLE: ClassVar = ("text_input", "negative_prompt", "guidance_scale", "clip_guidance")

    text_input: str = common.prompt(
        help="What the picture should show. `(word)` and `(word:1.3)` count more, and `[word]`"
        " less. `AND` joins prompts, each with its `:weight` behind it. `[cat:dog:0.5]` is a dog"
        " from half of the steps on.",
        most=LONGEST_PROMPT,
    )
    negative_prompt: str = common.negative_prompt(
        help="What the picture should not show, in the same grammar without `AND`.",
        most=LONGEST_PROMPT,
    )
    num_steps: int = setting(
        20,
        "Num steps",
        "How many steps to take from noise to the picture. With a starting image, Strength says"
        " how many of them are taken.",
        published=30,
        unset=BY_WEIGHTS,
        unit="steps",
        ge=1,
        le=MAX_STEPS,
        changes_steps=False,
    )
    Xdim: int = common.width(128, published=512, unset=BY_WEIGHTS)
    ydim: int = common.height(128, published=512, unset=BY_WEIGHTS)
    guidance_scale: float = setting(
        7.5,
        "Guidance scale",
        "How closely the picture follows the prompt. 1 follows it loosely, and takes half the"
        " time; then the negative prompt has no effect.",
        unset=BY_WEIGHTS,
        ge=0,
        le=100,
    )
    sampler: SamplerName = setting(
        "DPM++ 2M",
        "Sampler",
        "How a step leads from noise towards the picture. Heun takes twice as long. LCM is for"
        " weights of that kind.",
        unset=BY_WEIGHTS,
    )
    pictures: int = setting(
        1,
        "Pictures",
        "How many pictures to make. They have the seeds Seed, Seed + 1 and so on, and each is the"
        " same as when it is made alone.",
        ge=1,
        le=MAX_PICTURES,
    )
    set_seed: bool = common.set_seed()
    seed: int = common.seed()
    init_image: str | None = common.starting_image(instead_of="noise")
    strength: float = setting(
        0.75,
        "Strength",
        "How much a starting image, or the picture of a run that is continued, may change, from 0"
        " to 1. At 1, hardly anything of it stays.",
        ge=0,
        le=1,
    )
    skip_timesteps: int = setting(
        0,
        "Skip timesteps",
        "How many of the first steps to leave out, with a starting image, instead of the share that"
        " Strength says. 0 goes by Strength.",
        heading="Guidance",
        unit="steps",
        ge=0,
        le=MAX_STEPS,
    )
    mask: str | None = setting(
        None,
        "Upload mask",
        "Which parts of the starting image to draw anew: the white ones. The black ones stay. The"
        " mask has the size of the starting image.",
        unset="none",
        upload=("Use mask", "Draw only a part of the starting image anew."),
    )
    outpaint_left: int = _margin("left", "on the left")
    outpaint_right: int = _margin("right", "on the right")
    outpaint_top: int = _margin("top", "at the top")
    outpaint_bottom: int = _margin("bottom", "at the bottom")
    hires_scale: float = setting(
        1.0,
        "Hires fix",
        "Draw the picture small, as Xdim and ydim say, and then so many times as wide and high: so"
        " it shows the prompt once, with detail. 1 is off.",
        heading="Look",
        ge=1,
        le=8,
    )
    hires_strength: float = setting(
        0.5,
        "Hires strength",
        "How much the enlarged picture may change. The more, the more of the steps are taken at the"
        " full size: at 0.5 a third of them, at 1 half.",
        heading="Look",
        gt=0,
        le=1,
    )
    hires_upscaler: str = setting(
        "lanczos",
        "Hires upscaler",
        "What enlarges the small picture: lanczos, latent (blurry below a strength of 0.6), or an"
        " upscaler.",
        heading="Look",
    )
    image_prompt: list[str] = common.image_prompts()
    continue_resize: Resize = common.continue_resize()
    checkpoint_seconds: float = common.checkpoint_seconds()
    upscale: common.Scale = common.upscale()
    upscale_always: bool = common.upscale_always()
    weights: str = setting(
        BUNDLED,
        "Model weights",
        "A folder in diffusers' format or a .safetensors file of Stable Diffusion in `assets/`, by"
        " its name, or a path; or a name of the Hugging Face hub, which is downloaded once.",
        unset=f"{BUNDLED} if it is there, else the first in `assets/`",
    )
    vae: str = setting(
        OF_WEIGHTS,
        "VAE",
        "The autoencoder that makes pictures of latents: the weights' own, or another for the same"
        " latents, by its name in `assets/vae/` (a folder in diffusers' format or a .safetensors"
        " file), or a path.",
        heading="More",
    )
    safety_checker: bool = setting(
        True,
        "Safety checker",
        "Hide a picture behind black if the safety checker of the weights, where they bring one,"
        " finds that it may offend. The run says so.",
        heading="More",
    )
    clip_guidance: float = setting(
        0.0,
        "CLIP guidance",
        "How strongly CLIP pulls each step towards the prompt and the image prompts; 100 is"
        " usual, and 0 is off. In the prompt, `|` then separates prompts that pull at the same"
        " time; each may end in `:weight`, and a negative weight repels. A step takes several times"
        " as long.",
        heading="Guidance",
        ge=0,
        le=100_000,
    )
    clip_model: str = common.clip_model()
    cutn: int = common.cutouts(16)
    use_cutout_augmentations: bool = common.cutout_augmentations()
    clip_skip: int = setting(
        0,
        "CLIP skip",
        "How many of the text encoder's last layers to leave out. Some weights were trained with 1."
        " Other programs count one more.",
        heading="Guidance",
        ge=0,
        le=11,
    )
    tiling: bool = setting(
        False,
        "Seamless tiling",
        "Let opposite edges of the picture fit together, so that it can be laid side by side.",
        heading="Look",
    )
    precision: Precision = setting(
        "auto",
        "Precision",
        "full: 32 bits. half: 16 bits, which takes half the memory, and where the processor has"
        " them half the time. auto: half for large models where the device is quicker so.",
        heading="More",
    )

    @field_validator("text_input")
    @classmethod
    def _well_formed_prompt(cls, value: str) -> str:
        parse_prompt(value)
        return value

    @field_validator("negative_prompt")
    @classmethod
    def _well_formed_negative(cls, value: str) -> str:
        parse_negative(value)
        return value

    @field_validator("sampler", mode="before")
    @classmethod
    def _usual_spelling(cls, value: Any) -> Any:
        return known_name(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _something_to_do(self, info: ValidationInfo) -> Self:
        if is_partial(info):
            return self
        if not self.text_input.strip() and not self.init_image and not self.image_prompt:
            raise ValueError("No prompt: type what the picture should show.")
        if self.image_prompt and not self.clip_guidance:
            raise ValueError(NO_CLIP)
        if self.hires_scale > 1 and self.num_steps < 2:
            raise ValueError("The hires fix needs 2 steps or more: one small, one at full size.")
        if self.init_image and self.skipped_steps >= self.small_steps:
            raise ValueError(self.no_step_left)
        if self.mask and not self.text_input.strip():
            raise ValueError("No prompt: type what the mask should be filled with.")
        return self

    @property
    def denoiser_prompt(self) -> str:
        """What the denoiser reads of the prompt. Raises BadInput."""
        return denoiser_prompt(self.text_input, self.clip_guidance)

    @property
    def skipped_steps(self) -> int:
        """How many of the first steps a starting image leaves out."""
        return self.skip_timesteps or first_step(self.small_steps, self.strength)

    @property
    def hires_steps(self) -> int:
        """How many of the steps, the last ones, are taken at the full size of the hires fix.

        A strength h takes h times as many as the steps before them.
        """
        if self.hires_scale == 1:
            return 0
        return max(1, self.num_steps - math.ceil(self.num_steps / (1 + self.hires_strength)))

    @property
    def small_steps(self) -> int:
        """How many of the steps are taken before the hires fix: all of them without it."""
        return self.num_steps - self.hires_steps

    def full_size(self, factor: int) -> tuple[int, int]:
        """Width and height of the finished picture, multiples of `factor` with the hires fix."""
        if self.hires_scale == 1:
            return self.Xdim, self.ydim
        width, height = (round(side * self.hires_scale / factor) for side in (self.Xdim, self.ydim))
        return width * factor, height * factor

    @property
    def no_step_left(self) -> str:
        """What to say of a start that leaves no step to take."""
        steps = self.small_steps
        if self.skip_timesteps:
            return (
                f"Skip timesteps {self.skip_timesteps} of {steps} steps leaves no step to take: set"
                f" it to less than {steps}, or take more steps."
            )
        return (
            f"Strength {self.strength:g} of {steps} steps leaves no step to take, so nothing would"
            f" change: set it to {1 / steps:.2g} or more, or take more steps."
        )

    @property
    def grows_start(self) -> bool:
        return any(getattr(self, name) for name in MARGINS)

    def grown(self, width: int, height: int) -> Self:
        width += self.outpaint_left + self.outpaint_right
        height += self.outpaint_top + self.outpaint_bottom
        if max(width, height) > common.MAX_SIDE:
            raise BadInput(
                f"With what is added, the picture would be {width}x{height} pixels large; at most"
                f" {common.MAX_SIDE} px a side are possible. Add less, or make the picture smaller."
            )
        return self.model_copy(update={"Xdim": width, "ydim": height})

    @classmethod
    def recommended(cls, values: Mapping[str, Any], assets_dir: Path) -> dict[str, Any]:
        name = str(values.get("weights") or default_weights(assets_dir))
        weights = get_weights(assets_dir, name, str(values.get("vae") or OF_WEIGHTS))
        told = weights.recommended
        check_values(cls, told, source=f"what {weights.path} recommends")
        clip = {} if weights.is_large else _bundled_clip(assets_dir)
        return clip | told | {"weights": name}

    @classmethod
    def varied(cls, values: Mapping[str, Any], assets_dir: Path) -> dict[str, Any]:
        """Another seed, by img2img from the picture."""
        return {"strength": 0.6}

    def fitted(
        self, assets_dir: Path, *, begins_with_picture: bool = False
    ) -> tuple[Self, list[str]]:
        weights = get_weights(assets_dir, self.weights, self.vae)
        prompt_files(self.denoiser_prompt, self.negative_prompt, weights, assets_dir)
        fitting, warnings = self._fit_size(weights)
        warnings += self._fit_guidance(assets_dir)
        self._check_hires(assets_dir, weights)
        if self.skip_timesteps and not (self.init_image or begins_with_picture):
            warnings.append("'Skip timesteps' is ignored: there is no starting image.")
        if weights.is_inpainting and not (self.init_image or begins_with_picture):
            warnings.append(
                f"{weights.name} are inpainting weights: they draw best with a starting image and"
                " a mask."
            )
        if weights.checker == "lost" and self.safety_checker:
            warnings.append(
                f"{weights.name} names a safety checker that is not there, or that the studio does"
                " not know, so no picture is checked."
            )
        return self.model_copy(update=fitting), warnings

    def _check_hires(self, assets_dir: Path, weights: Weights) -> None:
        """Raises BadInput for a hires fix that cannot be."""
        if self.hires_scale == 1:
            return
        if self.hires_upscaler not in ENLARGING:
            upscalers.get(self.hires_upscaler, assets_dir)
        width, height = self.full_size(weights.factor)
        if max(width, height) > common.MAX_SIDE:
            raise BadInput(
                f"With the hires fix the picture would be {width}x{height}; at most"
                f" {common.MAX_SIDE} px a side are possible. Lower its scale, Xdim or ydim."
            )

    def _fit_guidance(self, assets_dir: Path) -> list[str]:
        """Warnings about CLIP guidance. Raises BadInput if it cannot be."""
        if not self.clip_guidance:
            return []
        path = find_clip(assets_dir, self.clip_model)
        if path:
            check_checkpoint(path)
        if clip_prompts(self.text_input) or self.image_prompt:
            return []
        return ["'CLIP guidance' is ignored: there is no prompt."]

    def _fit_size(self, weights: Weights) -> tuple[dict[str, Any], list[str]]:
        f = weights.factor
        if min(self.Xdim, self.ydim) < f:
            raise BadInput(
                f"The size {self.Xdim}x{self.ydim} is too small for {weights.name}: each side must"
                f" be at least {f} px."
            )
        more = f - 1 if self.grows_start else 0  # what is there must fit in
        width, height = (self.Xdim + more) // f * f, (self.ydim + more) // f * f
        if (width, height) == (self.Xdim, self.ydim):
            return {}, []
        return {"Xdim": width, "ydim": height}, [
            f"The size {self.Xdim}x{self.ydim} became {width}x{height}: {weights.name} makes"
            f" multiples of {f} px."
        ]


def _bundled_clip(assets_dir: Path) -> dict[str, Any]:
    """The first CLIP in `assets/`, which small weights were made with."""
    name = next(iter(find_clip_checkpoints(assets_dir)), None)
    return {"clip_model": name} if name else {}
