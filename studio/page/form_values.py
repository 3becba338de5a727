"""The values that the form starts with, as its widgets hold them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from studio.base.errors import BadInput
from studio.engines import registry
from studio.settings.declare import choices, default_of, meta, number_range, value_type

LARGEST_BROWSER_NUMBER = 2**53

Values = dict[str, Any]


class FormValues:
    """The usual values of an engine's settings. Uploads are left out: they cannot hold a value.

    Raises BadInput for an engine that cannot be imported.
    """

    def __init__(self, engine: str, assets_dir: Path) -> None:
        self._engine = engine
        self._assets_dir = assets_dir
        self.kind = registry.get(engine).settings
        self.choices = registry.get(engine).choices(assets_dir)

    def options(self, name: str) -> Sequence[Any] | None:
        """What a person chooses from; None for a value that is typed."""
        field = self.kind.model_fields[name]
        words = () if meta(field)["is_switch"] else choices(field)
        if words or name not in self.choices:
            return words or None
        return self.choices[name].options

    def usual(self, chosen: Mapping[str, Any] | None = None) -> Values:
        """The command line's values: declared, recommended for the choices, set in defaults.yaml.

        chosen: what a person chose for the settings in RECOMMEND. Raises BadInput
        for a broken defaults.yaml.
        """
        wanted = {**registry.defaults(self._engine), **(chosen or {})}
        return self.as_typed(self._declared() | self.recommended(wanted) | wanted)

    def remembered(self, last: Mapping[str, Any]) -> Values:
        """The usual values, replaced by those that were typed last if they still fit.

        Raises BadInput as `usual` does.
        """
        there = {name: value for name, value in last.items() if self._is_there(name, value)}
        usual = self.usual(self.recommending(there))
        fits = {n: v for n, v in there.items() if n in usual and type(v) is type(usual[n])}
        return usual | fits

    def recommending(self, values: Mapping[Any, Any]) -> Values:
        """Those of the values that change what is recommended for others."""
        return {name: values[name] for name in self.kind.RECOMMEND if values.get(name)}

    def recommended(self, values: Mapping[str, Any]) -> Values:
        """What suits the choices in `values`; nothing if they are not available."""
        try:
            return self.kind.recommended(values, self._assets_dir)
        except BadInput:
            return {}  # before Run! the page says what is wrong with the choice

    def after_choice(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> Values:
        """What another choice changes: what it recommends, and what the last one recommended.

        before, now: values of `recommending`. Raises BadInput as `usual` does.
        """
        left, recommended = self.recommended(before), self.recommended(now)
        usual = {**self._declared(), **registry.defaults(self._engine), **now}
        return self.as_typed(
            {name: recommended.get(name, usual[name]) for name in left | recommended}
        )

    def as_typed(self, values: Mapping[str, Any]) -> Values:
        """The values as their widgets hold them, without those that are not settings here."""
        fields = self.kind.model_fields
        names = [name for name in values if name in fields and not is_upload(fields[name])]
        return {name: _as_typed(fields[name], values[name]) for name in names}

    def _declared(self) -> Values:
        return {name: default_of(field) for name, field in self.kind.model_fields.items()}

    def _is_there(self, name: str, value: Any) -> bool:
        """Whether a value can still be chosen, if the choice is a closed one."""
        if name not in self.kind.model_fields:
            return False
        options = self.options(name)
        is_open = name in self.choices and self.choices[name].is_open
        return options is None or is_open or value in options


def is_upload(field: FieldInfo) -> bool:
    """Whether the form takes the setting's value as a file."""
    return bool(meta(field)["upload"])


def fits_browser(field: FieldInfo) -> bool:
    """Whether it is a number that a browser can hold exactly. Seeds may be too large."""
    if value_type(field) not in (int, float):
        return False
    return (number_range(field)[1] or 0) <= LARGEST_BROWSER_NUMBER


def _as_typed(field: FieldInfo, value: Any) -> Any:
    if fits_browser(field):
        return value_type(field)(value)
    if meta(field)["is_switch"]:
        return value == choices(field)[1] or value is True
    if meta(field)["lines"]:
        return "\n".join(value) if isinstance(value, list) else value
    if value_type(field) is list:
        return " | ".join(value)
    return str(value) if value_type(field) is int else value
