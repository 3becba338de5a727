"""Settings in readable form, and how two runs differ. Never imports torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from gallery_utils import as_count

# What belongs to one run alone and says nothing of how its picture was made.
BOOKKEEPING = (
    *("run_id", "run_folder", "prev_run_id", "parent", "ancestors", "queued_at", "start_time"),
    *("end_time", "heartbeat", "steps_per_second", "losses", "status", "error", "warnings"),
    *("stage", "chain", "continue_prev_run", "inputs_sha256", "schema_version", "host"),
    *("crashes", "last_crash", "loss_history"),
)
TOLD = ("warnings",)  # of the above, what a person wants to see
LABELS = {
    "num_steps": "Steps made",
    "planned_num_steps": "Steps planned",
    "init_image": "Starting image",
    "image_prompts": "Image prompts",
    "image_prompt": "Image prompt files",
    "prev_run_id": "Continues",
    "commit_sha": "Commit",
}


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


def readable(details: Mapping[str, Any]) -> tuple[list[Setting], list[Setting]]:
    """Every setting, those that are declared first and in their order; then the bookkeeping."""
    declared = _declared()
    settings: list[Setting] = []
    records: list[Setting] = []
    for key in _in_order(details):
        is_record = key in BOOKKEEPING and key not in TOLD or key.endswith("sha256")
        used = _is_used(declared.get(key), details)
        (records if is_record else settings).append(
            Setting(_label(key), in_words(details[key]), used)
        )
    return settings, records


def steps_to_make(details: Mapping[str, Any]) -> int | None:
    """How many steps a run that waits will make; None without an end."""
    planned, made = details.get("planned_num_steps"), details.get("num_steps")
    left = (as_count(planned) or 0) - (as_count(made) or 0)
    return left if left > 0 else None


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """What two runs do not share, apart from names and times."""
    return [
        Difference(_label(key), _known(first, key), _known(second, key))
        for key in _in_order({**first, **second})
        if key not in BOOKKEEPING and first.get(key) != second.get(key)
    ]


def in_words(value: Any) -> str:
    """A value of details.json for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return ", ".join(map(in_words, value))
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _known(details: Mapping[str, Any], key: str) -> str:
    return in_words(details[key]) if key in details else "–"


def _label(key: str) -> str:
    declared = _declared().get(key, {})
    label = LABELS.get(key) or declared.get("label") or key.replace("_", " ").strip().capitalize()
    unit = declared.get("unit")
    return f"{label} ({unit})" if unit in ("px", "degrees") and unit not in label else label


def _is_used(declared: Mapping[str, Any] | None, details: Mapping[str, Any]) -> bool:
    switch = declared and declared["group"]
    # The seed is used in any case: without the switch a random one.
    return not switch or switch == "set_seed" or details.get(switch) is not False


def _in_order(details: Mapping[str, Any]) -> list[str]:
    first = [key for key in _declared() if key in details]
    return first + [key for key in details if key not in first]


@cache
def _declared() -> Mapping[str, Mapping[str, Any]]:
    """The declarations of all settings of all models by name."""
    from studio.engines import (
        registry,  # pydantic, behind it, would take a third of the gallery's start
    )
    from studio.settings.declare import meta

    kinds = [registry.get(name).settings for name in registry.names()]
    return {name: meta(field) for kind in kinds for name, field in kind.model_fields.items()}
