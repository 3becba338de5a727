"""The settings of VQGAN-CLIP."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import ValidationInfo, field_validator, model_validator

from studio.base.errors import BadInput, Wording, shortened
from studio.engines.clip.prompts import AVOIDING_WEIGHT, parse_avoided, parse_prompts
from studio.engines.vqgan_clip.augmentation_list import USUAL, parse_augmentations
from studio.engines.vqgan_clip.growth import USUAL_BEGINNING, WHOLE_UP_TO
from studio.engines.vqgan_clip.libraries import check_library
from studio.engines.vqgan_clip.noise_prompts import parse_noise_prompts, split_noise_prompts
from studio.engines.vqgan_clip.slice_plan import (
    SLICES,
    check_size,
    fitted_to_slices,
    is_seed,
    nine,
)
from studio.models.catalogue import (
    check_checkpoint,
    default_weights,
    find_clip,
    find_sketcher,
    get_weights,
    picture_size,
)
from studio.settings import common
from studio.settings.common import MAX_GROWN_SIDE, MAX_SEED, MAX_SIDE, MAX_STEPS, Resize
from studio.settings.declare import BY_WEIGHTS, default_of, label_of, setting
from studio.settings.run_settings import RunSettings, is_partial
from studio.settings.values import check_values

# Of a variation: so many times the usual size, and so many of them.
VARIED_STEP, VARIED_STEPS = 10, 100
Optimiser = Literal["Adam", "AdamW", "Adagrad", "Adamax", "DiffGrad", "AdamP", "RAdam", "RMSprop"]
OF_PYTORCH_OPTIMIZER = ("DiffGrad", "AdamP")  # the others are torch's own
CutMethod = Literal["ours", "original", "updated", "nrupdated", "updatedpooling", "latest"]
OWN_AUGMENTATIONS = {  # of the methods that take no others
    "original": "",
    "updated": "flip(p=0.5) | colour_jitter(saturation=0.01, hue=0.01, p=0.7)"
    " | sharpness(0.3, p=0.4) | affine(30, translate=0.1, p=0.8) | perspective(0.2, p=0.4)",
    "updatedpooling": "affine(15, translate=0.1, p=0.7) | perspective(0.7, p=0.7)"
    " | colour_jitter(saturation=0.1, hue=0.1, p=0.7)"
    " | erasing(scale=(0.1, 0.4), ratio=(0.3, 3.3333333), p=0.7, same_on_batch=true)",
}
Slices = Literal["one", "nine"]
Noise = Literal["none", "pixels", "gradient", "fractal"]
AIMS = ("text_input", "avoid", "init_image", "image_prompt", "noise_prompt")


class VQGANCLIPSettings(RunSettings):
    """The settings of `logic.VQGANCLIPRun`."""

    STATE_DEPENDS_ON: ClassVar = ("Xdim", "ydim", "vqgan_ckpt", "slices")
    RECOMMEND: ClassVar = ("vqgan_ckpt",)
    CHANGEABLE: ClassVar = (
        *("text_input", "avoid", "step_size", "cut_pow", "whole_views", "tv_loss_weight"),
        *("mse_weight", "ground_weight"),
        *("translation_x", "translation_y", "rotation_angle", "zoom_factor"),
    )

    text_input: str = common.prompt(
        help="What the picture should show. `|` separates prompts that pull at the same time; each"
        " may end in `:weight` or `:weight:stop`. A negative weight repels."
    )
    avoid: str = common.avoid(
        help="What the picture should not show. `|` separates several things; each may end in"
        f" `:weight`, by default {AVOIDING_WEIGHT:g}. A larger weight drives the picture further"
        " away."
    )
    num_steps: int = common.num_steps(
        150, frames="with scrolling: how many frames to make", published=500
    )
    Xdim: int = common.width(128, published=640, most=MAX_GROWN_SIDE)
    ydim: int = common.height(128, published=480, most=MAX_GROWN_SIDE)
    set_seed: bool = common.set_seed()
    seed: int = common.seed()
    init_image: str | None = common.starting_image(instead_of="random tokens")
    image_prompt: list[str] = common.image_prompts()
    continue_resize: Resize = common.continue_resize()
    checkpoint_seconds: float = common.checkpoint_seconds()
    upscale: common.Scale = common.upscale(unset=BY_WEIGHTS)
    upscale_always: bool = common.upscale_always()
    grow_from: int = setting(
        0,
        "Grow from",
        "A larger picture begins about as large as a square of this side, where its composition"
        " forms, and doubles its sides until it has its size. So it shows the prompt once, with"
        f" detail. 0 makes pictures of up to {WHOLE_UP_TO}x{WHOLE_UP_TO} pixels in one piece, and"
        f" lets larger ones grow from {USUAL_BEGINNING}. Scrolling pictures never grow.",
        heading="Look",
        unset=BY_WEIGHTS,
        unit="px",
        ge=0,
        le=MAX_GROWN_SIDE,
    )
    grow_steps: int = setting(
        120,
        "Steps to full size",
        "After how many steps a picture that grows has its full size. The small beginning takes"
        " about half of them. All later steps refine the picture at its full size.",
        heading="Look",
        unit="steps",
        ge=1,
        le=MAX_STEPS,
    )
    slices: Slices = setting(
        "one",
        "Nine slices",
        "Make the picture from nine slices, one after the other, each half as wide and half as"
        " high, which overlap and are blended. Each has the detail of a whole picture, and only"
        " one is worked on at a time. They begin with the parts of the starting image or, without"
        " one, of a small picture that the run makes first.",
        heading="Look",
        is_switch=True,
    )
    slice_prompts: list[str] = setting(
        [],
        "Slice prompts",
        "What each slice should show, besides the prompt: nine lines in the order NW, N, NE, W, X"
        " (the middle), E, SW, S, SE. Where a line is blank, the slice is only refined, by smaller"
        " steps.",
        group="slices",
        when="nine",
        unset="none",
        lines=SLICES,
    )
    slice_steps: int = setting(
        0,
        "Steps of a slice",
        "How many steps each slice takes; 'Steps to full size' is then how many the small picture"
        " before them takes. After the ninth slice, each takes as many once more, as long as there"
        " are steps left. 0 shares out the steps of the run.",
        group="slices",
        when="nine",
        unset="the steps of the run are shared out",
        unit="steps",
        ge=0,
        le=MAX_STEPS,
    )
    slice_seeds: list[str] = setting(
        [],
        "Slice seeds",
        "Seeds of the slices, nine of them separated by `|`, such as `||||7||||`. Where one is"
        " blank, the run's seed counts. Making a slice again with another seed sets it here.",
        group="slices",
        when="nine",
        unset="none",
        example="||||7||||",
    )
    save_nine: bool = setting(
        False,
        "Keep the slices",
        "Keep every slice in the run's folder, as slices/0.PNG to slices/8.PNG. A run that is"
        " resumed makes only those that are not there.",
        group="slices",
        when="nine",
        changes_steps=False,
    )
    init_sketch: bool = setting(
        False,
        "Start from a sketch",
        "Start from a rough sketch of the prompts instead of random tokens, so that things get"
        " a clear shape and a clean background. A small network that belongs to the CLIP model"
        " draws it; the bundled CLIP has one. It has no effect with a starting image.",
        heading="Look",
        unset=BY_WEIGHTS,
        changes_steps=False,
    )
    vqgan_ckpt: str = setting(
        "emoji_f8",
        "Model weights",
        "The VQGAN: a NAME.yaml + NAME.ckpt pair in `assets/`.",
        unset="vqgan_imagenet_f16_1024 if it is there, else emoji_f8, else the first in `assets/`",
    )
    clip_model: str = common.clip_model()
    step_size: float = setting(
        0.05,
        "Step size",
        "Learning rate of the optimiser on the latent.",
        heading="Guidance",
        unset=BY_WEIGHTS,
        gt=0,
        le=10,
    )
    cutn: int = common.cutouts(64, unset=BY_WEIGHTS)
    cut_pow: float = setting(
        1.0,
        "Cutout power",
        "Shapes the cutouts' sizes: above 1 favours small ones (detail), below 1 large ones"
        " (composition).",
        heading="Guidance",
        unset=BY_WEIGHTS,
        ge=0,
        le=100,
    )
    whole_views: float = setting(
        0.125,
        "Whole views",
        "Share of the cutouts that show the whole picture, from 0 to 1. More favours composition,"
        " fewer detail.",
        heading="Guidance",
        unset=BY_WEIGHTS,
        ge=0,
        le=1,
    )
    use_cutout_augmentations: bool = common.cutout_augmentations()
    deterministic: bool = setting(
        False,
        "Deterministic",
        "On a GPU, compute the same bytes every time, which takes a little longer. A CPU always"
        " does.",
        heading="Saving",
    )
    use_mse_regularization: bool = setting(
        False,
        "Use MSE regularization",
        "Hold the latent near where it started; useful with a starting image.",
        heading="Look",
    )
    mse_weight: float = setting(
        0.5,
        "MSE weight",
        "How strongly to hold it. A negative weight drives it away.",
        group="use_mse_regularization",
        ge=-1000,
        le=1000,
    )
    mse_weight_decay: float = setting(
        0.1,
        "Decay MSE weight by ...",
        "How much nearer to zero the weight moves each time; it never crosses zero.",
        group="use_mse_regularization",
        ge=0,
        le=1000,
    )
    mse_weight_decay_steps: int = setting(
        50,
        "... every N steps",
        "How often the weight moves; 0 keeps it as it is.",
        group="use_mse_regularization",
        unit="steps",
        ge=0,
        le=MAX_STEPS,
    )
    use_tv_loss_regularization: bool = setting(
        True,
        "Use TV loss regularization",
        "Smooth the latent: fewer specks, calmer areas.",
        heading="Look",
    )
    tv_loss_weight: float = setting(
        1e-3,
        "TV loss weight",
        "How strongly to smooth.",
        group="use_tv_loss_regularization",
        unset=BY_WEIGHTS,
        ge=-1000,
        le=1000,
    )
    ground_weight: float = setting(
        0.0,
        "Keep the ground",
        "How strongly to keep the plain ground around things as it was in the sketch or starting"
        " image, so that it stays clean. A prompt that asks for another ground frees it, if the"
        " CLIP model draws sketches. 0 lets the ground change.",
        heading="Look",
        unset=BY_WEIGHTS,
        ge=0,
        le=1000,
    )
    use_scrolling_zooming: bool = setting(
        False,
        "Scrolling/zooming transforms",
        "Move the picture between frames, for a video that travels.",
        heading="Motion",
    )
    translation_x: int = setting(
        0,
        "Translation in X",
        "How far each frame moves to the right.",
        group="use_scrolling_zooming",
        unit="px",
        ge=-MAX_SIDE,
        le=MAX_SIDE,
    )
    translation_y: int = setting(
        0,
        "Translation in y",
        "How far each frame moves down.",
        group="use_scrolling_zooming",
        unit="px",
        ge=-MAX_SIDE,
        le=MAX_SIDE,
    )
    rotation_angle: float = setting(
        0.0,
        "Rotation angle (degrees)",
        "How far each frame turns, counter-clockwise.",
        group="use_scrolling_zooming",
        unit="degrees",
        ge=0,
        le=360,
    )
    zoom_factor: float = setting(
        1.0,
        "Zoom factor",
        "How much each frame grows (above 1) or shrinks.",
        group="use_scrolling_zooming",
        ge=0.1,
        le=10,
    )
    transform_interval: int = setting(
        10,
        "Iterations per frame",
        "How many steps to take on each frame before it moves.",
        group="use_scrolling_zooming",
        unit="steps",
        ge=1,
        le=10_000,
    )

    optimiser: Optimiser = setting(
        "Adam",
        "Optimiser",
        "What moves the latent. Adam suits most runs. The others want step sizes of their own:"
        " Adagrad larger ones, RMSprop smaller ones.",
        heading="More",
    )

    cut_method: CutMethod = setting(
        "ours",
        "Cutout method",
        "How the cutouts are taken. original, updated, nrupdated: random squares, by Cutout power."
        " updatedpooling, latest: the whole picture each time, pooled. original adds nothing,"
        " updated and updatedpooling add augmentations of their own, ours, nrupdated and latest"
        " those below. Only ours has whole views.",
        heading="More",
    )
    augmentations: str = setting(
        USUAL,
        "Augmentations",
        "What happens to the cutouts, in this order; `p` is the chance of each. There are flip,"
        " colour_jitter, sharpness, gaussian_noise, gaussian_blur, motion_blur, perspective,"
        " rotation, affine, elastic_transform, thin_plate_spline, crop, erasing and resized_crop."
        " Those set here at first are quick, others slower.",
        group="use_cutout_augmentations",
        max_length=2000,
    )

    init_noise: Noise = setting(
        "none",
        "Start from noise",
        "Start from a picture of noise instead of random tokens or a sketch. pixels: each has a"
        " colour of its own. gradient: one colour fades into another. fractal: clouds. It has no"
        " effect with a starting image.",
        heading="More",
        changes_steps=False,
    )
    noise_prompt: list[str] = setting(
        [],
        "Noise prompts",
        "Random directions to pull the picture to, as `SEED:WEIGHT`, such as `123:0.1`; several are"
        " separated by `|`, or the option is given several times. They vary a picture.",
        heading="More",
        unset="none",
        example="123:0.1",
    )

    @field_validator("noise_prompt", mode="before")
    @classmethod
    def _several_noise_prompts(cls, value: Any) -> Any:
        is_text = isinstance(value, str)
        is_list = isinstance(value, list) and all(isinstance(text, str) for text in value)
        return split_noise_prompts(value) if is_text or is_list else value

    @field_validator("noise_prompt")
    @classmethod
    def _well_formed_noise_prompts(cls, value: list[str]) -> list[str]:
        with _wanting("a seed and a weight"):
            parse_noise_prompts(value)
        return value

    @field_validator("slice_prompts", mode="before")
    @classmethod
    def _lines(cls, value: Any) -> Any:
        return value.split("\n") if isinstance(value, str) and value.strip() else value or []

    @field_validator("slice_prompts")
    @classmethod
    def _nine_prompts(cls, value: list[str]) -> list[str]:
        found = nine(value, "lines, one for each slice; blank ones count")
        with _wanting("prompts"):
            for prompt in found:
                parse_prompts(prompt)
        return found

    @field_validator("slice_seeds", mode="before")
    @classmethod
    def _several_seeds(cls, value: Any) -> Any:
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list) and len(texts) == 1 and isinstance(texts[0], str):
            return texts[0].split("|") if texts[0].strip() else []
        return texts

    @field_validator("slice_seeds")
    @classmethod
    def _nine_seeds(cls, value: list[str]) -> list[str]:
        found = nine(value, "seeds separated by |, of which any may be blank")
        if any(seed and not is_seed(seed) for seed in found):
            raise ValueError(f"must be whole numbers from 0 to {MAX_SEED}, or blank")
        return found

    @field_validator("augmentations")
    @classmethod
    def _known_augmentations(cls, value: str) -> str:
        with _wanting("a list of augmentations"):
            parse_augmentations(value)
        return value

    @field_validator("text_input")
    @classmethod
    def _well_formed_prompts(cls, value: str) -> str:
        parse_prompts(value)
        return value

    @field_validator("avoid")
    @classmethod
    def _well_formed_things_to_avoid(cls, value: str) -> str:
        parse_avoided(value)
        return value

    @model_validator(mode="after")
    def _something_to_aim_at(self, info: ValidationInfo) -> Self:
        aims = parse_prompts(self.text_input) or self.image_prompt or self.noise_prompt
        if not is_partial(info) and not aims:
            raise ValueError(
                "No prompt: type what the picture should show, or add an image prompt."
            )
        return self

    @model_validator(mode="after")
    def _no_scrolling_slices(self) -> Self:
        if self.slices == "nine" and self.use_scrolling_zooming:
            raise ValueError("Nine slices cannot scroll or zoom. Switch one of the two off.")
        return self

    @classmethod
    def recommended(cls, values: Mapping[str, Any], assets_dir: Path) -> dict[str, Any]:
        name = str(values.get("vqgan_ckpt") or default_weights(assets_dir))
        weights = get_weights(assets_dir, name)
        if aims := [aim for aim in AIMS if aim in weights.recommended]:
            labels = ", ".join(f"'{label_of(cls, aim)}'" for aim in aims)
            raise BadInput(
                f"{weights.config_path} recommends ",
                Wording(labels, ", ".join(aims)),
                ", which is for a person to choose. Take it out of 'recommended'.",
            )
        check_values(cls, weights.recommended, source=str(weights.config_path))
        return weights.recommended | {"vqgan_ckpt": name}

    @classmethod
    def varied(cls, values: Mapping[str, Any], assets_dir: Path) -> dict[str, Any]:
        """Another seed alone changes hardly a pixel of a finished picture; large steps do.

        They are measured by the usual size, so a variation of a variation has no larger ones.
        """
        usual = cls.recommended(values, assets_dir).get("step_size")
        usual = usual or default_of(cls.model_fields["step_size"])
        return {"step_size": VARIED_STEP * usual, "num_steps": VARIED_STEPS}

    def fitted(
        self, assets_dir: Path, *, begins_with_picture: bool = False
    ) -> tuple[Self, list[str]]:
        weights = get_weights(assets_dir, self.vqgan_ckpt)
        check_checkpoint(weights.checkpoint_path)
        clip_path = find_clip(assets_dir, self.clip_model)
        if clip_path:
            check_checkpoint(clip_path)
        if self.optimiser in OF_PYTORCH_OPTIMIZER:
            check_library("pytorch_optimizer", "pytorch-optimizer", self.optimiser)
        fitting, warnings = {}, self._fit_augmentations()
        if self.init_noise != "none" and not self.init_image:
            fitting["init_sketch"] = False
        elif self.init_sketch and not self._can_sketch(clip_path):
            fitting["init_sketch"] = False
            warnings.append(
                f"'Start from a sketch' is ignored: {shortened(self.clip_model)} has no network"
                " that draws sketches."
            )
        width, height = picture_size(weights, self.Xdim, self.ydim)
        if (width, height) != (self.Xdim, self.ydim):
            fitting |= {"Xdim": width, "ydim": height}
            warnings.append(
                f"The size {self.Xdim}x{self.ydim} became {width}x{height}: {weights.name} makes"
                f" multiples of {weights.factor} px."
            )
        if self.slices == "nine":
            check_size(width, height, weights.factor)
            begins_with_picture |= bool(self.init_image)
            fitted_steps, said = fitted_to_slices(
                self.num_steps, self.slice_steps, self.grow_steps, begins_with_picture
            )
            fitting |= fitted_steps
            warnings += said
        return self.model_copy(update=fitting), warnings

    def _fit_augmentations(self) -> list[str]:
        """Warnings about the augmentations. Raises BadInput if kornia is needed and missing."""
        usual, chosen = (parse_augmentations(text) for text in (USUAL, self.augmentations))
        own = OWN_AUGMENTATIONS.get(self.cut_method)
        needed = parse_augmentations(own) if own is not None else chosen
        if not self.use_cutout_augmentations:
            return []
        if needed and (needed != usual or self.cut_method != "ours"):
            check_library("kornia", "kornia", "This list of augmentations")
        if own is None or chosen == usual:
            return []
        return [f"'Augmentations' is ignored: the cutout method {self.cut_method} takes no others."]

    @staticmethod
    def _can_sketch(clip_path: Path | None) -> bool:
        """Whether there is a sketcher beside that CLIP. Raises BadInput for a broken one."""
        sketcher = find_sketcher(clip_path) if clip_path else None
        if sketcher:
            check_checkpoint(sketcher)
        return sketcher is not None


@contextmanager
def _wanting(what: str) -> Iterator[None]:
    """Let BadInput from inside say of a setting's value what it must be."""
    try:
        yield
    except BadInput as error:
        raise ValueError(f"must be {what}. {error}".rstrip(".")) from None
