"""Declaring a setting, and what its declaration says of it.

The form, the command line, `defaults.yaml`, `details.json` and the README's tables all follow from
the declarations: each one adds a widget, an option, a line of `defaults.yaml` and a key of
`details.json`.
"""

from typing import Any, Literal, cast, get_args, get_origin

import annotated_types
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

BY_WEIGHTS = "what the weights recommend"
OFF = "off"
Heading = Literal["Look", "Guidance", "Motion", "Saving", "More"]
HEADINGS: tuple[Heading, ...] = get_args(Heading)


def setting(
    default: Any,
    label: str,
    help: str,
    *,
    heading: Heading | None = None,
    group: str | None = None,
    unit: str = "",
    published: Any = None,
    unset: str = "",
    changes_steps: bool = True,
    always_used: bool = False,
    upload: tuple[str, str] | None = None,
    example: str = "",
    when: Any = True,
    is_switch: bool = False,
    lines: int = 0,
    **limits: Any,
) -> Any:
    """Declare a setting.

    label: what the form calls it. help: one or two sentences for hovering and `--help`.
    heading: under which the form folds it away. None: it stands open, or with its group's switch.
    group: the switch (another setting) that must be on for this one to matter.
    published: what suits published weights on a GPU, where that is not the default.
    unset: what happens while nobody sets it, unless that is simply the default.
    changes_steps: whether a step depends on it, rather than only how a run begins or is kept.
    always_used: whether it matters even while the switch of its group is off.
    upload: for paths of pictures: label and help of the form's switch that shows the upload.
    example: what an empty text field of the form shows.
    when: the switch's word at which this one matters, if the switch chooses between two words.
    is_switch: whether the form shows the choice between two words as a switch for the second one.
    lines: how many texts a list has; then a file has a line for each, and the form a table.
    limits: pydantic's ge, le, gt, lt, max_length.
    """
    facts = {"label": label, "heading": heading, "group": group, "unit": unit}
    facts |= {"published": published, "unset": unset}
    facts |= {"changes_steps": changes_steps, "always_used": always_used, "upload": upload}
    facts |= {"example": example, "when": when, "is_switch": is_switch, "lines": lines}
    if isinstance(default, list):
        return Field(
            default_factory=default.copy, description=help, json_schema_extra=facts, **limits
        )
    return Field(default, description=help, json_schema_extra=facts, **limits)


def meta(field: FieldInfo) -> dict[str, Any]:
    """The arguments of `setting` other than default, help and limits, by name."""
    return dict(cast("dict[str, Any]", field.json_schema_extra))


def default_of(field: FieldInfo) -> Any:
    """The declared default."""
    return field.get_default(call_default_factory=True)


def label_of(kind: type[BaseModel], name: str) -> str:
    """What the form calls a setting."""
    return meta(kind.model_fields[name])["label"]


def option_name(name: str) -> str:
    """What the command line calls a setting; the prompt alone needs no option."""
    return "PROMPT" if name == "text_input" else f"--{name.lower().replace('_', '-')}"


def value_type(field: FieldInfo) -> type:
    """bool, int, float, str or list: the type of one value of the setting, leaving out None."""
    kind = field.annotation
    if get_origin(kind) is list:
        return list
    if of := choices(field):
        return type(of[0])
    return next(c for c in (kind, *get_args(kind)) if c in (bool, int, float, str))


def choices(field: FieldInfo) -> tuple[Any, ...]:
    """The words or the numbers that the setting chooses from; none if it takes other values."""
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def number_range(field: FieldInfo) -> tuple[float | None, float | None]:
    """The smallest and the largest number allowed; an open limit counts as the limit."""
    low: Any = None
    high: Any = None
    for bound in field.metadata:
        if isinstance(bound, annotated_types.Ge | annotated_types.Gt):
            low = bound.ge if isinstance(bound, annotated_types.Ge) else bound.gt
        if isinstance(bound, annotated_types.Le):
            high = bound.le
    return low, high


def choice_in_words(value: Any) -> str:
    """What the form calls one of the choices; 0 switches off."""
    return str(value or OFF)


def default_text(field: FieldInfo, default: Any) -> str:
    """The default in words: `default`, unless something else happens while nobody sets it."""
    if isinstance(default, bool):
        return "on" if default else OFF
    unset = meta(field)["unset"]
    return f"{unset}, else {default}" if unset == BY_WEIGHTS else unset or str(default)


def range_text(field: FieldInfo) -> str:
    """The range in words with its unit, such as "8 to 4096 px"; "" if there is none."""
    if words := list(map(str, choices(field))):
        return f"{', '.join(words[:-1])} or {words[-1]}"
    low, high = number_range(field)
    if low is None:
        return ""
    is_open = any(isinstance(bound, annotated_types.Gt) for bound in field.metadata)
    return f"{'above ' if is_open else ''}{low} to {high} {meta(field)['unit']}".rstrip()


def members(kind: type[BaseModel], switch: str) -> list[str]:
    """The settings that only matter while `switch` is on."""
    return [name for name, field in kind.model_fields.items() if meta(field)["group"] == switch]


def heading_of(kind: type[BaseModel], name: str) -> Heading | None:
    """Under which a setting is folded; a member of a group stands where its switch does."""
    return meta(kind.model_fields[meta(kind.model_fields[name])["group"] or name])["heading"]


def matters(field: FieldInfo, values: Any) -> bool:
    """Whether a setting makes a difference, given the values of all settings by name.

    It does not while the switch of its group is off. A switch that `values` does not name counts as
    on: run folders of the older layout hold a group's values without the switch.
    """
    facts = meta(field)
    if facts["always_used"] or facts["group"] is None:
        return True
    switch, when = values.get(facts["group"], True), facts["when"]
    return bool(switch) if when is True else switch in (when, True)
