"""What the page remembers across restarts, for all tabs: the form's last values, and presets."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput
from studio.base.files import atomic_write, read_json, to_json

Values = dict[str, Any]


class Memory:
    """In `.page/` of the output folder. Files that are broken are as good as absent."""

    def __init__(self, output_dir: Path) -> None:
        self._folder = output_dir / ".page"

    def last(self) -> Values:
        """What was typed last, by the settings' names."""
        return _read(self._folder / "form.json")

    def remember(self, values: Mapping[str, Any]) -> None:
        """Keep what is typed; quietly nothing where that cannot be written."""
        if values != self.last():
            with suppress(OSError):
                self._write("form.json", values)

    def presets(self) -> dict[str, Values]:
        """The saved settings by the presets' names, in the names' order."""
        found = _read(self._folder / "presets.json")
        named = {name: values for name, values in found.items() if isinstance(values, dict)}
        return dict(sorted(named.items(), key=lambda item: item[0].casefold()))

    def save_preset(self, name: str, values: Mapping[str, Any]) -> None:
        """Under a name, over what had it before. Raises BadInput."""
        if not name.strip():
            raise BadInput("A preset needs a name.")
        self._write_presets(self.presets() | {name.strip(): dict(values)})

    def delete_preset(self, name: str) -> None:
        """Raises BadInput."""
        self._write_presets({n: values for n, values in self.presets().items() if n != name})

    def _write_presets(self, presets: Mapping[str, Values]) -> None:
        try:
            self._write("presets.json", presets)
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
