"""Settings in readable form, and how two runs differ. Never imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gallery_utils import as_count
from studio.runs.details_keys import (
    BOOKKEEPING,
    CHANGES,
    ENGINE,
    INIT_IMAGE_FROM,
    PARENT_FRAME,
    engine_of,
    value_in_words,
)

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

TOLD = (
    "warnings",
    PARENT_FRAME,
    INIT_IMAGE_FROM,
)  # bookkeeping that people want to see among the settings
LABELS = {
    ENGINE: "Engine",
    "num_steps": "Steps made",
    "planned_num_steps": "Steps planned",
    "init_image": "Starting image",
    "image_prompts": "Image prompts",
    "image_prompt": "Image prompt files",
    "prev_run_id": "Continues",
    PARENT_FRAME: "Continues from frame",
    INIT_IMAGE_FROM: "Starting image from",
    "commit_sha": "Commit",
}
Details = Mapping[str, Any]
Declared = Mapping[str, "FieldInfo"]  # an engine's settings, by name


@dataclass(frozen=True)
class Setting:
    """One line of the settings. used: whether the picture depended on it."""

    label: str
    value: str
    used: bool = True


@dataclass(frozen=True)
class Difference:
    """A setting that two runs do not share, in words; "–" for what one does not have."""

    label: str
    first: str
    second: str


def readable(details: Details) -> tuple[list[Setting], list[Setting]]:
    """Every setting, the engine first, then those that it declares, in their order; bookkeeping."""
    details = _with_engine(details)
    declared = _declared_by(engine_of(details))
    settings: list[Setting] = []
    records: list[Setting] = []
    for key in _in_order(details, declared):
        if key == CHANGES and (changed := _changes(details)):
            settings += changed
            continue
        is_record = (key in BOOKKEEPING and key not in TOLD) or key.endswith("sha256")
        line = Setting(
            _label(key, declared), value_in_words(details[key]), _is_used(key, details, declared)
        )
        (records if is_record else settings).append(line)
    return settings, records


def _changes(details: Details) -> list[Setting]:
    """What changed while the run went; nothing where that cannot be read."""
    from studio.making.changes import in_words

    return [Setting(when, what) for when, what in in_words(details)]


def steps_to_make(details: Details) -> int | None:
    """How many steps a run that waits will make; None without an end."""
    planned, made = details.get("planned_num_steps"), details.get("num_steps")
    left = (as_count(planned) or 0) - (as_count(made) or 0)
    return left if left > 0 else None


def differences(first: Details, second: Details) -> list[Difference]:
    """What two runs do not share, apart from bookkeeping.

    A setting that the engines of both declare has the label that the first run's engine gives it.
    """
    first, second = _with_engine(first), _with_engine(second)
    of_first, of_second = (_declared_by(engine_of(details)) for details in (first, second))
    declared = {**of_first, **of_second, **of_first}
    return [
        Difference(_label(key, declared), _known(first, key), _known(second, key))
        for key in _in_order({**first, **second}, declared)
        if key not in BOOKKEEPING and first.get(key) != second.get(key)
    ]


def _with_engine(details: Details) -> Details:
    """The details with the engine that the older layout leaves out; nothing stays nothing."""
    return {**details, ENGINE: engine_of(details)} if details else details


def _known(details: Details, key: str) -> str:
    if key == CHANGES and (changed := _changes(details)):
        return "; ".join(f"{line.label}: {line.value}" for line in changed)
    return value_in_words(details[key]) if key in details else "–"


def _label(key: str, declared: Declared) -> str:
    facts = _facts(declared[key]) if key in declared else {}
    label = LABELS.get(key) or facts.get("label") or key.replace("_", " ").strip().capitalize()
    unit = facts.get("unit")
    return f"{label} ({unit})" if unit in ("px", "degrees") and unit not in label else label


def _facts(field: "FieldInfo") -> Mapping[str, Any]:
    from studio.settings.declare import meta

    return meta(field)


def _is_used(key: str, details: Details, declared: Declared) -> bool:
    """Whether the picture depended on a setting, as far as its engine is known."""
    from studio.settings.declare import matters

    return key not in declared or matters(declared[key], details)


def _in_order(details: Details, declared: Declared) -> list[str]:
    first = [key for key in (ENGINE, *declared) if key in details]
    return first + [key for key in details if key not in first]


@lru_cache(maxsize=50)
def _declared_by(engine: str) -> Declared:
    """What an engine declares; empty for an engine that this installation does not know."""
    # Imported late: pydantic, behind it, would take a third of the gallery's start.
    from studio.engines import registry

    found = registry.find(engine)
    return found.settings.model_fields if found else {}
