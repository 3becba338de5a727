"""Settings that engines have in common. An engine lists those that it has, with its own defaults.

Sizes are pixels; paths are as the person gave them.
"""

from typing import Any, Literal

from studio.settings.declare import BY_WEIGHTS, OFF, setting

MAX_SEED = 2**64 - 1
MAX_SIDE = 4096
MAX_GROWN_SIDE = 16_384  # of an engine that makes large pictures bit by bit
MAX_STEPS = 10_000_000
MAX_PROMPT = 10_000  # characters
# What engines call that which the picture should not show, and what joins several such things.
AVOIDED = {"avoid": " | ", "negative_prompt": ", "}
Resize = Literal["scale", "crop", "keep"]
Scale = Literal[0, 2, 3, 4, 8]  # of upscaling; 0 does not
SCALES = (2, 3, 4, 8)
ALWAYS = 4  # by how much `upscale_always` upscales by itself


def prompt(
    *,
    help: str = "What the picture should show.",
    example: str = "a red heart",
    most: int = MAX_PROMPT,
) -> Any:
    """`text_input: str`. help: says which grammar the engine reads. example: a prompt in it.

    most: characters.
    """
    return setting("", "Text prompt", help, unset="none", example=example, max_length=most)


def avoid(*, help: str = "What the picture should not show.", example: str = "text") -> Any:
    """`avoid: str`. help: says how the engine reads it. example: something to avoid."""
    return setting("", "Avoid", help, unset="none", example=example, max_length=MAX_PROMPT)


def negative_prompt(
    *, help: str = "What the picture should not show.", most: int = MAX_PROMPT
) -> Any:
    """`negative_prompt: str`: what other engines call `avoid`. help, most: as above."""
    return setting("", "Negative prompt", help, unset="none", example="text", max_length=most)


def num_steps(default: int, *, frames: str = "", published: int | None = None) -> Any:
    """`num_steps: int`, how many steps a run plans. frames: if they are frames, in words."""
    help = f"How many steps to take{frames and f' ({frames})'}. -1 runs until you stop it."
    how: dict[str, Any] = {"unit": "steps", "ge": -1, "le": MAX_STEPS, "changes_steps": False}
    return setting(default, "Num steps", help, published=published, **how)


def width(
    default: int, *, published: int | None = None, most: int = MAX_SIDE, unset: str = ""
) -> Any:
    """`Xdim: int`. unset: as for `declare.setting`."""
    return _side(default, "Xdim", "Width of the picture.", published, most, unset)


def height(
    default: int, *, published: int | None = None, most: int = MAX_SIDE, unset: str = ""
) -> Any:
    """`ydim: int`. unset: as for `declare.setting`."""
    return _side(default, "ydim", "Height of the picture.", published, most, unset)


def _side(default: int, label: str, help: str, published: int | None, most: int, unset: str) -> Any:
    limits = {"unit": "px", "published": published, "unset": unset, "ge": 8, "le": most}
    return setting(default, label, help, **limits)


def set_seed() -> Any:
    """`set_seed: bool`"""
    return setting(
        False,
        "Set seed",
        "Use the seed below instead of a random one, to get the same picture.",
        changes_steps=False,
    )


def seed() -> Any:
    """`seed: int`"""
    return setting(
        0,
        "Seed",
        f"Any whole number from 0 to {MAX_SEED}. The same settings and seed give the same picture"
        " on the same machine.",
        group="set_seed",
        always_used=True,
        ge=0,
        le=MAX_SEED,
    )


def starting_image(*, instead_of: str = "") -> Any:
    """`init_image: str | None`. instead_of: what a run starts from without it, if it can."""
    instead = f" instead of {instead_of}" if instead_of else ""
    return setting(
        None,
        "Upload starting image",
        f"A picture to start from{instead}.",
        unset="none",
        changes_steps=False,
        upload=("Use starting image", f"Start from your own picture{instead}."),
    )


def image_prompts() -> Any:
    """`image_prompt: list[str]`"""
    return setting(
        [],
        "Upload image prompt(s)",
        "Pictures that the result should resemble, besides the text or instead of it. The option"
        " may be given several times. Each may end in `:weight`; a negative weight repels.",
        unset="none",
        upload=(
            "Add image prompt(s)",
            "Make the result resemble your own pictures, besides the text or instead of it.",
        ),
    )


def clip_model() -> Any:
    """`clip_model: str`"""
    return setting(
        "ViT-B/32",
        "CLIP model",
        "The CLIP that compares picture and prompt: one of OpenAI's names, a NAME.pt in `assets/`,"
        " or the path of a checkpoint.",
        heading="Guidance",
        unset=BY_WEIGHTS,
    )


def cutouts(default: int, *, unset: str = "") -> Any:
    """`cutn: int`. unset: as for `declare.setting`."""
    return setting(
        default,
        "Cutouts",
        "How many random cutouts CLIP looks at in each step. More is steadier and slower.",
        heading="Guidance",
        unset=unset,
        ge=1,
        le=1024,
    )


def cutout_augmentations() -> Any:
    """`use_cutout_augmentations: bool`"""
    return setting(
        True,
        "Use cutout augmentations",
        "Flip, turn, skew, recolour and blur the cutouts, so that the picture holds up from every"
        " view.",
        heading="More",
    )


def continue_resize() -> Any:
    """`continue_resize: Resize`"""
    return setting(
        "scale",
        "Continued at another size",
        "How to resize the picture when a run is continued at another size. scale: stretch all of"
        " it to the new shape. crop: take its middle, enlarged only if it is too small. keep: use"
        " the earlier run's size, whatever Xdim and ydim say.",
        changes_steps=False,
    )


def upscale(*, unset: str = OFF) -> Any:
    """`upscale: Scale`. unset: what happens while nobody sets it."""
    return setting(
        0,
        "Upscale",
        "How many times as wide and as high to make the result at the end: 2, 3, 4 or 8; 0 does"
        " not. The picture itself stays as it was made; the larger one lies beside it, as"
        " output-x4.PNG.",
        heading="Saving",
        unset=unset,
        changes_steps=False,
    )


def upscale_always() -> Any:
    """`upscale_always: bool`"""
    return setting(
        False,
        "Upscale always",
        f"Upscale every live picture and the video as well ({ALWAYS} times, if Upscale is off).",
        heading="Saving",
        changes_steps=False,
    )


def checkpoint_seconds() -> Any:
    """`checkpoint_seconds: float`"""
    return setting(
        10.0,
        "Checkpoint every ... seconds",
        "How often to save what resuming a run needs. If saving is slow, it happens less often, so"
        " that it takes at most 2 % of the time.",
        heading="Saving",
        unit="seconds",
        changes_steps=False,
        ge=0,
        le=86_400,
    )
