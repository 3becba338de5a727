"""The settings of Diffusion."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import ValidationInfo, field_validator, model_validator

from studio.base.errors import BadInput
from studio.engines.diffusion.prompt_files import prompt_files
from studio.engines.diffusion.prompt_grammar import parse_negative, parse_prompt
from studio.engines.diffusion.samplers import SamplerName, first_step, known_name
from studio.engines.diffusion.vaes import OF_WEIGHTS
from studio.engines.diffusion.weights import BUNDLED, Weights, default_weights, get_weights
from studio.settings import common
from studio.settings.common import Resize
from studio.settings.declare import BY_WEIGHTS, setting
from studio.settings.run_settings import RunSettings, is_partial
from studio.settings.values import check_values

SEEDS = 2**64
MAX_PICTURES = 64
LONGEST_PROMPT = 100_000  # characters; it fills as many chunks of tokens as it needs
MAX_STEPS = 1000  # each has a noise level of its own, and training knew so many
Precision = Literal["auto", "full", "half"]


def no_step_left(strength: float, num_steps: int) -> str:
    """What to say of a strength that takes no step at all."""
    return (
        f"Strength {strength:g} of {num_steps} steps leaves no step to take, so nothing would"
        f" change: set it to {1 / num_steps:.2g} or more, or take more steps."
    )


class DiffusionSettings(RunSettings):
    """The settings of `run.DiffusionRun`."""

    STATE_DEPENDS_ON: ClassVar = ("Xdim", "ydim", "weights", "pictures")
    RECOMMEND: ClassVar = ("weights",)
    CHANGEABLE: ClassVar = ("text_input", "negative_prompt", "guidance_scale")

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
    mask: str | None = setting(
        None,
        "Upload mask",
        "Which parts of the starting image to draw anew: the white ones. The black ones stay. The"
        " mask has the size of the starting image.",
        unset="none",
        upload=("Use mask", "Draw only a part of the starting image anew."),
    )
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
        if not self.text_input.strip() and not self.init_image:
            raise ValueError("No prompt: type what the picture should show.")
        if self.init_image and first_step(self.num_steps, self.strength) == self.num_steps:
            raise ValueError(no_step_left(self.strength, self.num_steps))
        if self.mask and not self.text_input.strip():
            raise ValueError("No prompt: type what the mask should be filled with.")
        return self

    @classmethod
    def recommended(cls, values: Mapping[str, Any], assets_dir: Path) -> dict[str, Any]:
        name = str(values.get("weights") or default_weights(assets_dir))
        weights = get_weights(assets_dir, name, str(values.get("vae") or OF_WEIGHTS))
        told = weights.recommended
        check_values(cls, told, source=f"what {weights.path} recommends")
        return told | {"weights": name}

    @classmethod
    def varied(cls, values: Mapping[str, Any], assets_dir: Path) -> dict[str, Any]:
        """Another seed, by img2img from the picture."""
        return {"strength": 0.6}

    def fitted(
        self, assets_dir: Path, *, begins_with_picture: bool = False
    ) -> tuple[Self, list[str]]:
        weights = get_weights(assets_dir, self.weights, self.vae)
        prompt_files(self.text_input, self.negative_prompt, weights, assets_dir)
        fitting, warnings = self._fit_size(weights)
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

    def _fit_size(self, weights: Weights) -> tuple[dict[str, Any], list[str]]:
        f = weights.factor
        if min(self.Xdim, self.ydim) < f:
            raise BadInput(
                f"The size {self.Xdim}x{self.ydim} is too small for {weights.name}: each side must"
                f" be at least {f} px."
            )
        width, height = self.Xdim // f * f, self.ydim // f * f
        if (width, height) == (self.Xdim, self.ydim):
            return {}, []
        return {"Xdim": width, "ydim": height}, [
            f"The size {self.Xdim}x{self.ydim} became {width}x{height}: {weights.name} makes"
            f" multiples of {f} px."
        ]
