"""YAML from people and from strangers."""

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from studio.base.errors import BadInput, shortened

MAX_YAML_BYTES = 1_000_000
MAX_ALIASES = 16


class _CarefulLoader(yaml.SafeLoader):
    """Allows only a few aliases (*name): with many, a small file could unfold beyond all memory."""

    aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.aliases += self.check_event(yaml.AliasEvent)
        if self.aliases > MAX_ALIASES:
            raise yaml.YAMLError(f"it has more than {MAX_ALIASES} aliases")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> Any:
    """The contents of a yaml file. Raises BadInput with a message of one line."""
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise BadInput(f"{path} is too large for a file of settings.")
        return deepcopy(_parsed(path.read_text(encoding="utf-8")))
    except BadInput:
        raise
    except Exception as error:  # for odd values the reader raises errors of any kind
        reason = getattr(error, "strerror", None) or f"as yaml ({shortened(error, 200)})"
        raise BadInput(f"{shortened(path, 200)} cannot be read: {reason}.") from None


@lru_cache(maxsize=32)
def _parsed(text: str) -> Any:
    """Parsing takes a hundred times as long as reading, and the page reads at every touch."""
    return yaml.load(text, _CarefulLoader)
