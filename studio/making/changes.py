"""Settings that change while a run is made, from one of its steps on. Never imports torch.

details.json tells the settings that a run began with, and under CHANGES what changed, at which
steps. Both together make the same picture again. Changes may lie ahead: a run that is made again
makes them at the same steps as the run before.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from studio.base.errors import BadInput, Wording, shortened
from studio.engines import registry
from studio.runs.details_keys import CHANGES, engine_of, value_in_words
from studio.settings.declare import label_of, matters, meta, option_name
from studio.settings.run_settings import RunSettings
from studio.settings.values import Kind, make

BROKEN = f"The list '{CHANGES}' in the run's details is broken."
MAX_WORDS = 300  # characters of a value


@dataclass(frozen=True)
class Change:
    """New values of settings. step: the first one that is computed with them, counted from 1."""

    step: int
    settings: Mapping[str, Any]


def changes_in(details: Mapping[str, Any]) -> list[Change]:
    """The changes of a run, made and to come, by their steps. Raises BadInput."""
    found = details.get(CHANGES) or []
    if not isinstance(found, list):
        raise BadInput(BROKEN)
    return sorted(map(_change, found), key=lambda change: change.step)


def as_details(changes: Iterable[Change]) -> list[dict[str, Any]]:
    """The changes as details.json holds them."""
    return [{"step": change.step, "settings": dict(change.settings)} for change in changes]


def in_force(values: Mapping[str, Any], changes: Iterable[Change], step: int) -> dict[str, Any]:
    """The settings by which a step is computed, of a run that began with these values."""
    made = (change.settings for change in changes if change.step <= step)
    return {**values, **{name: value for settings in made for name, value in settings.items()}}


def at_its_end(details: Mapping[str, Any]) -> dict[str, Any]:
    """The details with the settings that were in force at the last step. Raises BadInput."""
    steps, engine = details.get("num_steps"), registry.find(engine_of(details))
    names = engine.settings.CHANGEABLE if engine else ()
    values = {name: details[name] for name in names if name in details}
    last = in_force(values, changes_in(details), steps if isinstance(steps, int) else 0)
    return {**details, **{name: last[name] for name in names if name in last}}


def noted(changes: Iterable[Change], step: int, settings: Mapping[str, Any]) -> list[Change]:
    """The changes with another one. Of the same settings, it replaces what was to come later."""
    kept = []
    for change in changes:
        left = {n: v for n, v in change.settings.items() if change.step < step or n not in settings}
        if change.step == step:
            settings = left | dict(settings)
        elif left:
            kept.append(Change(change.step, left))
    return sorted([*kept, Change(step, settings)], key=lambda change: change.step)


def changed(before: Kind, given: Mapping[str, Any]) -> Kind:
    """The settings of a run with these values instead. Raises BadInput for what cannot change."""
    kind, values = type(before), before.model_dump()
    for name in given:
        if name not in kind.CHANGEABLE:
            raise BadInput(*_fixed(kind, name))
        if not matters(kind.model_fields[name], values):
            raise BadInput(*_without_effect(kind, name))
    return make(kind, values | dict(given))


def check(settings: RunSettings, changes: Iterable[Change]) -> None:
    """Refuse changes that a run with these settings could not make. Raises BadInput."""
    for change in changes:
        try:
            settings = changed(settings, change.settings)
        except BadInput as error:
            raise error.prefixed(f"The change at step {change.step}: ") from None


def steps_in_words(changes: Sequence[Change]) -> str:
    """Such as "step 3" or "steps 3, 8 and 12"."""
    *first, last = (str(change.step) for change in changes)
    return f"steps {', '.join(first)} and {last}" if first else f"step {last}"


def left_out(changes: Sequence[Change], kind: type[RunSettings], other: str) -> str:
    """Why changes are not made again. other: a setting that begins with another value."""
    steps, label = steps_in_words(changes), label_of(kind, other)
    return f"The changes at {steps} are left out, since '{label}' is different now."


def in_words(details: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """As `described`. Nothing for a broken list: it may be a stranger's."""
    engine = registry.find(engine_of(details))
    with suppress(BadInput):
        yield from described(changes_in(details), engine.settings if engine else RunSettings)


def described(changes: Iterable[Change], kind: type[RunSettings]) -> Iterator[tuple[str, str]]:
    """For each change: from which step on, and the labels and new values of the settings."""
    for change in changes:
        parts = (
            f"{label_of(kind, name) if name in kind.model_fields else name}:"
            f" {shortened(value_in_words(value), MAX_WORDS)}"
            for name, value in change.settings.items()
        )
        yield f"From step {change.step} on", " · ".join(parts)


def _change(entry: object) -> Change:
    if not isinstance(entry, dict):
        raise BadInput(BROKEN)
    step, settings = entry.get("step"), entry.get("settings")
    if type(step) is not int or step < 1 or not isinstance(settings, dict):
        raise BadInput(BROKEN)
    return Change(step, settings)


def _without_effect(kind: type[RunSettings], name: str) -> Iterator[str | Wording]:
    """Why a setting of a group that is off cannot change."""
    switch = meta(kind.model_fields[name])["group"]
    yield Wording(f"'{label_of(kind, name)}'", option_name(name))
    yield " has no effect in this run: "
    yield Wording(f"'{label_of(kind, switch)}'", option_name(switch))
    yield " is off, and cannot be switched on while the run is being made."


def _fixed(kind: type[RunSettings], name: str) -> Iterator[str | Wording]:
    """Why a setting cannot change, and which can."""
    if not kind.CHANGEABLE:
        yield "The settings of this engine cannot change while a run is being made."
        return
    known = name in kind.model_fields
    yield Wording(f"'{label_of(kind, name)}'" if known else f"'{shortened(name)}'", shortened(name))
    yield " cannot change while a run is being made. These can: "
    labels = ", ".join(f"'{label_of(kind, other)}'" for other in kind.CHANGEABLE)
    yield Wording(labels, ", ".join(map(option_name, kind.CHANGEABLE)))
    yield "."
