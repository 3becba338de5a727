"""YAML from people and from strangers."""

from pathlib import Path
from typing import Any

import yaml

from studio.base.errors import BadInput, shortened

MAX_YAML_BYTES = 1_000_000
MAX_ALIASES = 16


class _CarefulLoader(yaml.SafeLoader):
    """With few aliases (*name): by many of them a small file could unfold beyond all memory."""

    aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.aliases += self.check_event(yaml.AliasEvent)
        if self.aliases > MAX_ALIASES:
            raise yaml.YAMLError(f"it has more than {MAX_ALIASES} aliases")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> Any:
    """What a yaml file holds. Raises BadInput, in one line."""
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise BadInput(f"{path} is too large for a file of settings.")
        return yaml.load(path.read_text(encoding="utf-8"), _CarefulLoader)
    except BadInput:
        raise
    except Exception as error:  # wrong values make the reader raise whatever it likes
        reason = getattr(error, "strerror", None) or f"as yaml ({shortened(error, 200)})"
        raise BadInput(f"{shortened(path, 200)} cannot be read: {reason}.") from None
