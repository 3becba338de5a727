"""What the page remembers across restarts, for all tabs: the form's last values, and presets.

Both are kept for each engine. Files of the first format, which knew one engine, count for the first
engine.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput
from studio.base.files import atomic_write, read_json, to_json
from studio.engines import registry

FORMAT = 2
FORM, PRESETS = "form.json", "presets.json"

Values = dict[str, Any]


class Memory:
    """In `.page/` of the output folder. Broken files count as absent."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self._folder = output_dir / ".page"

    def engine(self) -> str | None:
        """The name of the engine that was chosen last."""
        name = self._form().get("engine")
        return name if isinstance(name, str) else None

    def last(self, engine: str) -> Values:
        """What was typed last with an engine, by the settings' names."""
        return _part(self._form(), "engines", engine)

    def asked(self) -> Values:
        """What was asked for last besides the settings, such as how many runs."""
        return _part(self._form(), "asked")

    def remember(
        self, engine: str, values: Mapping[str, Any], asked: Mapping[str, Any] | None = None
    ) -> None:
        """Keep what is typed. If it cannot be written, nothing is said.

        asked: as for `asked`; None keeps what is remembered.
        """
        before = self._form()
        now = {
            "format": FORMAT,
            "engine": engine,
            "engines": _part(before, "engines") | {engine: dict(values)},
            "asked": _part(before, "asked") if asked is None else dict(asked),
        }
        if now != before:
            with suppress(OSError):
                self._write(FORM, now)

    def presets(self, engine: str) -> dict[str, Values]:
        """An engine's saved settings by the presets' names, in the names' order."""
        found = _part(self._presets(), engine)
        named = {name: values for name, values in found.items() if isinstance(values, dict)}
        return dict(sorted(named.items(), key=lambda item: item[0].casefold()))

    def save_preset(self, engine: str, name: str, values: Mapping[str, Any]) -> None:
        """Save values under a name, in place of an older preset. Raises BadInput."""
        if not name.strip():
            raise BadInput("A preset needs a name.")
        self._write_presets(engine, self.presets(engine) | {name.strip(): dict(values)})

    def delete_preset(self, engine: str, name: str) -> None:
        """Delete a preset. Raises BadInput."""
        presets = self.presets(engine)
        self._write_presets(engine, {n: values for n, values in presets.items() if n != name})

    def _form(self) -> Values:
        """In the first format, the file holds one engine's settings and what was asked."""
        found = _read(self._folder / FORM)
        if found.get("format") == FORMAT:
            return found
        return {"engines": {registry.DEFAULT: found}, "asked": found}

    def _presets(self) -> Values:
        """By engine. In the first format, the file holds one engine's presets by their names."""
        found = _read(self._folder / PRESETS)
        if found.get("format") == FORMAT:
            return _part(found, "engines")
        return {registry.DEFAULT: found}

    def _write_presets(self, engine: str, presets: Mapping[str, Values]) -> None:
        engines = self._presets() | {engine: presets}
        try:
            self._write(PRESETS, {"format": FORMAT, "engines": engines})
        except OSError as error:
            raise BadInput(f"The presets cannot be kept: {error.strerror or error}.") from None

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self._folder / name, to_json(values))


def _read(path: Path) -> Values:
    try:
        return read_json(path)
    except BadInput:
        return {}


def _part(values: Mapping[str, Any], *keys: str) -> Values:
    """What lies under the keys, one below the other; empty if that is not a dict."""
    found: object = values
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
