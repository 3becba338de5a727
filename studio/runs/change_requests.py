"""What a person asks to change in a run that is being computed: a file for each request. No torch.

The files lie in `.changes/` of the run's folder. The process that computes the run looks there
before each step. Each request has a file of its own, so that two quick ones do not lose one.
"""

import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput
from studio.base.files import atomic_write, read_json, to_json

REQUESTS = ".changes"
REFUSED = ".refused"  # after the name of a request that could not be carried out


def write(folder: Path, settings: Mapping[str, Any]) -> None:
    """Ask for these values of settings. Raises OSError."""
    path = folder / REQUESTS / f"{time.time_ns():020}-{secrets.token_hex(4)}.json"
    path.parent.mkdir(exist_ok=True)
    atomic_write(path, to_json({"settings": dict(settings)}))


def pending(folder: Path) -> list[Path]:
    """The requests that nobody has taken yet, in the order in which they were written."""
    try:
        paths = [path for path in (folder / REQUESTS).iterdir() if path.suffix == ".json"]
    except OSError:  # mostly, nobody has asked for anything
        return []
    return sorted(path for path in paths if not path.name.startswith("."))


def read(path: Path) -> dict[str, Any]:
    """The values that a request asks for, unchecked. Raises BadInput for any other file."""
    settings = read_json(path).get("settings")
    if not isinstance(settings, dict):
        raise BadInput(f"{path.name} names no settings.")
    return settings


def forget(path: Path) -> None:
    """Remove a request that has been carried out."""
    with suppress(OSError):
        path.unlink()


def put_aside(path: Path) -> None:
    """Keep a request that could not be carried out, where nobody takes it for a new one."""
    with suppress(OSError):
        path.rename(path.with_name(path.name + REFUSED))
