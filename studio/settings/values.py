"""From values that people give to settings: layers, `defaults.yaml`, and what is wrong."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from studio.base.errors import BadInput, Wording, shortened
from studio.base.paths import DEFAULTS_FILE
from studio.base.yaml_files import read_yaml
from studio.settings.declare import choices, label_of, meta, option_name, range_text, value_type
from studio.settings.run_settings import PARTIAL, RunSettings

Kind = TypeVar("Kind", bound=RunSettings)


def make(kind: type[Kind], *layers: Mapping[str, Any], partial: bool = False) -> Kind:
    """Settings from the declared defaults and layers of values; later layers win.

    In the last layer (what the person said this time) a value of a group switches its group on.
    partial: do without what only a whole request needs, such as a prompt.
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
        return kind.model_validate(values, context=PARTIAL if partial else None)
    except ValidationError as error:
        raise BadInput(*_sentences(kind, error, option_name)) from None


def check_values(kind: type[RunSettings], values: Mapping[str, Any], source: str) -> None:
    """Check some values on their own, even without a prompt. Raises BadInput.

    source: where they are from, for the message.
    """
    try:
        kind.model_validate(values, context=PARTIAL)
    except ValidationError as error:
        raise BadInput(f"In {source}: ", *_sentences(kind, error, str)) from None


def read_defaults(
    kind: type[RunSettings], engine: str, *, is_first: bool, path: Path = DEFAULTS_FILE
) -> dict[str, Any]:
    """The values that `defaults.yaml` sets for an engine; a key left empty is not set.

    The file has a section for each engine, by its name; sections of other engines are skipped.
    is_first: whether keys outside all sections are this engine's, as in older files, which knew
    only one engine. Raises BadInput for a broken file, an unknown key or a value out of range.
    """
    content = (read_yaml(path) if path.exists() else None) or {}
    if not isinstance(content, dict):
        raise BadInput(f"{path} must hold lines of 'setting: value'. Correct it or delete it.")
    section = content.get(engine) or {}
    if not isinstance(section, dict):
        raise BadInput(f"{path}: the section '{engine}' must hold lines of 'setting: value'.")
    outside = {key: value for key, value in content.items() if not _is_section(key, value, kind)}
    values = (outside if is_first else {}) | section
    _refuse_unknown(values, kind, path)
    values = {name: values[name] for name in kind.model_fields if values.get(name) is not None}
    check_values(kind, values, source=str(path))
    return values


def _is_section(key: object, value: object, kind: type[RunSettings]) -> bool:
    """No engine has the name of a setting. An empty section has no value."""
    return isinstance(value, dict) or (value is None and key not in kind.model_fields)


def _refuse_unknown(values: Mapping[Any, Any], kind: type[RunSettings], path: Path) -> None:
    unknown = [shortened(key) for key in values if key not in kind.model_fields]
    if unknown:
        raise BadInput(
            f"{path} sets {shortened(', '.join(unknown))}, which is not a setting. ",
            Wording(
                "The README lists all settings.",
                f"Settings are: {', '.join(kind.model_fields)}.",
            ),
        )


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
            yield f"{shortened(name)} is not a setting."
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
        list: "a list of texts",
    }[value_type(field)].rstrip()
