"""The class that every engine's settings derive from."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from studio.settings.common import ALWAYS, Scale
from studio.settings.declare import (
    HEADINGS,
    choices,
    default_of,
    matters,
    meta,
    number_range,
    value_type,
)

# How a run continues another one. Exactly: with its whole state, since only the number of steps
# differs. From its latent: with the optimiser's moments, but MSE regularisation starts again. From
# its picture, if size or VQGAN differ: of the state, only the stream of random numbers continues.
Continuing = Literal["exactly", "from its latent", "from its picture"]
PARTIAL = {"partial": True}  # context of a validation that does without, say, a prompt


class RunSettings(BaseModel):
    """The settings of an engine's runs: one field for each, declared by `setting`.

    Every engine declares those of REQUIRED, in the order in which the form should show them;
    `studio.settings.common` has them and others that engines share. An engine's own
    validators of the whole skip a partial validation; see `is_partial`.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )

    REQUIRED: ClassVar = (
        *("num_steps", "set_seed", "seed", "checkpoint_seconds"),
        *("upscale", "upscale_always"),
    )
    # The settings that give an engine's state its shape. If one of them differs from the earlier
    # run's, a run can only continue the earlier run's picture.
    STATE_DEPENDS_ON: ClassVar[tuple[str, ...]] = ()
    # The settings whose choice changes what `recommended` returns.
    RECOMMEND: ClassVar[tuple[str, ...]] = ()
    # The settings that say what to do with the starting image; who continues the run does not take
    # them over, as the run's result is the start then.
    OF_START: ClassVar[tuple[str, ...]] = ("init_image", "mask")
    # The settings that may change while a run is made, from one of its steps on; see `Run.change`.
    CHANGEABLE: ClassVar[tuple[str, ...]] = ()

    if TYPE_CHECKING:  # declared by each engine, in its own order and with its own defaults
        num_steps: int
        set_seed: bool
        seed: int
        checkpoint_seconds: float
        upscale: Scale
        upscale_always: bool

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        if missing := [name for name in cls.REQUIRED if name not in cls.model_fields]:
            raise TypeError(f"{cls.__name__} lacks {', '.join(missing)}; see settings/common.py")
        fixed = {*cls.REQUIRED, *cls.STATE_DEPENDS_ON}
        if wrong := [n for n in cls.CHANGEABLE if n not in cls.model_fields or n in fixed]:
            raise TypeError(f"{cls.__name__}.CHANGEABLE names {', '.join(wrong)}, which is fixed")
        for name, field in cls.model_fields.items():
            if meta(field)["group"] not in (None, *cls.model_fields):
                raise TypeError(f"{cls.__name__}.{name} is in a group that is not a setting")
            if meta(field)["heading"] not in (None, *HEADINGS):
                raise TypeError(f"{cls.__name__}.{name}: headings are {', '.join(HEADINGS)}")
            if meta(field)["heading"] and meta(field)["group"]:
                raise TypeError(f"{cls.__name__}.{name} stands under the heading of its switch")
            is_number = value_type(field) in (int, float) and not choices(field)
            if is_number and None in number_range(field):
                raise TypeError(f"{cls.__name__}.{name} has no range: give ge or gt, and le")

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and value_type(field) in (int, float):
            raise ValueError("must not be true or false")
        # A command line gives text, and so does a table's cell.
        return next((choice for choice in choices(field) if str(choice) == value), value)

    @field_validator("*", mode="before")
    @classmethod
    def _word_of_switch(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        is_switch = meta(field)["is_switch"] and isinstance(value, bool)
        return choices(field)[value] if is_switch else value

    @field_validator("num_steps", check_fields=False)
    @classmethod
    def _some_steps(cls, value: int) -> int:
        if value == 0:
            raise ValueError("must be 1 or more, or -1 to run until stopped")
        return value

    @property
    def scale(self) -> int:
        """By how much the result is upscaled; 0 if it is not."""
        return self.upscale or (ALWAYS if self.upscale_always else 0)

    def continuing(self, earlier: Mapping[str, Any]) -> Continuing:
        """How a run with these settings continues the state of one with the `earlier` ones.

        Pictures are compared by name: `image_prompt` must name the same picture the same way.
        """
        ours, theirs = (_of_steps(type(self), v) for v in (self.model_dump(), earlier))
        if any(ours[name] != theirs[name] for name in self.STATE_DEPENDS_ON):
            return "from its picture"
        return "exactly" if ours == theirs else "from its latent"

    @classmethod
    def recommended(cls, values: Mapping[str, Any], assets_dir: Path) -> dict[str, Any]:
        """What suits the choices in `values`, such as what the chosen weights recommend.

        Raises BadInput if a choice is not available, or recommends what is not a setting.
        """
        return {}

    @classmethod
    def varied(cls, values: Mapping[str, Any], assets_dir: Path) -> dict[str, Any]:
        """What a run sets otherwise than the one with `values` to become similar, but not the same.

        It continues that run with another seed, which may be all that it takes.
        """
        return {}

    @property
    def grows_start(self) -> bool:
        """Whether the picture is to become larger than what it starts from; then see `grown`."""
        return False

    def grown(self, width: int, height: int) -> Self:
        """The settings for a start of that size in pixels. Raises BadInput."""
        return self

    def fitted(
        self, assets_dir: Path, *, begins_with_picture: bool = False
    ) -> tuple[Self, list[str]]:
        """The settings as the engine can carry them out, and warnings for the person.

        begins_with_picture: whether the run continues another one's picture.
        Checks what can be checked without loading anything. Raises BadInput.
        """
        return self, []


def is_partial(info: ValidationInfo) -> bool:
    """Whether some values are checked on their own, so that a prompt, say, may be missing."""
    return bool(info.context and info.context.get("partial"))


def _of_steps(kind: type[RunSettings], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that make a difference to a step."""
    fields = kind.model_fields
    known = {name: values.get(name, default_of(field)) for name, field in fields.items()}
    return {
        name: value
        for name, value in known.items()
        if meta(fields[name])["changes_steps"] and matters(fields[name], known)
    }
