"""Every setting of a run, declared once.

The form, the command line, `defaults.yaml`, `details.json` and the README's table all follow from
the fields here. A field carries its default, range, unit and help text; adding one line adds a
widget, an option, a line of `defaults.yaml` and a key of `details.json`.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args, get_origin

import annotated_types
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from studio.base.errors import BadInput, Wording, shortened
from studio.base.paths import DEFAULTS_FILE
from studio.base.yaml_files import read_yaml
from studio.engines.vqgan_clip.prompts import parse_prompts
from studio.models.catalogue import (
    check_checkpoint,
    default_weights,
    find_clip,
    find_sketcher,
    get_weights,
    picture_size,
)

MAX_SEED = 2**64 - 1
MAX_SIDE = 4096
MAX_STEPS = 10_000_000
# That CLIP looks at, so that memory does not grow with their number: so many of 224x224 pixels, and
# as many pixels of another size.
CUTOUTS_AT_A_TIME = 16
BY_WEIGHTS = "what the weights recommend"
# How a run goes on from another one. Exactly: all goes on, since there are only more steps. From
# its latent: the optimiser's moments too, while MSE regularisation begins anew. From its picture,
# with another size or another VQGAN: only the random numbers.
Continuing = Literal["exactly", "from its latent", "from its picture"]
AIMS = ("text_input", "init_image", "image_prompt")


def setting(
    default: Any,
    label: str,
    help: str,
    *,
    group: str | None = None,
    unit: str = "",
    published: Any = None,
    unset: str = "",
    **limits: Any,
) -> Any:
    """Declare a setting.

    label: what the form calls it. help: one or two sentences for hovering and `--help`.
    group: the switch (another setting) that this one only matters under.
    published: what suits published weights on a GPU, where that is not the default.
    unset: what happens while nobody sets it, where that is not simply the default.
    limits: pydantic's ge, le, gt, lt, max_length.
    """
    extra = {"label": label, "group": group, "unit": unit, "published": published, "unset": unset}
    if isinstance(default, list):
        return Field(
            default_factory=default.copy, description=help, json_schema_extra=extra, **limits
        )
    return Field(default, description=help, json_schema_extra=extra, **limits)


class RunSettings(BaseModel):
    """What every kind of run needs. Sizes are pixels; paths are as the person gave them."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )

    LATENT_DEPENDS_ON: ClassVar = ("Xdim", "ydim")
    NO_MATTER_FOR_STEPS: ClassVar = (
        *("num_steps", "set_seed", "init_image", "continue_resize", "checkpoint_seconds"),
    )

    text_input: str = setting(
        "",
        "Text prompt",
        "What the picture should show. `|` separates prompts that pull at the same time; each may"
        " end in `:weight` or `:weight:stop`. A negative weight repels.",
        unset="none",
        max_length=10_000,
    )
    num_steps: int = setting(
        150,
        "Num steps",
        "How many steps to take (with scrolling: how many frames to make). -1 goes on until you"
        " stop it.",
        unit="steps",
        published=500,
        ge=-1,
        le=MAX_STEPS,
    )
    Xdim: int = setting(
        128, "Xdim", "Width of the picture.", unit="px", published=640, ge=8, le=MAX_SIDE
    )
    ydim: int = setting(
        128, "ydim", "Height of the picture.", unit="px", published=480, ge=8, le=MAX_SIDE
    )
    set_seed: bool = setting(
        False, "Set seed", "Use the seed below instead of a random one, to get the same picture."
    )
    seed: int = setting(
        0,
        "Seed",
        f"Any whole number from 0 to {MAX_SEED}. The same settings and seed give the same picture"
        " on the same machine.",
        group="set_seed",
        ge=0,
        le=MAX_SEED,
    )
    init_image: str | None = setting(
        None,
        "Upload starting image",
        "A picture to start from instead of random tokens.",
        unset="none",
    )
    image_prompt: list[str] = setting(
        [],
        "Upload image prompt(s)",
        "Pictures that the result should resemble, beside or instead of the text. May be given"
        " several times.",
        unset="none",
    )

    continue_resize: Literal["scale", "crop", "keep"] = setting(
        "scale",
        "Continued at another size",
        "What becomes of the picture where a run is continued at another size. scale: all of it,"
        " stretched to the new shape. crop: its middle, enlarged only where it is too small. keep:"
        " the new run has the size of the earlier one, whatever Xdim and ydim say.",
    )
    checkpoint_seconds: float = setting(
        10.0,
        "Checkpoint every ... seconds",
        "How often to save what resuming a run needs. Where saving is slow it happens less often,"
        " so that it takes at most 2 % of the time.",
        unit="seconds",
        ge=0,
        le=86_400,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name]
        if isinstance(value, bool) and value_type(field) is not bool:
            raise ValueError("must not be true or false")
        return value

    @field_validator("num_steps")
    @classmethod
    def _some_steps(cls, value: int) -> int:
        if value == 0:
            raise ValueError("must be 1 or more, or -1 to go on until stopped")
        return value

    @model_validator(mode="after")
    def _something_to_aim_at(self) -> "RunSettings":
        if not parse_prompts(self.text_input) and not self.image_prompt:
            raise ValueError(
                "No prompt: type what the picture should show, or add an image prompt."
            )
        return self

    def continuing(self, earlier: Mapping[str, Any]) -> Continuing:
        """How a run with these settings goes on from the state of one with the `earlier` ones.

        Pictures go by what `image_prompt` says: give the same names for the same pictures.
        """
        ours, theirs = (_that_matter(type(self), v) for v in (self.model_dump(), earlier))
        if any(ours[name] != theirs[name] for name in self.LATENT_DEPENDS_ON):
            return "from its picture"
        return "exactly" if ours == theirs else "from its latent"

    @classmethod
    def recommended(cls, values: Mapping[str, Any], assets_dir: Path) -> dict[str, Any]:
        """What the weights that `values` choose recommend, the weights' own name included.

        Raises BadInput where there are none such, or where they recommend what is no setting.
        """
        return {}

    def fitted(self, assets_dir: Path) -> tuple[Self, list[str]]:
        """The settings as the weights can carry them out, and warnings for the person.

        Finds out what can be known without loading anything. Raises BadInput.
        """
        return self, []


class VQGANCLIPSettings(RunSettings):
    """The settings of `logic.VQGANCLIPRun`."""

    LATENT_DEPENDS_ON: ClassVar = ("Xdim", "ydim", "vqgan_ckpt")
    NO_MATTER_FOR_STEPS: ClassVar = (*RunSettings.NO_MATTER_FOR_STEPS, "init_sketch")

    init_sketch: bool = setting(
        False,
        "Start from a sketch",
        "Start from a rough sketch of the prompts instead of random tokens, so that things get"
        " their shape and clean ground. A small network beside the CLIP model draws it; the bundled"
        " CLIP has one. Without effect where there is a starting image.",
        unset=BY_WEIGHTS,
    )
    vqgan_ckpt: str = setting(
        "emoji_f8",
        "Model weights",
        "The VQGAN: a NAME.yaml + NAME.ckpt pair in `assets/`.",
        unset="vqgan_imagenet_f16_1024 if it is there, else emoji_f8, else the first in `assets/`",
    )
    clip_model: str = setting(
        "ViT-B/32",
        "CLIP model",
        "The CLIP that compares picture and prompt: one of OpenAI's names, a NAME.pt in `assets/`,"
        " or the path of a checkpoint.",
        unset=BY_WEIGHTS,
    )
    step_size: float = setting(
        0.05,
        "Step size",
        "Learning rate of the optimiser (Adam) on the latent.",
        unset=BY_WEIGHTS,
        gt=0,
        le=10,
    )
    cutn: int = setting(
        64,
        "Cutouts",
        "How many random cutouts CLIP looks at in each step. More is steadier and slower.",
        unset=BY_WEIGHTS,
        ge=1,
        le=1024,
    )
    cut_pow: float = setting(
        1.0,
        "Cutout power",
        "Shapes the cutouts' sizes: above 1 favours small ones (detail), below 1 large ones"
        " (composition).",
        unset=BY_WEIGHTS,
        ge=0,
        le=100,
    )
    whole_views: float = setting(
        0.125,
        "Whole views",
        "Share of the cutouts that show the whole picture, from 0 to 1. More favours composition,"
        " fewer detail.",
        unset=BY_WEIGHTS,
        ge=0,
        le=1,
    )
    use_cutout_augmentations: bool = setting(
        True,
        "Use cutout augmentations",
        "Flip, turn, skew, recolour and blur the cutouts, so that the picture holds up from every"
        " view.",
    )
    deterministic: bool = setting(
        False,
        "Deterministic",
        "On a GPU, compute the same bytes every time, which takes a little longer. A CPU always"
        " does.",
    )
    use_mse_regularization: bool = setting(
        False,
        "Use MSE regularization",
        "Hold the latent near where it started; useful with a starting image.",
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
        True, "Use TV loss regularization", "Smooth the latent: fewer specks, calmer areas."
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
    use_scrolling_zooming: bool = setting(
        False,
        "Scrolling/zooming transforms",
        "Move the picture between frames, for a video that travels.",
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
        make_partial(cls, weights.recommended, source=str(weights.config_path))
        return weights.recommended | {"vqgan_ckpt": name}

    def fitted(self, assets_dir: Path) -> tuple[Self, list[str]]:
        weights = get_weights(assets_dir, self.vqgan_ckpt)
        check_checkpoint(weights.checkpoint_path)
        clip_path = find_clip(assets_dir, self.clip_model)
        if clip_path:
            check_checkpoint(clip_path)
        fitting, warnings = {}, []
        if self.init_sketch and not self._can_sketch(clip_path):
            fitting["init_sketch"] = False
            warnings.append(
                f"'Start from a sketch' is left out: {shortened(self.clip_model)} has nothing that"
                " draws one."
            )
        width, height = picture_size(weights, self.Xdim, self.ydim)
        if (width, height) != (self.Xdim, self.ydim):
            fitting |= {"Xdim": width, "ydim": height}
            warnings.append(
                f"The size {self.Xdim}x{self.ydim} became {width}x{height}: {weights.name} makes"
                f" multiples of {weights.factor} px."
            )
        return self.model_copy(update=fitting), warnings

    @staticmethod
    def _can_sketch(clip_path: Path | None) -> bool:
        """Whether there is a sketcher beside that CLIP. Raises BadInput for a broken one."""
        sketcher = find_sketcher(clip_path) if clip_path else None
        if sketcher:
            check_checkpoint(sketcher)
        return sketcher is not None


def _that_matter(kind: type[RunSettings], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that make a difference to a step: no members of a switch that is off."""
    fields = kind.model_fields
    known = {n: values.get(n, f.get_default(call_default_factory=True)) for n, f in fields.items()}

    def matters(name: str) -> bool:
        switch = meta(fields[name])["group"]
        if name in kind.NO_MATTER_FOR_STEPS:
            return False
        return switch in (None, "set_seed") or bool(known[switch])  # the seed is always used

    return {name: value for name, value in known.items() if matters(name)}


def meta(field: FieldInfo) -> dict[str, Any]:
    """label, group, unit, published, unset of a setting."""
    return dict(field.json_schema_extra)  # type: ignore[arg-type]


def label_of(kind: type[RunSettings], name: str) -> str:
    """What the form calls a setting."""
    return meta(kind.model_fields[name])["label"]


def option_name(name: str) -> str:
    """What the command line calls a setting; the prompt alone needs no option."""
    return "PROMPT" if name == "text_input" else f"--{name.lower().replace('_', '-')}"


def value_type(field: FieldInfo) -> type:
    """bool, int, float, str or list: what one value of the setting is, leaving out None."""
    kind = field.annotation
    if get_origin(kind) is list:
        return list
    if choices(field):
        return str
    return next(c for c in (kind, *get_args(kind)) if c in (bool, int, float, str))


def choices(field: FieldInfo) -> tuple[str, ...]:
    """The words of which the setting is one; none where it is anything else."""
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def number_range(field: FieldInfo) -> tuple[float | None, float | None]:
    """The smallest and the largest number allowed; an open limit counts as the limit."""
    low = high = None
    for bound in field.metadata:
        if isinstance(bound, annotated_types.Ge | annotated_types.Gt):
            low = bound.ge if isinstance(bound, annotated_types.Ge) else bound.gt
        if isinstance(bound, annotated_types.Le):
            high = bound.le
    return low, high


def default_text(field: FieldInfo, default: Any) -> str:
    """The default in words: `default`, unless something else happens while nobody sets it."""
    if isinstance(default, bool):
        return "on" if default else "off"
    unset = meta(field)["unset"]
    return f"{unset}, else {default}" if unset == BY_WEIGHTS else unset or str(default)


def range_text(field: FieldInfo) -> str:
    """The range in words with its unit, such as "8 to 4096 px"; "" where there is none."""
    if words := choices(field):
        return f"{', '.join(words[:-1])} or {words[-1]}"
    low, high = number_range(field)
    if low is None:
        return ""
    is_open = any(isinstance(bound, annotated_types.Gt) for bound in field.metadata)
    return f"{'above ' if is_open else ''}{low} to {high} {meta(field)['unit']}".rstrip()


def members(kind: type[RunSettings], switch: str) -> list[str]:
    """The settings that only matter while `switch` is on."""
    return [name for name, field in kind.model_fields.items() if meta(field)["group"] == switch]


def make(kind: type[RunSettings], *layers: Mapping[str, Any]) -> RunSettings:
    """Settings from layers of values, later ones first in rank, over the declared defaults.

    In the last layer (what the person said this time) a value of a group switches its group on.
    Raises BadInput that names every wrong value.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values |= layer
    for name in layers[-1] if layers else ():
        switch = meta(kind.model_fields[name])["group"] if name in kind.model_fields else None
        if switch and switch not in layers[-1]:
            values[switch] = True
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadInput(*_sentences(kind, error, option_name)) from None


def read_defaults(kind: type[RunSettings], path: Path = DEFAULTS_FILE) -> dict[str, Any]:
    """The values that `defaults.yaml` sets; a key left empty is not set.

    One file serves all kinds of runs, so another kind's keys are passed over.
    Raises BadInput for a broken file, an unknown key or a value out of range.
    """
    if not path.exists():
        return {}
    values = read_yaml(path) or {}
    if not isinstance(values, dict):
        raise BadInput(f"{path} must hold lines of 'setting: value'. Mend it or delete it.")
    known = _names_of_all_kinds()
    unknown = [shortened(key) for key in values if key not in known]
    if unknown:
        raise BadInput(
            f"{path} sets {shortened(', '.join(unknown))}, which is no setting. ",
            Wording("The README lists all settings.", f"Settings are: {', '.join(known)}."),
        )
    values = {name: values[name] for name in kind.model_fields if values.get(name) is not None}
    make_partial(kind, values, source=str(path))
    return values


def _names_of_all_kinds() -> list[str]:
    kinds = [RunSettings]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return list(dict.fromkeys(name for kind in kinds for name in kind.model_fields))


def make_partial(kind: type[RunSettings], values: Mapping[str, Any], source: str) -> None:
    """Check some values on their own, whether or not there is a prompt. Raises BadInput."""
    try:
        kind.model_validate({**values, "text_input": values.get("text_input") or "-"})
    except ValidationError as error:
        raise BadInput(f"In {source}: ", *_sentences(kind, error, str)) from None


def _sentences(
    kind: type[RunSettings], error: ValidationError, spelt: Callable[[str], str]
) -> Iterator[str | Wording]:
    """What is wrong with each value. spelt: a setting's name where no label is known."""
    for number, problem in enumerate(error.errors()):
        yield " " if number else ""
        name = str(problem["loc"][0]) if problem["loc"] else ""
        said = problem.get("ctx", {}).get("error")
        if not name:
            yield str(said)
        elif name not in kind.model_fields:
            yield f"{shortened(name)} is no setting."
        else:
            yield Wording(f"'{label_of(kind, name)}'", spelt(name))
            wanted = said or f"must be {_wanted(kind.model_fields[name])}"
            yield f" {wanted}; it was {shortened(problem['input']) or 'empty'}."


def _wanted(field: FieldInfo) -> str:
    """The values that a setting takes, in words."""
    span = range_text(field)
    if choices(field):
        return span
    span = f" from {span}" if span[:1].isdigit() or span[:1] == "-" else f" {span}"
    lengths = (bound.max_length for bound in field.metadata if hasattr(bound, "max_length"))
    longest = next((f" of at most {length:,} characters" for length in lengths), "")
    return {
        bool: "on or off (true or false)",
        int: f"a whole number{span}",
        float: f"a number{span}",
        str: f"text{longest}",
        list: "a list of paths",
    }[value_type(field)].rstrip()
